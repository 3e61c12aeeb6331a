"""Cohorts: selections of series, frozen when they are created. Their query is never run again."""

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
    """A frozen selection of series.

    Attributes:
        name: name of the cohort, unique on a home.
        query: text of the query that selected the series.
        created: creation time, ISO 8601 in UTC.
        series: SeriesInstanceUIDs, sorted, without duplicates.
        digest: digest of ``series`` and ``forgotten``, see ``list_digest``; equal for equal selections.
        forgotten: marks of former series that were forgotten, see ``stores.forgotten.Marks``.
    """

    name: str
    query: str
    created: str
    series: tuple[str, ...]
    digest: str
    forgotten: tuple[str, ...] = ()


def freeze(index: MetadataIndex, *, name: str, query: str, now: datetime) -> Cohort:
    """A new cohort of all series that match the query now; it is not saved.

    Raises:
        InvalidIdentifier: the name is not valid.
        QueryError: the query has a syntax error.
        NotFound: no series matches.
    """
    checked_name(name, kind="cohort name")
    series = tuple(sorted({checked_uid(uid, keyword="SeriesInstanceUID") for uid in index.series(parse(query))}))
    if not series:
        raise NotFound(f"no series matches {query!r}: cohort {name} is not created")
    return Cohort(name, query, now.isoformat(timespec="seconds"), series, list_digest(series))


def list_digest(series: tuple[str, ...], forgotten: tuple[str, ...] = ()) -> str:
    """The digest ``sha256:<hex>`` of sorted SeriesInstanceUIDs and of the marks of forgotten series."""
    lines = [*series, *(f"forgotten {mark}" for mark in forgotten)]
    return "sha256:" + hashlib.sha256("\n".join(lines).encode()).hexdigest()


def save(folder: Path, cohort: Cohort) -> Path:
    """Save a cohort durably as ``<folder>/<name>.json``; returns the path. Never replaces a cohort.

    Raises:
        ConflictingContent: there is a cohort of that name with other series.
        StoreUnavailable: the disk is full.
    """
    path = folder / f"{cohort.name}.json"
    try:
        with full_disk_told(f"cohort {cohort.name}"):
            write_file(path, _as_text(cohort), replace=False)
    except FileExistsError as exc:
        if read(folder, cohort.name).digest != cohort.digest:
            raise ConflictingContent(
                f"cohort {cohort.name} already exists with other series: choose another name"
            ) from exc
    return path


def read(folder: Path, name: str) -> Cohort:
    """The cohort of that name.

    Raises:
        NotFound: there is none, or its file is damaged or was edited.
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
        raise NotFound(f"the file of cohort {name}, {path}, was edited after it was frozen: freeze it again")
    return cohort


def without(cohort: Cohort, marks: Mapping[str, str]) -> Cohort:
    """The cohort with forgotten series replaced by their marks, and without its query.

    The query can hold a person's name. The cohort does not need it: it is never run again.

    Args:
        cohort: a cohort that has at least one of the series.
        marks: marks by SeriesInstanceUID of the forgotten series.
    """
    series = tuple(uid for uid in cohort.series if uid not in marks)
    forgotten = tuple(sorted({*cohort.forgotten, *(marks[uid] for uid in cohort.series if uid in marks)}))
    return replace(
        cohort, query=QUERY_REMOVED, series=series, forgotten=forgotten, digest=list_digest(series, forgotten)
    )


def save_anew(folder: Path, cohort: Cohort) -> None:
    """Save a cohort durably; replaces the cohort of the same name."""
    write_file(folder / f"{cohort.name}.json", _as_text(cohort))


def name_for(folder: Path, cohort: Cohort) -> str:
    """A name to save the cohort under: its own, or with ``-2``, ``-3`` … if other cohorts have the names before."""
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
    """The names of all cohorts, sorted; files whose names are not valid are ignored."""
    return sorted(path.stem for path in folder.glob("*.json") if is_name(path.stem))
