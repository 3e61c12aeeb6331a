"""DICOM files below folders, and the series that they are. Nothing here reads pixels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID
from tqdm import tqdm

DIRECTORY = "1.2.840.10008.1.3.10"  # Media Storage Directory Storage: a DICOMDIR
TAGS = ["SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality", "Manufacturer", "Rows"]


@dataclass(frozen=True, kw_only=True)
class Series:
    """Files that the product would hand to the converter together.

    Attributes:
        uid: its SeriesInstanceUID, or a made-up one (``0.1``, ``0.2``) where the files have none.
        where: the folder below which they lie, or the file if it is one.
        files: with the SOP Instance UID of each; unique in a series, as in an archive.
        modality, manufacturer: as the first file says.
        transfer_syntaxes: of all files.
    """

    uid: str
    where: Path
    files: dict[str, Path]
    modality: str
    manufacturer: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Found:
    file: Path
    sop: str
    series: str
    frame_of_reference: str
    modality: str
    manufacturer: str
    syntax: str


def find_series(folders: Iterable[Path], *, each_file: bool) -> list[Series]:
    """The series of all DICOM files below the folders, whatever the files are called.

    Where a SOP Instance UID is there more than once (the same images in several transfer
    syntaxes), each folder holds a series of its own; in one folder, each further file of a SOP
    Instance UID belongs to a further copy of the series.

    Args:
        folders: where to look; a file counts as it is.
        each_file: every file is a series of its own.
    """
    paths = [path for folder in folders for path in _files(folder)]
    found = [each for path in tqdm(paths, desc="looking", unit="file") if (each := _header(path))]
    if each_file:
        return [_series([each], each.series or f"0.{number}") for number, each in enumerate(found, 1)]
    groups: dict[tuple[str, ...], list[_Found]] = defaultdict(list)
    for each in found:
        groups[_key(each)].append(each)
    made = []
    for number, members in enumerate(groups.values(), 1):
        made += [_series(part, part[0].series or f"0.{number}") for part in _copies(members)]
    return made


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else [folder]


def _header(path: Path) -> _Found | None:
    """The identifiers of a file; None if it is no DICOM object with a SOP class."""
    try:
        ds = pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=TAGS)
        sop_class = ds.get("SOPClassUID") or _meta(ds).get("MediaStorageSOPClassUID")
        if not sop_class or sop_class == DIRECTORY:
            return None
        return _Found(
            file=path,
            sop=str(ds.get("SOPInstanceUID") or _meta(ds).get("MediaStorageSOPInstanceUID") or path.name),
            series=str(ds.get("SeriesInstanceUID") or ""),
            frame_of_reference=str(ds.get("FrameOfReferenceUID") or ""),
            modality=str(ds.get("Modality") or ""),
            manufacturer=str(ds.get("Manufacturer") or ""),
            syntax=UID(str(_meta(ds).get("TransferSyntaxUID") or "")).name or "no file meta",
        )
    except Exception:  # noqa: BLE001  (forced on any file, pydicom raises anything)
        return None


def _meta(ds: Dataset) -> Dataset:
    return getattr(ds, "file_meta", None) or Dataset()


def _key(found: _Found) -> tuple[str, ...]:
    if found.series:
        return (found.series,)
    return ("", str(found.file.parent), found.frame_of_reference or found.file.name)


def _copies(members: list[_Found]) -> list[list[_Found]]:
    if len({each.sop for each in members}) == len(members):
        return [members]
    by_copy: dict[tuple[Path, int], list[_Found]] = defaultdict(list)
    seen: dict[tuple[Path, str], int] = defaultdict(int)
    for each in members:
        place = each.file.parent, each.sop
        by_copy[each.file.parent, seen[place]].append(each)
        seen[place] += 1
    return list(by_copy.values())


def _series(members: list[_Found], uid: str) -> Series:
    folders = {each.file.parent for each in members}
    where = members[0].file if len(members) == 1 else min(folders, key=lambda folder: len(folder.parts))
    return Series(
        uid=uid,
        where=where,
        files={each.sop: each.file for each in members},
        modality=members[0].modality,
        manufacturer=members[0].manufacturer,
        transfer_syntaxes=tuple(sorted({each.syntax for each in members})),
    )
