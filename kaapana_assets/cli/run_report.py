"""Prints a run for commands: its steps while it runs, then its result."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from kaapana_assets.operations import runs
from kaapana_assets.operations.runs import CohortRun, RunResult, StepChange
from kaapana_assets.operations.session import Session

_SHOWN = 10


def follow(session: Session, run: CohortRun) -> None:
    """Print the steps of a run until it has ended, then its result; a failed run ends the process with exit code 1.

    Ctrl-C stops only the waiting, with exit code 130.
    """
    began = time.monotonic()

    def on_step(change: StepChange) -> None:
        _say_at(began, f"{change.step}: {change.status.lower().replace('_', ' ')}")

    try:
        result = runs.follow(
            session,
            run,
            on_step=on_step,
            on_away=lambda: _say_at(began, "Dagster does not answer; the run may go on, waiting"),
        )
    except KeyboardInterrupt:
        click.echo(f"not waiting any more; the run goes on, it can be stopped on its page: {run.url}", err=True)
        sys.exit(130)
    show(result, run, seconds=time.monotonic() - began)
    if not result.run.succeeded:
        sys.exit(1)


def show(result: RunResult, run: CohortRun, *, seconds: float | None) -> None:
    """Print the outcome of each operator and, for failures, the reasons and the path of the report."""
    report = result.report
    if report is None:
        for reason in result.reasons:
            click.echo(f"  {reason}")
        if result.report_path.exists():
            click.echo(f"  a later run of the cohort wrote the report that is there: {result.report_path}")
    else:
        for row in report["operators"]:
            click.echo(f"  {row['operator']}: {_outcome(row)}")
        if not report["operators"] or (report["reason"] and all(row["state"] == "done" for row in report["operators"])):
            click.echo(f"  {report['reason']}")
        for uid, failure in list(report["failed"].items())[:_SHOWN]:
            click.echo(f"  failed: {uid} at {failure['operator']}: {failure['line']}")
        if len(report["failed"]) > _SHOWN:
            click.echo(f"  ... and {len(report['failed']) - _SHOWN} more")
        click.echo(f"  report: {result.report_path}")
    if not result.run.succeeded:
        click.echo(f"  all that was printed: {run.url}")
    click.echo(result.run.status.lower() + ("" if seconds is None else f" after {seconds:.1f} s"))


def _say_at(began: float, text: str) -> None:
    click.echo(f"  {time.monotonic() - began:6.1f} s  {text}")


def _outcome(row: dict[str, Any]) -> str:
    counts = ", ".join(f"{len(row[key])} {key}" for key in ("done", "reused", "skipped", "failed") if row[key])
    writes = row["done"] and row["outputs"] is not None
    made = f"{counts}; {row['files']} files in {row['path']}" if writes else counts
    # The lines about failed series give their reasons.
    is_told = row["state"] in ("done", "partly failed") or bool(row["failed"])
    why = "" if is_told else f"{row['state']}: {row['reason']}"
    return "; ".join(filter(None, (made, why))) or "nothing to do"
