"""The report of a cohort run: the state of each operator, the outcome of each series, and the outputs.

The steps of a run write it; ``last_report`` completes it for a run that ended before its last step.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from kaapana_assets.containers.reasons import short_reason
from kaapana_assets.durable import full_disk_told
from kaapana_assets.errors import StoreUnavailable
from kaapana_assets.execution.run_context import OperatorResult, RunRequest
from kaapana_assets.stores.files.shelf import Origin, Shelf
from kaapana_assets.workflows.launch_request import PREPARE
from kaapana_assets.workflows.model import REPORT, Workflow
from kaapana_assets.workflows.operators import Operator

Status = Literal["running", "success", "failed", "cancelled"]
_GOES_ON = "the run goes on"
# An operator's output must not act as markup: a browser would load images that it refers to.
_MARKUP = re.compile(r"[\\`*_\[\]<>|~&]")


@dataclass(frozen=True, kw_only=True)
class RunState:
    """The state of a run, apart from the results that its operators recorded.

    Attributes:
        reason: why the run as a whole ended as it did; empty while it runs and after a success.
        begun: the operators (or PREPARE) that have begun.
        failed: why a step failed, by operator (or PREPARE).
    """

    status: Status = "running"
    reason: str = ""
    begun: frozenset[str] = frozenset()
    failed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Reported:
    """The subject of a report: a run of a workflow over a cohort.

    Attributes:
        run: name of the run directory; empty if none was made.
        dagster_run_id: ID of the run itself, even if it re-executes another run.
        results: the recorded results of operators, by their full names.
    """

    workflow: Workflow
    request: RunRequest
    run: str
    dagster_run_id: str
    results: Mapping[str, OperatorResult]
    state: RunState


def make_report(reported: Reported, shelf: Shelf) -> dict[str, Any]:
    """Return the report as JSON: a row for each operator, and why series failed or were skipped."""
    request, state = reported.request, reported.state
    failed = {uid: {"operator": "initial-input", "reason": reason} for uid, reason in request.missing.items()}
    standing: dict[str, tuple[str, str]] = {}
    rows = []
    for operator in reported.workflow.operators:
        name = operator.full_name
        standing[name] = _standing(reported, operator, standing)
        result = reported.results.get(name) or OperatorResult(code_version="")
        for uid, reason in result.failed.items():
            failed.setdefault(uid, {"operator": name, "reason": reason})
        rows.append(_row(operator, result, standing[name], folder=shelf.folder / reported.workflow.name / name))
    for uid, failure in failed.items():
        failure["line"] = short_reason(failure["reason"], series=uid)
    return {
        "workflow": reported.workflow.name,
        "cohort": request.cohort,
        "status": state.status,
        "reason": state.reason,
        "mode": request.mode,
        "parameters": dict(request.parameters),
        "run": reported.run,
        "dagster_run_id": reported.dagster_run_id,
        "written": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        "series": len(request.series) + len(request.missing),
        "forgotten": request.forgotten,
        "failed": failed,
        "operators": rows,
    }


def is_over(report: Mapping[str, Any]) -> bool:
    """Whether no further operator can begin."""
    return not any(row["reason"] == _GOES_ON for row in report["operators"])


def write_report(reported: Reported, shelf: Shelf) -> dict[str, Any]:
    """Publish the report to the shelf, replacing an earlier one, and return it.

    Raises:
        StoreUnavailable: the shelf cannot be written.
    """
    report = make_report(reported, shelf)
    origin = Origin(
        workflow=reported.workflow.name,
        operator=REPORT,
        run=reported.run,
        dagster_run_id=reported.dagster_run_id,
        created=reported.request.created,
    )
    what = f"the report of cohort {reported.request.cohort}"
    with full_disk_told(what), tempfile.TemporaryDirectory(prefix="report-") as folder:
        Path(folder, "report.json").write_text(json.dumps(report, indent=1))
        _, refused = shelf.publish(origin, {reported.request.cohort: (Path(folder), reported.dagster_run_id)})
    if refused:
        raise StoreUnavailable(f"the report cannot be put on the shelf: {refused[reported.request.cohort]}")
    return report


def read_report(shelf: Shelf, workflow: Workflow, cohort: str) -> dict[str, Any] | None:
    """Return the report that is on the shelf; None if there is none."""
    try:
        report: dict[str, Any] = json.loads(report_path(shelf, workflow, cohort).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return report


def report_path(shelf: Shelf, workflow: Workflow, cohort: str) -> Path:
    """Return the path of a cohort's report, whether it exists or not."""
    return shelf.entry(workflow.name, REPORT, cohort) / "report.json"


