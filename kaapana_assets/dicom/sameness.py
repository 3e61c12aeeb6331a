"""Whether two files hold the same object, also where one of them was written anew on its way."""

from __future__ import annotations

from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

from kaapana_assets.dicom.headers import PYDICOM_ERRORS, pydicom_quiet

_DATASET_TRAILING_PADDING = 0xFFFCFFFC


def same_object(one: Path, other: Path) -> bool:
    """Whether all attributes of two files are equal, pixel data included.

    File meta information, group lengths and padding do not count, nor how lengths of sequences are
    written. Another compression is another object. Both are read into memory. Files that cannot be
    read are not the same.
    """
    try:
        with pydicom_quiet():
            return _comparable(one) == _comparable(other)
    except PYDICOM_ERRORS:
        return False


def _comparable(path: Path) -> Dataset:
    ds = pydicom.dcmread(path)
    for tag in [tag for tag in ds.keys() if tag.element == 0 or tag == _DATASET_TRAILING_PADDING]:  # noqa: SIM118
        del ds[tag]
    return Dataset({tag: ds[tag] for tag in ds.keys()})  # noqa: SIM118 - iterating gives elements
