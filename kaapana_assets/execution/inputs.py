"""Finds the inputs of an operator: for each folder, the series that have it and their versions.

``staging`` brings the inputs into the run directory, and ``views`` shows them to the operator.
"""

from __future__ import annotations

from kaapana_assets.errors import NotFound
from kaapana_assets.execution.run_context import OperatorResult, OperatorRun, RunContext
from kaapana_assets.stores.files.run_directory import RunDirectory
from kaapana_assets.workflows.fingerprints import Inputs
from kaapana_assets.workflows.model import Workflow
from kaapana_assets.workflows.operators import Operator


def inputs_of(run: OperatorRun) -> dict[str, dict[str, str]]:
    """Return the available inputs of an operator, for the series that all its predecessors have done."""
    folders = run.workflow.input_folders(run.operator)
    found = {
        folder: dict(run.request.series) if source is None else done_by(run, source)
        for folder, source in folders.items()
    }
    pooled = {folder for folder, source in folders.items() if source is not None and source.level == "cohort"}
    before = (other for other in run.workflow.predecessors(run.operator) if other.level == "series")
    ready = set(run.request.series).intersection(*(done_by(run, other) for other in before))
    return {
        folder: versions if folder in pooled else {uid: versions[uid] for uid in sorted(ready)}
        for folder, versions in found.items()
    }


def series_in(run: OperatorRun, inputs: Inputs) -> list[str]:
    """Return the series that the operator works on; empty if it reads only pooled outputs."""
    sources = run.workflow.input_folders(run.operator)
    of_series = (folder for folder in inputs if (source := sources[folder]) is None or source.level == "series")
    return sorted(inputs[folder]) if (folder := next(of_series, None)) is not None else []


def result_of(run: RunContext, operator: Operator) -> OperatorResult | None:
    """Return the recorded result of an operator in this run; None if none is recorded yet."""
    return _result(run.directory, operator)


def results_in(directory: RunDirectory, workflow: Workflow) -> dict[str, OperatorResult]:
    """Return the recorded results of a run's operators, by their full names."""
    found = {operator.full_name: _result(directory, operator) for operator in workflow.operators}
    return {name: result for name, result in found.items() if result is not None}


def done_by(run: RunContext, operator: Operator) -> dict[str, str]:
    """Return the fingerprints of an operator's outputs: those of this run or, in a backfill, those on the shelf."""
    result = result_of(run, operator)
    if result is not None:
        return {key: done.fingerprint for key, done in result.done.items()}
    if run.request.cohort:
        return {}
    kept = run.stores.shelf.entries(run.workflow.name, operator.full_name, list(run.request.series))
    return {uid: manifest.fingerprint for uid, manifest in kept.items()}


def _result(directory: RunDirectory, operator: Operator) -> OperatorResult | None:
    try:
        return OperatorResult.from_json(directory.result(operator.full_name))
    except NotFound:
        return None
