"""Previews of series in the PACS; each is made when it is requested and is not kept."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from kaapana_assets.dicom.headers import PYDICOM_ERRORS, read_header
from kaapana_assets.dicom.limits import ReadingLimits
from kaapana_assets.dicom.preview import preview_png
from kaapana_assets.errors import NotFound, UnreadableDicom
from kaapana_assets.stores.pacs.protocol import Pacs


def preview_of_series(
    pacs: Pacs, series_instance_uid: str, *, size: int, scratch: Path, limits: ReadingLimits
) -> bytes:
    """A PNG image of the middle slice of a series, in order of InstanceNumber.

    Args:
        pacs: holds the series.
        series_instance_uid: the series.
        size: longest side of the picture, in pixels.
        scratch: folder for temporary copies, which are removed at the end of the call.
        limits: limits for decoding.

    Raises:
        NotFound: no such series, or it has no pixels.
        UnreadableDicom: the pixels cannot be decoded.
        StoreUnavailable: the PACS does not answer.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=scratch))
    try:
        pacs.retrieve(series_instance_uid, folder / "series", writable_copy=False)
        picture = preview_png(_middle(sorted((folder / "series").iterdir()), limits), size=size, limits=limits)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if picture is None:
        raise NotFound(f"series {series_instance_uid} has no pixels")
    return picture


def _middle(files: Sequence[Path], limits: ReadingLimits) -> Path:
    in_order = sorted(files, key=lambda path: _instance_number(path, limits))
    return in_order[len(in_order) // 2]


def _instance_number(path: Path, limits: ReadingLimits) -> int:
    try:
        return int(read_header(path, limits=limits).get("InstanceNumber") or 0)
    except (UnreadableDicom, *PYDICOM_ERRORS):
        return 0
