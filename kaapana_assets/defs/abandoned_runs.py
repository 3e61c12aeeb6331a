"""Marks runs as failed whose process is gone; run as ``python -m kaapana_assets.defs.abandoned_runs ID…``.

Dagster's own monitoring does not notice that a run ended together with the code server that started it. The
supervisor does, but it must not import Dagster. So it starts this module, with DAGSTER_HOME set.
"""

from __future__ import annotations

import sys

from dagster import DagsterInstance

REASON = "The platform was stopped while it ran. Re-execute it from failure to go on."


def report_failed(run_ids: list[str]) -> None:
    """Mark the runs as failed, except those that have finished."""
    with DagsterInstance.get() as instance:
        for run_id in run_ids:
            run = instance.get_run_by_id(run_id)
            if run is not None and not run.is_finished:
                instance.report_run_failed(run, REASON)


if __name__ == "__main__":
    report_failed(sys.argv[1:])
