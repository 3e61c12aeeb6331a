"""Classifies the files in a user's folder: DICOM objects, damaged DICOM files and other files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kaapana_assets.dicom.file_meta import dataset_offset
from kaapana_assets.dicom.headers import InstanceIdentity, has_compressed_pixels, read_header, read_identity
from kaapana_assets.dicom.limits import DEFAULT_LIMITS, ReadingLimits
from kaapana_assets.errors import InvalidIdentifier, NotFound, UnreadableDicom
from kaapana_assets.shown import shown_lines

_MEDIA_DIRECTORY = "DICOMDIR"


@dataclass(frozen=True)
class FolderFile:
    """One file of the folder; exactly one of ``identity``, ``damage`` and ``skipped`` is set.

    Attributes:
        path: the file.
        identity: the identifiers of a DICOM object.
        damage: why a file that looks like DICOM (by its suffix or first bytes) cannot be read.
        skipped: why the file is not a DICOM object.
        dataset_offset: offset of the dataset in a file whose file meta information is missing or
            incomplete; None if it is complete. Import writes new file meta information.
    """

    path: Path
    identity: InstanceIdentity | None = None
    damage: str = ""
    skipped: str = ""
    dataset_offset: int | None = None


def files_in(folder: Path) -> list[Path]:
    """All files in ``folder`` and below, and links to folders, sorted by path.

    If ``folder`` is a file, the list holds that file.

    Raises:
        NotFound: there is no such folder or file.
    """
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise NotFound(f"{folder} is not a folder")
    return sorted(_walk(folder))


def inspect(path: Path, *, limits: ReadingLimits = DEFAULT_LIMITS) -> FolderFile:
    """Classify a file, reading only as much of it as necessary."""
    if not path.is_file():
        return FolderFile(path, skipped="a link to a folder" if path.is_dir() else "no plain file")
    if path.name.upper() == _MEDIA_DIRECTORY:
        return FolderFile(path, skipped="a media directory")
    try:
        identity = read_identity(path, limits=limits)
        offset = _checked_offset(path, limits)
        return FolderFile(path, identity=identity, dataset_offset=offset)
    except (UnreadableDicom, InvalidIdentifier) as exc:
        reason = str(exc).removeprefix(shown_lines(f"{path}: "))
        if path.suffix.lower() == ".dcm" or _has_prefix(path):
            return FolderFile(path, damage=reason)
        return FolderFile(path, skipped="not DICOM")


def _checked_offset(path: Path, limits: ReadingLimits) -> int | None:
    """The ``dataset_offset`` of a file.

    Raises:
        UnreadableDicom: the header cannot be read in the transfer syntax that its bytes suggest, or the
            pixel data is compressed and the file does not name its transfer syntax.
    """
    try:
        offset = dataset_offset(path)
    except OSError as exc:
        raise UnreadableDicom(f"{path}: cannot be read ({exc.strerror})") from exc
    if offset is None:
        return None
    header = read_header(path, limits=limits)
    if not header.file_meta.get("TransferSyntaxUID") and has_compressed_pixels(path):
        raise UnreadableDicom(
            f"{path}: its pixel data is compressed, and it has no file meta information that names its transfer syntax"
        )
    return offset


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        yield from (Path(parent, name) for name in names)
        # Links to folders are reported but not followed: they may lead anywhere, also in circles.
        yield from (link for link in (Path(parent, name) for name in folders) if link.is_symlink())


def _has_prefix(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        # It may be DICOM, so it is reported as damaged rather than skipped.
        return True
