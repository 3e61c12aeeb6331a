"""Removes series from Dagster's storage: ``python -m kaapana_assets.defs.forgotten_events`` with DAGSTER_HOME set.

Reads ``{"series": [...], "outputs": [[*asset key, partition], ...]}`` from standard input, and writes what it removed
to standard output. Dagster cannot wipe single partitions, so this module changes Dagster's tables itself. It deletes
the events of a partition. Elsewhere it replaces the partition's key by the word ``forgotten``, so that runs which
also worked on other series stay readable. It deletes the whole captured output of these runs, because operators may
print anything.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as db
from dagster import AssetKey, DagsterInstance, DagsterRunStatus, RunsFilter
from dagster._core.storage.event_log.schema import (
    AssetCheckExecutionsTable,
    AssetEventTagsTable,
    AssetKeyTable,
    SqlEventLogStorageTable,
)
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._core.storage.runs.schema import (
    BackfillTagsTable,
    BulkActionsTable,
    KeyValueStoreTable,
    RunsTable,
    RunTagsTable,
)
from dagster._core.storage.schedules.schema import InstigatorsTable, JobTable, JobTickTable

FORGOTTEN = "forgotten"
_TOGETHER = 50
_EVENTS = ((SqlEventLogStorageTable, ("event",)),)
_BESIDE_EVENTS = (
    (AssetEventTagsTable, ("value",)),
    (AssetKeyTable, ("last_materialization",)),
    (AssetCheckExecutionsTable, ("evaluation_event",)),
)
_IN_RUNS = (
    (RunsTable, ("run_body", "partition")),
    (RunTagsTable, ("value",)),
    (BulkActionsTable, ("body",)),
    (BackfillTagsTable, ("value",)),
    (KeyValueStoreTable, ("value",)),
)
_IN_SCHEDULES = ((JobTable, ("job_body",)), (InstigatorsTable, ("instigator_body",)), (JobTickTable, ("tick_body",)))


def forget(instance: DagsterInstance, series: Sequence[str], outputs: Sequence[Sequence[str]]) -> dict[str, int]:
    """Remove partitions, their events and the output of their runs; return the number of each.

    Args:
        instance: the platform's Dagster instance.
        series: keys of the dynamic partitions ``series``.
        outputs: outputs of cohorts that held one of the series, each as the parts of its asset key and its partition.
    """
    _cancel_waiting(instance, series)
    runs: set[str] = set()
    events = 0
    for open_connection, is_index in _event_logs(instance):
        with open_connection() as connection:
            for part in _parts(series):
                events += is_index * _delete(connection, SqlEventLogStorageTable.c.partition.in_(part), runs)
            for *key, partition in outputs:
                of_asset = SqlEventLogStorageTable.c.asset_key == AssetKey(key).to_string()
                of_partition = SqlEventLogStorageTable.c.partition == partition
                events += is_index * _delete(connection, db.and_(of_asset, of_partition), runs)
            _redact(connection, _EVENTS, series, runs)
            if is_index:
                for part in _parts(series):
                    of_series = AssetCheckExecutionsTable.c.partition.in_(part)
                    connection.execute(AssetCheckExecutionsTable.delete().where(of_series))
                # Dagster caches the status of partitions here, and computes it again where it is missing.
                connection.execute(AssetKeyTable.update().values(cached_status_data=None))
                _redact(connection, _BESIDE_EVENTS, series, runs)
    with instance.run_storage.connect() as connection:  # type: ignore[attr-defined]
        _redact(connection, _IN_RUNS, series, runs)
    if instance.schedule_storage is not None:
        with instance.schedule_storage.connect() as connection:  # type: ignore[attr-defined]
            _redact(connection, _IN_SCHEDULES, series, runs)
    known = set(instance.get_dynamic_partitions("series"))
    partitions = known.intersection(series)
    for uid in partitions:
        instance.delete_dynamic_partition("series", uid)
    for run_id in runs:
        with contextlib.suppress(NotImplementedError):  # logs kept in another system are removed by its retention
            instance.compute_log_manager.delete_logs(prefix=[run_id])
    return {"partitions": len(partitions), "events": events, "runs": len(runs)}


def _cancel_waiting(instance: DagsterInstance, series: Sequence[str]) -> None:
    """Cancel runs that have not started and name one of the series; they would fail without its partition."""
    names = set(series)
    for run in instance.get_runs(RunsFilter(statuses=[DagsterRunStatus.QUEUED, DagsterRunStatus.NOT_STARTED])):
        if not names.isdisjoint(run.tags.values()):
            instance.report_run_canceled(run, message="what it was to work on was forgotten")


def _event_logs(instance: DagsterInstance) -> Iterator[tuple[Any, bool]]:
    """Yield a function that connects to each event log, and whether that log is the index of all runs."""
    storage = instance.event_log_storage
    yield storage.index_connection, True  # type: ignore[attr-defined]
    if isinstance(storage, SqliteEventLogStorage):  # it also keeps the log of each run in a file of its own
        for run_id in instance.get_run_ids():
            yield partial(storage.run_connection, run_id), False


def rewrite(dagster_home: Path) -> None:
    """Vacuum the SQLite files, if the storage has any, so that free pages keep no deleted data."""
    for path in (*dagster_home.glob("history/**/*.db"), *dagster_home.glob("schedules/*.db")):
        with contextlib.closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as connection:
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _delete(connection: db.engine.Connection, which: Any, runs: set[str]) -> int:  # noqa: ANN401 - a clause
    """Delete events and their tags, and add their runs to ``runs``; return the number of events."""
    events = SqlEventLogStorageTable
    rows = connection.execute(db.select(events.c.id, events.c.run_id).where(which)).fetchall()
    runs.update(run_id for _, run_id in rows if run_id)
    for part in _parts([number for number, _ in rows], 500):
        connection.execute(AssetEventTagsTable.delete().where(AssetEventTagsTable.c.event_id.in_(part)))
        connection.execute(events.delete().where(events.c.id.in_(part)))
    return len(rows)


def _redact(connection: db.engine.Connection, tables: Any, series: Sequence[str], runs: set[str]) -> None:  # noqa: ANN401
    there = set(db.inspect(connection).get_table_names())
    for table, names in tables:
        if table.name not in there:  # only newer versions of Dagster make it
            continue
        for name in names:
            column, number = table.c[name], table.c["id"]
            for part in _parts(series):
                pattern = re.compile(rf"(?<![0-9.])(?:{'|'.join(map(re.escape, part))})(?!\.?[0-9])")
                which = db.or_(*(column.like(f"%{uid}%") for uid in part))
                of_run = table.c["run_id"] if "run_id" in table.c else db.null()
                rows = connection.execute(db.select(number, column, of_run).where(which)).fetchall()
                for row, text, run_id in rows:
                    redacted = pattern.sub(FORGOTTEN, text)
                    if redacted != text:
                        runs.update([run_id] if run_id else [])
                        connection.execute(table.update().where(number == row).values({name: redacted}))


def _parts(values: Sequence[Any], size: int = _TOGETHER) -> Iterator[Sequence[Any]]:
    return (values[start : start + size] for start in range(0, len(values), size))


def main() -> None:
    """Remove what standard input names; see the module's docstring."""
    asked = json.load(sys.stdin)
    with DagsterInstance.get() as instance:
        sys.stdout.write(json.dumps(forget(instance, asked["series"], asked["outputs"])))
    rewrite(Path(os.environ["DAGSTER_HOME"]))


if __name__ == "__main__":
    main()
