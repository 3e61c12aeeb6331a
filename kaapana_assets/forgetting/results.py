"""Clears the results of series: objects in buckets, shelf entries and run directories; and marks cohorts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from kaapana_assets.cohorts import cohort as cohort_files
from kaapana_assets.errors import InvalidIdentifier, NotFound, StoreUnavailable
from kaapana_assets.forgetting.location import Location
from kaapana_assets.home_paths import HomePaths
from kaapana_assets.stores.files.run_directory import RunDirectories
from kaapana_assets.stores.files.shelf import Shelf
from kaapana_assets.stores.forgotten import Forgetting, Marks
from kaapana_assets.stores.objects.protocol import ObjectStore

_LISTING = "objects.json"  # of the operator put-objects
_REPORT = "report"
_STAGING = ".staging"


def cohorts_with(home: Path, shelf: Shelf, series: Iterable[str]) -> tuple[str, ...]:
    """The cohorts that hold one of the series, or that have a report which names one."""
    wanted = set(series)
    folder = HomePaths(home).cohorts
    folder = HomePaths(home).cohorts
    found = {name for name in cohort_files.names(folder) if _holds(folder, name, wanted)}
    for report in shelf.folder.glob(f"*/{_REPORT}/*/report.json"):
        text = report.read_text(errors="replace")
        if any(f'"{uid}"' in text for uid in wanted):
            found.add(report.parent.name)
    return tuple(sorted(found))


def pooled_outputs(shelf: Shelf, cohorts: Iterable[str]) -> tuple[tuple[str, str, str], ...]:
    """Workflow, operator and cohort of each shelf entry of a whole cohort, reports included."""
    return tuple(
        (operator.parent.name, operator.name, cohort)
        for operator in _operators(shelf)
        for cohort in cohorts
        if (operator / cohort).is_dir()
    )


def objects_location(objects: ObjectStore, shelf: Shelf, forgetting: Forgetting) -> Location:
    """The objects with results of the series, single or pooled. The shelf lists their names as well."""

    def found() -> Iterator[tuple[str, str]]:
        names = set(_listed(shelf, forgetting))
        for bucket in objects.buckets():
            for uid in forgetting.series:
                names.update((bucket, each.name) for each in objects.list(bucket, f"{uid}/"))
        return iter(sorted(each for each in names if objects.exists(*each)))

    def clear() -> list[str]:
        for bucket, name in found():
            try:
                objects.delete(bucket, name)
            except NotFound:  # somebody else was faster
                continue
        return []

    return Location(name="objects", unit="objects", count=lambda: sum(1 for _ in found()), clear=clear)


def shelf_location(shelf: Shelf, forgetting: Forgetting) -> Location:
    """The outputs of the series, and pooled outputs that include them, which a new run makes again."""

    def found() -> list[Path]:
        single = [operator / uid for operator in _operators(shelf) for uid in forgetting.series]
        pooled = [shelf.entry(*names) for names in forgetting.pooled]
        half_made = [path for uid in forgetting.series for path in shelf.folder.glob(f"{_STAGING}/*/{uid}")]
        half_made += [path for *_, cohort in forgetting.pooled for path in shelf.folder.glob(f"{_STAGING}/*/{cohort}")]
        return [path for path in (*single, *pooled, *half_made) if path.is_dir()]

    return Location(name="shelf", unit="outputs", count=lambda: len(found()), clear=lambda: _removed(found()))


def runs_location(directories: RunDirectories, forgetting: Forgetting) -> Location:
    """The directories of all runs on one of the series."""
    series = set(forgetting.series)

    def found() -> list[Path]:
        single = [path for uid in series for path in directories.folder.glob(f"*-{uid}") if path.is_dir()]
        return [*(each.path for each in directories.holding(series)), *single]

    def clear() -> list[str]:
        for directory in directories.holding(series):
            directories.remove(directory)
        return _removed(found())

    return Location(name="runs", unit="directories", count=lambda: len(set(found())), clear=clear)


def cohorts_location(home: Path, forgetting: Forgetting) -> Location:
    """The cohorts that hold the series. They stay, with a mark in place of each series."""
    folder = HomePaths(home).cohorts

    def found() -> list[str]:
        return [name for name in cohort_files.names(folder) if _holds(folder, name, set(forgetting.series))]

    def clear() -> list[str]:
        names = found()
        marks = Marks(home)
        marked = {uid: marks.of(uid) for uid in forgetting.series}
        for name in names:
            try:
                cohort_files.save_anew(folder, cohort_files.without(cohort_files.read(folder, name), marked))
            except NotFound as exc:
                return [f"{exc}; it names series that were forgotten: delete it"]
        return []

    return Location(name="cohorts", unit="cohorts marked", count=lambda: len(found()), clear=clear)


def _holds(folder: Path, name: str, series: set[str]) -> bool:
    try:
        return not series.isdisjoint(cohort_files.read(folder, name).series)
    except NotFound:  # damaged, or edited by hand
        text = (folder / f"{name}.json").read_text(errors="replace")
        return any(f'"{uid}"' in text for uid in series)


def _operators(shelf: Shelf) -> list[Path]:
    return sorted(path for path in shelf.folder.glob("*/*") if path.is_dir() and path.parent.name != _STAGING)


def _listed(shelf: Shelf, forgetting: Forgetting) -> Iterator[tuple[str, str]]:
    """Bucket and name of each object that an output on the shelf lists as its own, see ``objects_operator``."""
    entries = [operator / uid for operator in _operators(shelf) for uid in forgetting.series]
    for entry in (*entries, *(shelf.entry(*names) for names in forgetting.pooled)):
        try:
            listed = [(str(each["bucket"]), str(each["name"])) for each in json.loads((entry / _LISTING).read_bytes())]
        except (OSError, ValueError, TypeError, KeyError, InvalidIdentifier):
            continue  # no listing, or an operator's own file of that name
        # An operator may write what it likes: objects of other series and cohorts are not its own.
        yield from ((bucket, name) for bucket, name in listed if name.startswith(f"{entry.name}/"))


def _removed(folders: Iterable[Path]) -> list[str]:
    for folder in folders:
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            continue
        except OSError as exc:
            raise StoreUnavailable(f"{folder} cannot be removed: {exc.strerror}: {exc.filename}") from exc
    return []