def as_markdown(report: Mapping[str, Any]) -> str:
    """Return a report's operators as a Markdown table for Dagster's web UI."""
    lines = [
        "| operator | state | done | reused | skipped | failed | files | launches | s |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in report["operators"]:
        counts = " | ".join(str(len(row[key])) for key in ("done", "reused", "skipped", "failed"))
        state = ": ".join(filter(None, (row["state"], _MARKUP.sub(r"\\\g<0>", row["reason"]))))
        lines.append(
            f"| {row['operator']} | {state} | {counts} | {row['files']} | {row['launches']} | {row['seconds']} |"
        )
    return "\n".join(lines)


def _row(operator: Operator, result: OperatorResult, standing: tuple[str, str], *, folder: Path) -> dict[str, Any]:
    state, reason = standing
    return {
        "operator": operator.full_name,
        "level": operator.level,
        "outputs": operator.outputs,
        "state": state,
        "reason": reason,
        "done": sorted(result.done),
        "reused": sorted(key for key, done in result.done.items() if done.reused),
        "skipped": result.skipped,
        "failed": result.failed,
        "files": sum(done.files for done in result.done.values()),
        "size_bytes": sum(done.size_bytes for done in result.done.values()),
        "launches": result.launches,
        "seconds": result.seconds,
        "path": str(folder),
    }


def _standing(reported: Reported, operator: Operator, before: Mapping[str, tuple[str, str]]) -> tuple[str, str]:
    """Return the state of an operator and the reason for it, given those of the operators before it."""
    name, state = operator.full_name, reported.state
    result = reported.results.get(name)
    if result is not None and result.ended:
        return _standing_of(result)
    if name in state.begun and state.status == "cancelled":
        return "cancelled", "the run was cancelled while it ran"
    if name in state.failed:
        return "failed", short_reason(state.failed[name])
    if name in state.begun and state.status != "running":
        return "interrupted", state.reason
    for other in reported.workflow.predecessors(operator):
        its_state, its_reason = before[other.full_name]
        if its_state == "not begun":
            return its_state, its_reason
        if its_state == "partly failed" and reported.workflow.on_failure == "stop":
            return "not begun", f"{other.full_name} failed for some series, and the workflow says to stop then"
        if its_state == "failed":
            return "not begun", f"{other.full_name} failed" + (" for all series" if other.level == "series" else "")
        if its_state in ("cancelled", "interrupted"):
            return "not begun", f"{other.full_name} was {its_state}"
    return "not begun", _why_not_begun(state)


def _standing_of(result: OperatorResult) -> tuple[str, str]:
    if result.error:
        return "failed", short_reason(result.error)
    if not result.failed:
        return "done", ""
    first, reason = next(iter(result.failed.items()))
    said = f"{len(result.failed)} failed, first {first}: {short_reason(reason, series=first)}"
    return ("partly failed" if result.done else "failed"), said


def _why_not_begun(state: RunState) -> str:
    if state.status == "cancelled":
        return "the run was cancelled"
    if PREPARE in state.failed:
        return f"preparing the run failed: {short_reason(state.failed[PREPARE])}"
    return _GOES_ON if state.status == "running" else state.reason
