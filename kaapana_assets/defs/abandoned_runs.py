"""Reports runs whose process is gone as failed; run as ``python -m kaapana_assets.defs.abandoned_runs ID…``.

Dagster's own monitoring can't see that a run ended together with the code server that started it.
The supervisor knows, but does not import Dagster: it starts this, with DAGSTER_HOME set.
"""

from __future__ import annotations

import sys

from dagster import DagsterInstance

REASON = "The platform was stopped while it ran. Re-execute it from failure to go on."


def report_failed(run_ids: list[str]) -> None:
    """Report those of the runs as failed that have not ended."""
    with DagsterInstance.get() as instance:
        for run_id in run_ids:
            run = instance.get_run_by_id(run_id)
            if run is not None and not run.is_finished:
                instance.report_run_failed(run, REASON)


if __name__ == "__main__":
    report_failed(sys.argv[1:])
