"""Completes the report of a run that ended early: cancelled, killed, or failed before its last step.

The command that follows the run writes this report, or Dagster's sensor, whichever comes first. Nothing here
asks Dagster how the run ended; the caller passes that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from kaapana_assets.clocks import is_future
from kaapana_assets.cohorts import cohort as cohorts
from kaapana_assets.errors import NotFound
from kaapana_assets.execution.inputs import results_in
from kaapana_assets.execution.report import Reported, RunState, read_report, write_report
from kaapana_assets.execution.run_context import Done, OperatorResult, RunRequest
from kaapana_assets.home_paths import HomePaths
from kaapana_assets.run_ends import reason_of_end
from kaapana_assets.stores.files.run_directory import RunDirectories, RunDirectory
from kaapana_assets.stores.files.shelf import Shelf
from kaapana_assets.workflows.launch_request import PREPARE, operator_of_step
from kaapana_assets.workflows.model import Workflow


@dataclass(frozen=True, kw_only=True)
class EndedRun:
    """A run that ended without success, according to Dagster.

    Attributes:
        root_run_id: Dagster run ID of the original run if this run is a re-execution; else its own.
        ended: time of its end.
        state: how it ended, by operators instead of step keys; see ``state_of``.
    """

    run_id: str
    root_run_id: str
    cohort: str
    ended: datetime
    state: RunState


def write_last_report(home: Path, workflow: Workflow, run: EndedRun) -> dict[str, Any] | None:
    """Write the report of an ended run, unless it is complete or a later run has replaced it.

    Returns:
        The report of this run; None if a later run has written its own.

    Raises:
        StoreUnavailable: the shelf cannot be written.
    """
    shelf = Shelf(HomePaths(home).shelf)
    there = read_report(shelf, workflow, run.cohort)
    if there is not None and there.get("dagster_run_id") == run.run_id:
        if there.get("status") in ("success", "failed", "cancelled"):
            return there
    elif there is not None and _is_later(there, run.ended):
        return None
    directory = _directory(home, run)
    request = _request(home, workflow, run, directory)
    results = {} if directory is None else results_in(directory, workflow)
    for name in run.state.begun - {PREPARE}:
        if directory is not None and not (name in results and results[name].ended):
            results[name] = _left_by(workflow, name, shelf, request, run=directory.name)
    reported = Reported(
        workflow=workflow,
        request=request,
        run="" if directory is None else directory.name,
        dagster_run_id=run.run_id,
        results=results,
        state=run.state,
    )
    return write_report(reported, shelf)


def state_of(workflow: Workflow, state: RunState) -> RunState:
    """Replace step keys, ``<job>_cohort.<job>_<operator>``, by operators, and Dagster's reason by the platform's."""

    def named(steps: Mapping[str, str]) -> dict[str, str]:
        found = {operator_of_step(workflow, step): reason for step, reason in steps.items()}
        return {name: reason for name, reason in found.items() if name is not None}

    begun = frozenset(named(dict.fromkeys(state.begun, "")))
    return replace(state, reason=reason_of_end(state.reason), begun=begun, failed=named(state.failed))


def _is_later(report: Mapping[str, Any], ended: datetime) -> bool:
    written = report.get("written")
    if written is None:
        return False
    moment = datetime.fromisoformat(written)
    # A report from the future was written before the clock was set back.
    return moment > ended and not is_future(moment.timestamp())


def _directory(home: Path, run: EndedRun) -> RunDirectory | None:
    try:
        return RunDirectories(HomePaths(home).run_directories).find(run.root_run_id)
    except NotFound:
        return None


def _request(home: Path, workflow: Workflow, run: EndedRun, directory: RunDirectory | None) -> RunRequest:
    """Return the recorded request of a run; if there is none, one made from the cohort."""
    try:
        if directory is not None:
            return RunRequest.from_json(directory.conf())
    except NotFound:
        pass
    try:
        series = cohorts.read(HomePaths(home).cohorts, run.cohort).series
    except NotFound:
        series = ()
    return RunRequest(
        workflow=workflow.name,
        dagster_run_id=run.run_id,
        created=run.ended.isoformat(timespec="seconds"),
        cohort=run.cohort,
        mode="batch",
        force=False,
        parameters={},
        series=dict.fromkeys(series, ""),
    )


def _left_by(workflow: Workflow, operator: str, shelf: Shelf, request: RunRequest, *, run: str) -> OperatorResult:
    """Return the result of an operator that was interrupted: the outputs that it had published until then."""
    kept = shelf.entries(workflow.name, operator, [*request.series, request.cohort])
    made = {key: manifest for key, manifest in kept.items() if manifest.run == run}
    done = {
        key: Done(manifest.fingerprint, "", False, len(manifest.files), manifest.size_bytes)
        for key, manifest in made.items()
    }
    return OperatorResult(code_version="", done=done, ended=False)
