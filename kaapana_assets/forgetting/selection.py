"""Which series are meant by a study or a patient: by the index, and by the headers of what is not in it."""

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
    """The series of a study or patient, sorted; a series is itself, whether there is anything of it or not.

    Compared exactly as it stands in the headers, blanks around it aside; one instance that has it is enough. Series
    that are in the embedded archive and not in the index are read for it.

    Raises:
        InvalidIdentifier: a UID that is none.
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
    if settings.pacs == "folder":  # an archive on a server may hold much that is not of this platform
        found.update(_not_indexed(settings, indexed, keyword, wanted))
    return tuple(sorted(found))


def _has(document: Document, keyword: str, wanted: str) -> bool:
    """Whether a document has this very value; a term tells neither letters from capitals nor one value from several.

    The attribute itself is of the first instance; what other instances have besides is in ``<keyword>_values``.
    """
    of_first = _as_list(document.get(keyword))
    of_others = {_as_text([each]) for each in _as_list(document.get(f"{keyword}_values"))}
    return wanted == _as_text(of_first) or wanted in of_others - {_as_text([each]) for each in of_first}


def _as_list(value: object) -> list[object]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple, MultiValue)) else [value]


def _as_text(values: Iterable[object]) -> str:
    """An attribute of one or several values as it stands in a file, blanks around each aside."""
    return _BETWEEN_VALUES.join(str(each).strip() for each in values)


def _waiting(settings: Settings, keyword: str, wanted: str) -> Iterator[str]:
    """The series of files in the spool and the quarantine, and of copies on their way."""
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
            continue  # files of it are gone, and what they said with them
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _read(path: Path, keyword: str, limits: ReadingLimits) -> tuple[str, str]:
    """SeriesInstanceUID and the value of a file; empty where it cannot be read."""
    try:
        header = read_header(path, limits=limits)
        series, value = str(header.get("SeriesInstanceUID", "")), _as_text(_as_list(header.get(keyword)))
    except (InputError, OSError, *PYDICOM_ERRORS):
        return "", ""
    return (series if is_uid(series) else ""), value
