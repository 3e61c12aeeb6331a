"""Plans, previews and carries out a forgetting, in steps that can be interrupted and repeated.

The order makes it safe. The series are recorded first, so that no run starts on them. Results are removed before
the series, since the shelf lists which objects exist. Ingest waits until the end, so that a series which arrives
again meanwhile is ingested afterwards, as a new one.
"""

from __future__ import annotations

import getpass
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from kaapana_assets.dicom.limits import limits_of
from kaapana_assets.errors import DagsterUnavailable, NotFound, TemporaryError
from kaapana_assets.forgetting.copies import archive_location, caches_location, index_location, logs_location
from kaapana_assets.forgetting.dagster_events import dagster_location
from kaapana_assets.forgetting.incoming import quarantine_location, scratch_location, spool_location
from kaapana_assets.forgetting.location import Location
from kaapana_assets.forgetting.results import (
    cohorts_location,
    cohorts_with,
    objects_location,
    pooled_outputs,
    runs_location,
    shelf_location,
)
from kaapana_assets.forgetting.selection import series_of
from kaapana_assets.graphql import DagsterClient
from kaapana_assets.ingest.spool import open_spool
from kaapana_assets.settings import Settings
from kaapana_assets.stores.factory import open_objects, open_run_directories, open_shelf
from kaapana_assets.stores.forgotten import Forgetting, ForgottenRecords, Kind
from kaapana_assets.supervision.record import running_platform

Say = Callable[[str], None]
"""Called with the name of each location before it is cleared, and with a line about anything it waits for."""

_UNFINISHED = ["QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING"]


def plan(settings: Settings, kind: Kind, value: str, *, now: datetime) -> Forgetting:
    """Plan a forgetting: its series, and the cohorts and pooled outputs that hold them. Writes nothing.

    Raises:
        InvalidIdentifier: the UID is not valid.
        NotFound: the platform has no series of this study or patient.
        StoreUnavailable: a store does not answer.
    """
    series = series_of(settings, kind, value)
    if not series:
        raise NotFound(f"no series of this {kind} is in the archive, the index, the spool or the quarantine")
    shelf = open_shelf(settings)
    cohorts = cohorts_with(settings.home, shelf, series)
    return Forgetting(
        id=f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(4)}",
        kind=kind,
        asked_by=_user(),
        asked=now.isoformat(timespec="seconds"),
        series=series,
        cohorts=cohorts,
        pooled=pooled_outputs(shelf, cohorts),
    )


def preview(settings: Settings, forgetting: Forgetting) -> Mapping[str, tuple[int, str]]:
    """The number and unit of the items that would be removed, by location."""
    return {place.name: (place.count(), place.unit) for place in _locations(settings, forgetting)}


def carry_out(settings: Settings, forgetting: Forgetting, say: Say) -> Path:
    """Carry out a forgetting; returns the path of its record.

    Raises:
        TemporaryError: a run or a sender uses one of the series, or a backup is being taken, and nothing was removed;
            or a store or Dagster does not answer: the rest is removed by the next forgetting, or when the platform
            starts.
    """
    records = ForgottenRecords(settings.home)
    with records.alone():
        records.begin(forgetting)
        try:
            _check_idle(settings, forgetting)
        except TemporaryError:
            records.drop(forgetting)
            raise
        return _clear(settings, records, forgetting, say)


def go_on(settings: Settings, say: Say) -> list[Path]:
    """Complete all interrupted forgettings; returns the paths of their records.

    Raises:
        TemporaryError: see ``carry_out``; the first such error, raised after all were tried.
    """
    records = ForgottenRecords(settings.home)
    if not records.pending():
        return []
    with records.alone():
        ended, failed = [], []
        for forgetting in records.pending():
            try:
                if not forgetting.done:  # it may have been interrupted before the check
                    _check_idle(settings, forgetting)
                ended.append(_clear(settings, records, forgetting, say))
            except TemporaryError as exc:
                failed.append(exc)
        if failed:
            raise failed[0]
        return ended


def _clear(settings: Settings, records: ForgottenRecords, forgetting: Forgetting, say: Say) -> Path:
    with _ingest_waits(settings, say):
        if not forgetting.done:
            forgetting = _with_latest(settings, forgetting)
            records.begin(forgetting)
        for place in _locations(settings, forgetting):
            if place.name in forgetting.done:
                continue
            say(place.name)
            count = place.count()
            remains = tuple(place.clear())
            forgetting = forgetting.with_done(place.name, count, remains)
            records.begin(forgetting)
        return records.end(forgetting)


def _with_latest(settings: Settings, forgetting: Forgetting) -> Forgetting:
    """Add cohorts and pooled outputs that were made since the plan; by now no run can start on the series."""
    shelf = open_shelf(settings)
    cohorts = {*forgetting.cohorts, *cohorts_with(settings.home, shelf, forgetting.series)}
    pooled = {*forgetting.pooled, *pooled_outputs(shelf, cohorts)}
    return replace(forgetting, cohorts=tuple(sorted(cohorts)), pooled=tuple(sorted(pooled)))


def _locations(settings: Settings, forgetting: Forgetting) -> list[Location]:
    shelf = open_shelf(settings)
    limits = limits_of(settings)
    return [
        objects_location(open_objects(settings), shelf, forgetting),
        shelf_location(shelf, forgetting),
        runs_location(open_run_directories(settings), forgetting),
        cohorts_location(settings.home, forgetting),
        quarantine_location(settings.home, limits, forgetting),
        spool_location(settings.home, forgetting),
        scratch_location(settings.home, limits, forgetting),
        archive_location(settings, forgetting),
        index_location(settings, forgetting),
        caches_location(settings.home, forgetting),
        logs_location(settings.home, forgetting),
        dagster_location(settings, forgetting, storage_is_up=running_platform(settings.home) is not None),
    ]


@contextmanager
def _ingest_waits(settings: Settings, say: Say) -> Iterator[None]:
    spool = open_spool(settings)
    if spool.is_ingest_locked():
        say("waiting for the end of an ingest")
    with spool.ingest_lock():
        yield


def _check_idle(settings: Settings, forgetting: Forgetting) -> None:
    """Check that no run and no sender uses the series.

    Raises:
        TemporaryError: a run or a sender does; the message names it.
    """
    held = {each.series_instance_uid for each in open_spool(settings).series() if each.open}
    if busy := held.intersection(forgetting.series):
        raise TemporaryError(f"series {min(busy)} is being received: wait for the end of its association")
    directories = open_run_directories(settings)
    going = _going(settings)
    for directory in directories.holding(set(forgetting.series)):
        users = set(directories.users(directory)) | (going & {_dagster_run(directory.conf)})
        if users:
            raise TemporaryError(
                f"run {directory.name} ({min(users)}) works on a series that is to be forgotten: wait for its end, or "
                "cancel it"
            )


def _dagster_run(conf: Callable[[], dict[str, object]]) -> str:
    try:
        return str(conf().get("dagster_run_id", ""))
    except (NotFound, ValueError):
        return ""


def _going(settings: Settings) -> set[str]:
    """The unfinished runs, and the runs that they re-execute; none if no platform is up."""
    platform = running_platform(settings.home)
    if platform is None:
        return set()
    try:
        runs = DagsterClient(platform.dagster_url).runs(statuses=_UNFINISHED, limit=1000)
    except DagsterUnavailable:
        return set()  # active runs also hold locks
    return {each.run_id for each in runs} | {each.root_run_id for each in runs if each.root_run_id}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in containers
        return str(os.getuid())
