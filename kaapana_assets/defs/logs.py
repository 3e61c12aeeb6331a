"""Removes old logs of runs: log lines, events of steps, and the output of operators.

Dagster has no retention of its own for them. Events about assets are not logs and are kept.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime, timezone
from functools import partial
from typing import Any

import dagster as dg
import sqlalchemy as db
from dagster._core.events import DagsterEventType
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage

_TOGETHER = 5000
_KEPT = [
    each.value
    for each in (
        DagsterEventType.ASSET_MATERIALIZATION,
        DagsterEventType.ASSET_OBSERVATION,
        DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
        DagsterEventType.ASSET_CHECK_EVALUATION,
        DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED,
    )
]


def remove_logs(instance: dg.DagsterInstance, *, before: datetime) -> int:
    """Remove the logs that were written before a time; return the number of events removed.

    Args:
        instance: the platform's Dagster instance.
        before: a time with time zone.
    """
    storage = instance.event_log_storage
    runs = instance.get_run_ids(dg.RunsFilter(created_before=before))
    removed = _remove(storage.index_connection, before)  # type: ignore[attr-defined]
    if isinstance(storage, SqliteEventLogStorage):  # it keeps the log of each run in a file of its own
        removed += sum(_remove(partial(storage.run_connection, run_id), before) for run_id in runs)
    for run_id in runs:
        with contextlib.suppress(NotImplementedError):  # logs kept in another system follow its own rules
            instance.compute_log_manager.delete_logs(prefix=[run_id])
    return removed


def _remove(open_connection: Callable[[], AbstractContextManager[Any]], before: datetime) -> int:
    events = SqlEventLogStorageTable
    # Dagster stores UTC times without a time zone.
    is_old = events.c.timestamp < before.astimezone(timezone.utc).replace(tzinfo=None)
    is_log = db.or_(events.c.dagster_event_type.is_(None), events.c.dagster_event_type.notin_(_KEPT))
    oldest = db.select(events.c.id).where(db.and_(is_old, is_log)).limit(_TOGETHER)
    removed = 0
    while True:
        with open_connection() as connection:
            ids = [number for (number,) in connection.execute(oldest)]
            connection.execute(events.delete().where(events.c.id.in_(ids)))
        removed += len(ids)
        if len(ids) < _TOGETHER:
            return removed
