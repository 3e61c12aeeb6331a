"""The report of a cohort run: what became of each series, and what was made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kaapana_assets.workflows.work import OperatorResult, Work


def make_report(work: Work, results: Mapping[str, OperatorResult]) -> dict[str, Any]:
    """The report as JSON: counts and paths by operator, and why series failed or were skipped."""
    request = work.request
    failed = {uid: {"operator": "initial-input", "reason": reason} for uid, reason in request.missing.items()}
    operators = []
    for operator in work.workflow.operators:
        result = results.get(operator.full_name)
        if result is None:
            continue
        for uid, reason in result.failed.items():
            failed.setdefault(uid, {"operator": operator.full_name, "reason": reason})
        operators.append(
            {
                "operator": operator.full_name,
                "level": operator.level,
                "outputs": operator.outputs,
                "done": sorted(result.done),
                "reused": sorted(uid for uid, done in result.done.items() if done.reused),
                "skipped": result.skipped,
                "failed": result.failed,
                "files": sum(done.files for done in result.done.values()),
                "size_bytes": sum(done.size_bytes for done in result.done.values()),
                "launches": result.launches,
                "seconds": result.seconds,
                "path": str(work.stores.shelf.folder / work.workflow.name / operator.full_name),
            }
        )
    return {
        "workflow": work.workflow.name,
        "cohort": request.cohort,
        "mode": request.mode,
        "parameters": dict(request.parameters),
        "run": work.directory.name,
        "dagster_run_id": request.dagster_run_id,
        "series": len(request.series) + len(request.missing),
        "failed": failed,
        "operators": operators,
    }


def as_markdown(report: Mapping[str, Any]) -> str:
    """The operators of a report as a table for the web UI."""
    lines = [
        "| operator | done | reused | skipped | failed | files | launches | s |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in report["operators"]:
        counts = " | ".join(str(len(row[key])) for key in ("done", "reused", "skipped", "failed"))
        lines.append(f"| {row['operator']} | {counts} | {row['files']} | {row['launches']} | {row['seconds']} |")
    return "\n".join(lines)
