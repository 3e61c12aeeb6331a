"""The report of a run that ended before its own last step: cancelled, killed, or with nothing prepared.

Written by whoever looks next: the command that follows the run, or Dagster's sensor. Nothing here asks
Dagster how the run ended; that is given.
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
from kaapana_assets.execution.run_context import Done, OperatorResult, Request
from kaapana_assets.home_paths import HomePaths
from kaapana_assets.run_ends import reason_of_end
from kaapana_assets.stores.files.run_directory import RunDirectories, RunDirectory
from kaapana_assets.stores.files.shelf import Shelf
from kaapana_assets.workflows.launch_request import PREPARE, operator_of_step
from kaapana_assets.workflows.model import Workflow


@dataclass(frozen=True, kw_only=True)
class EndedRun:
    """A run that Dagster says has ended without success.

    Attributes:
        root_run_id: of the run that it repeats, or its own.
        ended: when.
        state: how; its operators are named as steps are, see ``operator_of_step``.
    """

    run_id: str
    root_run_id: str
    cohort: str
    ended: datetime
    state: RunState


def write_last_report(home: Path, workflow: Workflow, run: EndedRun) -> dict[str, Any] | None:
    """Complete the report of an ended run, unless it is whole or a later run has written one; what it says.

    Returns:
        The report of this run; None if another run's is there now.

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
    """The state with operators instead of step keys, ``<job>_cohort.<job>_<operator>``, and in words of ours."""

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
    # One from the future was written before the clock was set back.
    return moment > ended and not is_future(moment.timestamp())


def _directory(home: Path, run: EndedRun) -> RunDirectory | None:
    try:
        return RunDirectories(HomePaths(home).run_directories).find(run.root_run_id)
    except NotFound:
        return None


def _request(home: Path, workflow: Workflow, run: EndedRun, directory: RunDirectory | None) -> Request:
    """What was asked, as far as it was written down."""
    try:
        if directory is not None:
            return Request.from_json(directory.conf())
    except NotFound:
        pass
    try:
        series = cohorts.read(HomePaths(home).cohorts, run.cohort).series
    except NotFound:
        series = ()
    return Request(
        workflow=workflow.name,
        dagster_run_id=run.run_id,
        created=run.ended.isoformat(timespec="seconds"),
        cohort=run.cohort,
        mode="batch",
        force=False,
        parameters={},
        series=dict.fromkeys(series, ""),
    )


def _left_by(workflow: Workflow, operator: str, shelf: Shelf, request: Request, *, run: str) -> OperatorResult:
    """What an operator that did not come to its end had put on the shelf until then."""
    kept = shelf.entries(workflow.name, operator, [*request.series, request.cohort])
    made = {key: manifest for key, manifest in kept.items() if manifest.run == run}
    done = {
        key: Done(manifest.fingerprint, "", False, len(manifest.files), manifest.size_bytes)
        for key, manifest in made.items()
    }
    return OperatorResult(code_version="", done=done, ended=False)
