"""Chooses the DICOM files that the demo sends: real images from the packages pydicom-data and pydicom.

These packages hold files to test decoders: many variants of one image, and some that are broken on purpose. The demo
sends files that a scanner could have made: readable images, one for each slice position.
"""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import dataclass
from pathlib import Path

from kaapana_assets.dicom.identifiers import checked_uid
from kaapana_assets.errors import ConfigurationError, InvalidIdentifier

_IMAGES_OF_SCANNERS = {"CT", "MR", "CR", "NM", "US", "SEG"}
# The variants of one image are ranked in this order; only the first is sent. All are lossless.
_TRANSFER_SYNTAXES = (
    "1.2.840.10008.1.2.1",  # Explicit VR Little Endian
    "1.2.840.10008.1.2",  # Implicit VR Little Endian
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 lossless
    "1.2.840.10008.1.2.4.70",  # JPEG lossless
    "1.2.840.10008.1.2.5",  # RLE
)

_NEEDED = ("SOPInstanceUID", "SeriesInstanceUID", "Modality", "Rows", "PixelData", "ImagePositionPatient")


@dataclass(frozen=True)
class DemoFile:
    """One file to send, with its identifiers."""

    path: Path
    series_instance_uid: str
    sop_instance_uid: str
    modality: str


def demo_files() -> list[DemoFile]:
    """Return the files to send, each SOP Instance UID once.

    Raises:
        ConfigurationError: the package pydicom-data is not installed.
    """
    chosen: dict[tuple[str, str], tuple[int, DemoFile]] = {}
    with warnings.catch_warnings():
        # Odd values in these headers are intentional; the files are sent as they are.
        warnings.simplefilter("ignore")
        for folder in _folders():
            for path in sorted(folder.rglob("*")):
                _consider(path, chosen)
    files = {file.sop_instance_uid: file for _, file in chosen.values()}
    return sorted(files.values(), key=lambda file: (file.series_instance_uid, str(file.path)))


def _folders() -> list[Path]:
    folders = []
    for package, inside in (("pydicom", "data/test_files"), ("data_store", "data")):
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise ConfigurationError("the demo needs the package pydicom-data: install kaapana-assets[demo]")
        folders.append(Path(spec.submodule_search_locations[0]) / inside)
    return folders


def _consider(path: Path, chosen: dict[tuple[str, str], tuple[int, DemoFile]]) -> None:
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    if not path.is_file():
        return
    try:
        ds = dcmread(path, specific_tags=list(_NEEDED))
        syntax = str(ds.file_meta.get("TransferSyntaxUID", ""))
        file = DemoFile(path, checked_uid(ds.SeriesInstanceUID), checked_uid(ds.SOPInstanceUID), str(ds.Modality))
        place = str(ds.get("ImagePositionPatient") or file.sop_instance_uid)
    except (InvalidDicomError, InvalidIdentifier, AttributeError, ValueError, KeyError, NotImplementedError, EOFError):
        return
    readable = "PixelData" in ds and len(ds.PixelData) > 0 and ds.get("Rows")
    if not readable or syntax not in _TRANSFER_SYNTAXES or file.modality not in _IMAGES_OF_SCANNERS:
        return
    rank = _TRANSFER_SYNTAXES.index(syntax)
    key = (file.series_instance_uid, place)
    if key not in chosen or rank < chosen[key][0]:
        chosen[key] = (rank, file)
