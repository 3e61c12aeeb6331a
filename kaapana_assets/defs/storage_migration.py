"""Migrates Dagster's storage to this version; run as ``python -m kaapana_assets.defs.storage_migration``.

The supervisor must not import Dagster. So it starts this module before the daemon, with DAGSTER_HOME set, and again
when the clock was set back. Exit code 2 means a refusal; standard error has the reason.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from dagster import DagsterInstance, __version__
from dagster._core.scheduler.instigation import SensorInstigatorData
from dagster._core.storage.sql import ALEMBIC_SCRIPTS_LOCATION

from kaapana_assets.clocks import is_future
from kaapana_assets.errors import ConfigurationError, KaapanaAssetsError

_TIMES = ("last_tick_timestamp", "last_tick_start_timestamp", "last_tick_success_timestamp")


def bring_up_to_date(instance: DagsterInstance) -> bool:
    """Migrate the tables if an older version of Dagster made them, as ``dagster instance migrate`` does.

    Returns:
        Whether a migration was needed.

    Raises:
        ConfigurationError: a newer version of Dagster made them.
    """
    old = False
    for revision, head in _revisions(instance):
        if not _is_known(revision):
            raise ConfigurationError(
                f"Dagster's storage was brought to its revision {revision} by a newer program, which Dagster "
                f"{__version__} does not know: use that program, or restore a backup from before"
            )
        old = old or revision != head
    if old:
        instance.upgrade()
    return old


def forget_the_future(instance: DagsterInstance) -> int:
    """Set the last ticks of sensors that lie in the future to the current time; return the number of sensors.

    Dagster starts a sensor's next tick only an interval after its last one. After the clock was set back by a day, no
    sensor would tick for a day.
    """
    now, dated = time.time(), 0
    for state in instance.all_instigator_state():
        data = state.instigator_data
        if not isinstance(data, SensorInstigatorData):
            continue
        late: dict[str, Any] = {name: now for name in _TIMES if is_future(getattr(data, name) or 0.0, now=now)}
        if late:
            instance.update_instigator_state(state.with_data(data._replace(**late)))
            dated += 1
    return dated


def _revisions(instance: DagsterInstance) -> Iterator[tuple[str | None, str | None]]:
    """Yield, for each storage with migrations, the revision of its tables (or None) and the newest known revision."""
    storages: tuple[Any, ...] = (instance.run_storage, instance.event_log_storage, instance.schedule_storage)
    for storage in storages:
        found = storage.alembic_version()
        if found is not None:
            yield found


def _is_known(revision: str | None) -> bool:
    if revision is None:
        return True
    config = Config()
    config.set_main_option("script_location", ALEMBIC_SCRIPTS_LOCATION)
    try:
        ScriptDirectory.from_config(config).get_revision(revision)
    except CommandError:
        return False
    return True


def main() -> None:
    """Migrate the storage, correct future ticks, and print what was done."""
    with DagsterInstance.get() as instance:
        if bring_up_to_date(instance):
            sys.stdout.write(f"Dagster's storage was brought to that of Dagster {__version__}\n")
        dated = forget_the_future(instance)
        if dated:
            sys.stdout.write(f"the clock was set back: {dated} sensors look again now\n")


if __name__ == "__main__":
    try:
        main()
    except KaapanaAssetsError as exc:
        sys.stderr.write(f"{exc}\n")
        sys.exit(2)
