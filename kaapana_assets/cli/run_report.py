"""What ``kaapana-assets run`` shows of a run that has ended."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click

from kaapana_assets.containers.reasons import short_reason
from kaapana_assets.graphql import DagsterClient
from kaapana_assets.graphql.answers import Run, told
from kaapana_assets.stores.shelf import Shelf
from kaapana_assets.workflows.last_report import EndedRun, state_of, write_last_report
from kaapana_assets.workflows.model import Workflow
from kaapana_assets.workflows.report import RunState, read_report, report_path

_SHOWN = 10


def report_of(client: DagsterClient, home: Path, run: Run, *, workflow: Workflow, cohort: str) -> dict[str, Any] | None:
    """The report of the run, completed if the run ended before it could do so; with its path."""
    shelf = Shelf(home / "assets")
    if run.succeeded:
        report = read_report(shelf, workflow, cohort)
        if report is not None and report["dagster_run_id"] != run.run_id:
            report = None
    else:
        report = write_last_report(home, workflow, _ended(client, run, workflow, cohort))
    return None if report is None else {**report, "path": str(report_path(shelf, workflow, cohort))}


def _ended(client: DagsterClient, run: Run, workflow: Workflow, cohort: str) -> EndedRun:
    """How the run ended, from what Dagster says of it."""
    said = dict(each.partition(": ")[::2] for each in client.failures(run.run_id))
    reason = short_reason(told(said.pop("run", "")))
    steps = RunState(
        status="cancelled" if run.status == "CANCELED" else "failed",
        reason=reason or f"the run is {run.status.lower()}",
        begun=frozenset(step.key for step in run.steps if step.start_time is not None),
        failed={step: told(text) for step, text in said.items()},
    )
    return EndedRun(
        run_id=run.run_id,
        root_run_id=run.root_run_id or run.run_id,
        cohort=cohort,
        ended=datetime.fromtimestamp(run.end_time or time.time(), timezone.utc),
        state=state_of(workflow, steps),
    )


def show(client: DagsterClient, run: Run, report: dict[str, Any] | None, *, seconds: float) -> None:
    """Print what became of each operator and, where one failed, why and where the rest is."""
    if report is None:
        for reason in _failures(client, run):
            click.echo(f"  {reason}")
    else:
        for row in report["operators"]:
            click.echo(f"  {row['operator']}: {_outcome(row)}")
        if not report["operators"] or (report["reason"] and all(row["state"] == "done" for row in report["operators"])):
            click.echo(f"  {report['reason']}")
        for uid, failure in list(report["failed"].items())[:_SHOWN]:
            click.echo(f"  failed: {uid} at {failure['operator']}: {failure['line']}")
        if len(report["failed"]) > _SHOWN:
            click.echo(f"  ... and {len(report['failed']) - _SHOWN} more")
        click.echo(f"  report: {report['path']}")
    if not run.succeeded:
        click.echo(f"  all that was printed: {client.run_url(run.run_id)}")
    click.echo(f"{run.status.lower()} after {seconds:.1f} s")


def _outcome(row: dict[str, Any]) -> str:
    counts = ", ".join(f"{len(row[key])} {key}" for key in ("done", "reused", "skipped", "failed") if row[key])
    writes = row["done"] and row["outputs"] is not None
    made = f"{counts}; {row['files']} files in {row['path']}" if writes else counts
    # Of series that failed each is told below.
    is_told = row["state"] in ("done", "partly failed") or bool(row["failed"])
    why = "" if is_told else f"{row['state']}: {row['reason']}"
    return "; ".join(filter(None, (made, why))) or "nothing to do"


def _failures(client: DagsterClient, run: Run) -> list[str]:
    """Each reason once and without the names of the exceptions, which are in the run's log."""
    reasons = []
    for said in client.failures(run.run_id):
        step, _, text = said.partition(": ")
        reasons.append(f"{step.rpartition('.')[2]}: {short_reason(told(text))}")
    steps = [reason for reason in reasons if not reason.startswith("run: ")]
    return list(dict.fromkeys(steps or reasons))[:_SHOWN]
