"""DICOM series made up for tests, every slice with other numbers; and what becomes of many at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nrrd
import numpy as np
import SimpleITK as sitk  # noqa: N813  (its own name for it)
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid

ROWS, COLUMNS = 4, 6
SERIES = "1.2.3"


def stored(number: int) -> np.ndarray:
    """Pixels that differ in every slice, row and column."""
    return (np.arange(ROWS * COLUMNS, dtype=np.int64).reshape(ROWS, COLUMNS) + 100 * number) % 4000


def one(
    number: int = 0,
    *,
    position: tuple[float, ...] | None = None,
    pixels: np.ndarray | None = None,
    **attributes: object,
) -> Dataset:
    """An axial CT slice, at 30 mm and 2.5 mm times its number."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, generate_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = "1.2", SERIES, "1.9"
    ds.InstanceNumber, ds.Modality = number + 1, "CT"
    ds.ImagePositionPatient = list(position or (10, 20, 30 + 2.5 * number))
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing, ds.SliceThickness = [0.5, 0.75], 3
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = ROWS, COLUMNS, 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.PixelData = (stored(number) if pixels is None else pixels).astype("<i2").tobytes()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def stack(count: int = 5, **attributes: object) -> list[Dataset]:
    return [one(number, **attributes) for number in range(count)]  # type: ignore[arg-type]


def without_place(datasets: list[Dataset]) -> None:
    for ds in datasets:
        del ds.ImagePositionPatient
        del ds.ImageOrientationPatient


def raw(ds: Dataset, keyword: str, text: str) -> Dataset:
    """The object with a value as a file can hold it, whether its VR allows that or not."""
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian  # the file does not name the VR
    tag = tag_for_keyword(keyword) or 0
    ds[tag] = DataElement(tag, "LO", text)
    return ds


@dataclass
class Converted:
    """What became of one series.

    Attributes:
        line: the one that is printed about it.
        folder: where its files are, if any were written.
    """

    line: str
    folder: Path

    @property
    def names(self) -> list[str]:
        """Names of its files after the series' own."""
        if not self.folder.exists():
            return []
        return sorted(path.name.split(self.series, 1)[1] for path in self.folder.iterdir())

    @property
    def series(self) -> str:
        return self.folder.parent.name

    def read(self, name: str = ".nrrd") -> tuple[np.ndarray, dict[str, Any]]:
        """Voxels with the slowest axis first, and the header."""
        data, head = nrrd.read(str(self.folder / f"{self.series}{name}"))
        return data.T, head

    def image(self, name: str = ".nrrd") -> sitk.Image:
        return sitk.ReadImage(str(self.folder / f"{self.series}{name}"))


def converted(batch: Any, cases: dict[str, list[Dataset]]) -> dict[str, Converted]:
    """All series of a table, converted by one launch of the image."""
    for number, datasets in enumerate(cases.values()):
        for ds in (ds for ds in datasets if ds.SeriesInstanceUID == SERIES):
            ds.SeriesInstanceUID = f"1.2.{number + 1}"
        batch.add(f"1.2.{number + 1}", datasets)
    operated = batch.run("dcm2nrrd")
    series = [f"1.2.{number + 1}" for number in range(len(cases))]
    return {name: Converted(operated.said_of(each), batch.out(each)) for name, each in zip(cases, series, strict=True)}
