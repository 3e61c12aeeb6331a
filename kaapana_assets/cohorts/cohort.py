"""Cohorts: selections of series, frozen when they are made. The query is not run again later."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

from kaapana_assets.dicom.identifiers import checked_name, checked_uid, is_name
from kaapana_assets.durable import full_disk_told, write_file
from kaapana_assets.errors import ConflictingContent, NotFound
from kaapana_assets.stores.index.protocol import MetadataIndex
from kaapana_assets.stores.query import parse

QUERY_REMOVED = "(removed, because series of the cohort were forgotten)"


@dataclass(frozen=True)
class Cohort:
    """A frozen selection.

    Attributes:
        query: the text it was selected with.
        created: time in UTC, ISO 8601.
        series: SeriesInstanceUIDs, sorted, each once.
        digest: of the list and of what was forgotten of it; equal for equal selections.
        forgotten: marks of the series that it had and that were forgotten, see ``stores.forgotten.Marks``.
    """

    name: str
    query: str
    created: str
    series: tuple[str, ...]
    digest: str
    forgotten: tuple[str, ...] = ()


def freeze(index: MetadataIndex, *, name: str, query: str, now: datetime) -> Cohort:
    """The series that match the query now, however many they are.

    Raises:
        InvalidIdentifier: the name is not valid.
        QueryError: the query cannot be read.
        NotFound: no series matches.
    """
    checked_name(name, kind="cohort name")
    series = tuple(sorted({checked_uid(uid, keyword="SeriesInstanceUID") for uid in index.series(parse(query))}))
    if not series:
        raise NotFound(f"no series matches {query!r}: cohort {name} is not made")
    return Cohort(name, query, now.isoformat(timespec="seconds"), series, list_digest(series))


def list_digest(series: tuple[str, ...], forgotten: tuple[str, ...] = ()) -> str:
    """``sha256:<hex>`` of a sorted list of SeriesInstanceUIDs, and of the marks of those that were forgotten."""
    lines = [*series, *(f"forgotten {mark}" for mark in forgotten)]
    return "sha256:" + hashlib.sha256("\n".join(lines).encode()).hexdigest()


def save(folder: Path, cohort: Cohort) -> Path:
    """Keep a cohort as ``<folder>/<name>.json``, durably; an existing one is never replaced.

    Raises:
        ConflictingContent: there is a cohort of that name with another list.
        StoreUnavailable: the disk is full.
    """
    path = folder / f"{cohort.name}.json"
    try:
        with full_disk_told(f"cohort {cohort.name}"):
            write_file(path, _as_text(cohort), replace=False)
    except FileExistsError as exc:
        if read(folder, cohort.name).digest != cohort.digest:
            raise ConflictingContent(f"cohort {cohort.name} exists with other series: choose another name") from exc
    return path


def read(folder: Path, name: str) -> Cohort:
    """The cohort of that name.

    Raises:
        NotFound: there is none, or its file is damaged.
    """
    path = folder / f"{checked_name(name, kind='cohort name')}.json"
    try:
        values = json.loads(path.read_bytes())
        lists = {"series": tuple(values["series"]), "forgotten": tuple(values.get("forgotten", ()))}
        cohort = Cohort(**{**values, **lists})
    except FileNotFoundError as exc:
        have = ", ".join(names(folder)) or "none"
        raise NotFound(f"no cohort {name!r}; there is: {have}") from exc
    except (ValueError, TypeError, KeyError) as exc:
        raise NotFound(f"the file of cohort {name}, {path}, is damaged: freeze it again under another name") from exc
    if list_digest(cohort.series, cohort.forgotten) != cohort.digest:
        raise NotFound(f"the file of cohort {name}, {path}, was changed after it was frozen: freeze it anew")
    return cohort


def without(cohort: Cohort, marks: Mapping[str, str]) -> Cohort:
    """The cohort with marks instead of the series that are forgotten, and without its query.

    The list is what counts; the query, which can hold a person's name, is not run again.

    Args:
        cohort: holds one of the series at least.
        marks: by SeriesInstanceUID.
    """
    series = tuple(uid for uid in cohort.series if uid not in marks)
    forgotten = tuple(sorted({*cohort.forgotten, *(marks[uid] for uid in cohort.series if uid in marks)}))
    return replace(
        cohort, query=QUERY_REMOVED, series=series, forgotten=forgotten, digest=list_digest(series, forgotten)
    )


def save_anew(folder: Path, cohort: Cohort) -> None:
    """Keep a cohort in the place of the one of its name, durably."""
    write_file(folder / f"{cohort.name}.json", _as_text(cohort))


def name_for(folder: Path, cohort: Cohort) -> str:
    """The cohort's name, with ``-2``, ``-3`` … if cohorts with another list have those before."""
    name, number = cohort.name, 1
    while name in names(folder) and not _is_of(folder, name, cohort.digest):
        number += 1
        name = f"{cohort.name}-{number}"
    return name


def _as_text(cohort: Cohort) -> str:
    return json.dumps(asdict(cohort), indent=1)


def _is_of(folder: Path, name: str, digest: str) -> bool:
    try:
        return read(folder, name).digest == digest
    except NotFound:
        return False


def names(folder: Path) -> list[str]:
    """The names of all cohorts, sorted; a file of another name is none."""
    return sorted(path.stem for path in folder.glob("*.json") if is_name(path.stem))
