"""Clears Dagster's partitions and events of series, by a process of its own: this module does not import Dagster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from kaapana_assets.errors import DagsterUnavailable
from kaapana_assets.forgetting.location import Location
from kaapana_assets.settings import Settings
from kaapana_assets.stores.forgotten import Forgetting
from kaapana_assets.supervision.needs import MIGRATION, given_to

_FORMER_STORAGE = "kaapana_assets.patient_storage"
"""The storage module in the dagster.yaml of earlier versions; `up` rewrites that file."""
_PATIENCE_S = 10
_SHOWN_LINES = 3


def dagster_location(settings: Settings, forgetting: Forgetting, *, storage_is_up: bool) -> Location:
    """The partitions of the series, with their events and the captured output of their runs.

    Args:
        settings: the settings of the platform.
        forgetting: the series to forget.
        storage_is_up: whether the platform's own PostgreSQL, if it has one, is running.
    """

    def clear() -> Sequence[str]:
        home = dagster_home(settings)
        if home is None:
            return ()
        is_former = _FORMER_STORAGE in (home / "dagster.yaml").read_text()
        if is_former or (not storage_is_up and (home / "postgres").is_dir() and not settings.postgres_url):
            raise DagsterUnavailable(
                f"Dagster's storage {'was set up by an earlier version' if is_former else 'is not up'}, so its "
                "partitions and events of the series are still there: they go when `kaapana-assets up` starts the "
                "next time"
            )
        pooled = [[each.replace("-", "_") for each in names] + [cohort] for *names, cohort in forgetting.pooled]
        # In homes of earlier versions, the event of a cohort holds its query.
        of_cohorts = [["cohort", cohort] for cohort in forgetting.cohorts]
        asked = {"series": list(forgetting.series), "outputs": [*pooled, *of_cohorts]}
        _run(home, asked)
        return ()

    return Location(name="Dagster", unit="partitions", count=lambda: len(forgetting.series), clear=clear)


def dagster_home(settings: Settings) -> Path | None:
    """DAGSTER_HOME of the platform; None if Dagster has never run."""
    for home in (settings.paths.dagster, Path(os.environ.get("DAGSTER_HOME") or settings.paths.dagster)):
        if (home / "dagster.yaml").exists():
            return home
    return None


def _run(home: Path, asked: Mapping[str, object]) -> None:
    environment = given_to(MIGRATION, os.environ) | {
        "DAGSTER_HOME": str(home),
        "KAAPANA_POSTGRES_PATIENCE_S": str(_PATIENCE_S),
    }
    ended = subprocess.run(
        [sys.executable, "-m", "kaapana_assets.defs.forgotten_events"],
        input=json.dumps(asked),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode != 0:
        said = " / ".join(ended.stderr.strip().splitlines()[-_SHOWN_LINES:])
        raise DagsterUnavailable(f"Dagster's storage in {home} cannot be written, the series are still in it: {said}")
