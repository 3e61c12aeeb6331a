"""Small DICOM files that are made up."""

from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian


def write(folder: Path, sop: str, *, series: str = "1.2", study: str = "1.1", pixels: bytes = b"\1\2") -> Path:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, sop
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.Modality = study, series, "CT"
    ds.Rows, ds.Columns, ds.BitsAllocated, ds.SamplesPerPixel = 1, len(pixels), 8, 1
    ds.PixelData = pixels
    ds["PixelData"].VR = "OB"
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    folder.mkdir(exist_ok=True)
    path = folder / f"{series}-{sop}-{pixels[:4].hex()}.dcm"
    ds.save_as(path, enforce_file_format=True)
    return path
