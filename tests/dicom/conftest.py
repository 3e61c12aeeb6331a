"""Small DICOM objects made for the tests of kaapana_assets.dicom."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

PYDICOM_FILES = Path(__import__("pydicom").__file__).parent / "data"


def make_dataset(**attributes: object) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID = MRImageStorage
    ds.StudyInstanceUID = "1.2.3"
    ds.SeriesInstanceUID = "1.2.3.4"
    ds.SOPInstanceUID = "1.2.3.4.5"
    ds.Modality = "MR"
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def save_dataset(ds: Dataset, path: Path, *, transfer_syntax: str = ExplicitVRLittleEndian, **meta: object) -> Path:
    file_meta = FileMetaDataset()
    file_meta.TransferSyntaxUID = transfer_syntax
    file_meta.MediaStorageSOPClassUID = ds.get("SOPClassUID", "1.2")
    file_meta.MediaStorageSOPInstanceUID = ds.get("SOPInstanceUID", "1.2")
    for keyword, value in meta.items():
        setattr(file_meta, keyword, value)
    file_ds = FileDataset(str(path), ds, preamble=b"\0" * 128, file_meta=file_meta)
    dcmwrite(path, file_ds, enforce_file_format=True)
    return path


@pytest.fixture
def dataset() -> Callable[..., Dataset]:
    return make_dataset


@pytest.fixture
def save() -> Callable[..., Path]:
    return save_dataset


@pytest.fixture(scope="session")
def pydicom_files() -> Path:
    """The folder of pydicom's own test files."""
    return PYDICOM_FILES
