"""Series and images that tests of the whole platform make."""

import uuid
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage


def write_series(folder: Path, *, instances: int = 3, series: str = "", first: int = 1, **attributes) -> str:
    """A small MR series on disk; the SeriesInstanceUID."""
    series = series or f"2.25.{uuid.uuid4().int}"
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + instances):
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.SOPClassUID = MRImageStorage
        ds.StudyInstanceUID = series + ".1"
        ds.SeriesInstanceUID = series
        ds.SOPInstanceUID = f"{series}.{number}"
        ds.FrameOfReferenceUID = series + ".2"
        ds.Modality = "MR"
        ds.PatientID = "p"
        ds.InstanceNumber = number
        ds.Rows = ds.Columns = 8
        ds.PixelSpacing = [1, 1]
        ds.SliceThickness = 2
        ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        ds.ImagePositionPatient = [0, 0, 2.0 * number]
        ds.BitsAllocated = ds.BitsStored = 16
        ds.HighBit = 15
        ds.SamplesPerPixel = 1
        ds.PixelRepresentation = 0
        ds.PhotometricInterpretation = "MONOCHROME2"
        ds.PixelData = np.full((8, 8), number, dtype="<u2").tobytes()
        for keyword, value in attributes.items():
            setattr(ds, keyword, value)
        ds.save_as(folder / f"{series}-{number}.dcm", enforce_file_format=True)
    return series


def write_image(images: Path, name: str, script: str) -> None:
    (images / name / "files").mkdir(parents=True, exist_ok=True)
    (images / name / "files" / "main.py").write_text(script)
    (images / name / "requirements.txt").write_text("")
    (images / name / "Dockerfile").write_text(
        'FROM python:3.12-slim\nWORKDIR /app\nCOPY files/ /app/\nENTRYPOINT ["python", "main.py"]\n'
    )
