"""Finds the series of a study or a patient, in the index and in the headers of files that are not indexed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydicom.multival import MultiValue

from kaapana_assets.dicom.attributes import Document
from kaapana_assets.dicom.headers import PYDICOM_ERRORS, read_header
from kaapana_assets.dicom.identifiers import checked_uid, is_uid
from kaapana_assets.dicom.limits import ReadingLimits, limits_of
from kaapana_assets.errors import InputError
from kaapana_assets.forgetting.incoming import aside_files, quarantined_files
from kaapana_assets.settings import Settings
from kaapana_assets.stores.factory import open_index, open_pacs
from kaapana_assets.stores.forgotten import Kind
from kaapana_assets.stores.query import All, Term

_BETWEEN_VALUES = "\\"
_KEYWORDS = {"study": "StudyInstanceUID", "patient": "PatientID"}


def series_of(settings: Settings, kind: Kind, value: str) -> tuple[str, ...]:
    """The series of a study or a patient, sorted; for a single series its own UID, whether or not it exists.

    Values are compared exactly as in the headers, except for surrounding blanks; one instance with the value is
    enough. Series of the embedded archive that are not indexed are read for the comparison.

    Raises:
        InvalidIdentifier: the UID is not valid.
        InputError: the PatientID is empty.
        StoreUnavailable: the PACS or the index does not answer.
    """
    if kind == "series":
        return (checked_uid(value, keyword="SeriesInstanceUID"),)
    keyword = _KEYWORDS[kind]
    wanted = checked_uid(value, keyword=keyword) if kind == "study" else _as_text(value.split(_BETWEEN_VALUES))
    word = next((each for each in wanted.split(_BETWEEN_VALUES) if each), "")
    if not word:
        raise InputError("an empty PatientID stands for many people: name series or studies instead")
    index = open_index(settings)
    try:
        indexed = set(index.series(All()))
        candidates = {uid for field in (keyword, f"{keyword}_values") for uid in index.series(Term(field, word))}
        found = {uid for uid in candidates if _has(index.get(uid), keyword, wanted)}
    finally:
        index.close()
    found.update(_waiting(settings, keyword, wanted))
    if settings.pacs == "folder":  # an archive on a server may hold many series of others
        found.update(_not_indexed(settings, indexed, keyword, wanted))
    return tuple(sorted(found))


def _has(document: Document, keyword: str, wanted: str) -> bool:
    """Whether a document has exactly this value: a term ignores case, and matches one of several values.

    The attribute itself is from the first instance; further values of other instances are in ``<keyword>_values``.
    """
    of_first = _as_list(document.get(keyword))
    of_others = {_as_text([each]) for each in _as_list(document.get(f"{keyword}_values"))}
    return wanted == _as_text(of_first) or wanted in of_others - {_as_text([each]) for each in of_first}


def _as_list(value: object) -> list[object]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple, MultiValue)) else [value]


def _as_text(values: Iterable[object]) -> str:
    """The values of an attribute as one text, as in a file, without blanks around each value."""
    return _BETWEEN_VALUES.join(str(each).strip() for each in values)


def _waiting(settings: Settings, keyword: str, wanted: str) -> Iterator[str]:
    """The series of matching files in the spool, in the quarantine, and of temporary copies."""
    limits = limits_of(settings)
    home = settings.home
    for path in (*home.glob("incoming/[0-9]*/*.dcm"), *quarantined_files(home), *aside_files(home)):
        series, value = _read(path, keyword, limits)
        if series and value == wanted:
            yield series


def _not_indexed(settings: Settings, indexed: set[str], keyword: str, wanted: str) -> Iterator[str]:
    pacs = open_pacs(settings)
    unknown = [uid for uid in pacs.series_uids() if uid not in indexed]
    for uid in unknown:
        scratch = settings.paths.scratch
        scratch.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=scratch))
        try:
            pacs.retrieve(uid, folder / "series", writable_copy=False)
            values = (_read(path, keyword, limits_of(settings)) for path in (folder / "series").iterdir())
            if any(value == wanted for _, value in values):
                yield uid
        except InputError:
            continue  # files of it are gone, so its values are unknown
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _read(path: Path, keyword: str, limits: ReadingLimits) -> tuple[str, str]:
    """SeriesInstanceUID and value of the keyword in a file; empty if the file cannot be read."""
    try:
        header = read_header(path, limits=limits)
        series, value = str(header.get("SeriesInstanceUID", "")), _as_text(_as_list(header.get(keyword)))
    except (InputError, OSError, *PYDICOM_ERRORS):
        return "", ""
    return (series if is_uid(series) else ""), value
