"""``kaapana-assets run``: send a cohort to a workflow and see what becomes of it."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kaapana_assets.cohorts import cohort as cohorts
from kaapana_assets.cohorts.cohort import Cohort
from kaapana_assets.errors import DagsterUnavailable, InputError, ParameterError
from kaapana_assets.supervision.record import settings_in_use

if TYPE_CHECKING:
    from kaapana_assets.graphql import DagsterClient
    from kaapana_assets.graphql.answers import Run
    from kaapana_assets.workflows.model import Workflow

_SHOWN = 10


@click.command()
@click.argument("workflow")
@click.option("--cohort", "cohort_name", required=True, help="Name of a frozen cohort.")
@click.option("--batch", "mode", flag_value="batch", default="batch", help="All series at once (the default).")
@click.option("--single", "mode", flag_value="single", help="A run directory and launches for each series.")
@click.option("--param", "given", multiple=True, metavar="KEY=VALUE", help="A parameter of the workflow; repeatable.")
@click.option("--force", is_flag=True, help="Compute again what is on the shelf already.")
@click.option("--no-wait", is_flag=True, help="Start it and return.")
def command(workflow: str, cohort_name: str, mode: str, given: tuple[str, ...], force: bool, no_wait: bool) -> None:
    """Send a frozen cohort to WORKFLOW through Dagster, and show what it made."""
    from kaapana_assets.graphql import DagsterClient
    from kaapana_assets.workflows.loader import load_platform_workflows
    from kaapana_assets.workflows.parameters import complete

    settings = settings_in_use()
    definition = load_platform_workflows(settings.home).named(workflow)
    parameters = complete(definition.parameters, _given(given))
    cohort = cohorts.read(settings.home / "cohorts", cohort_name)
    client = DagsterClient(settings.dagster_url)
    client.add_dynamic_partition("cohorts", cohort_name)
    config = {"mode": mode, "force": force, "parameters": parameters}
    began = time.monotonic()
    run_id = _launch(client, definition, cohort, config)
    page = client.run_url(run_id)
    click.echo(f"{definition.name} on cohort {cohort_name} ({len(cohort.series)} series, {mode}): {page}")
    if no_wait:
        return
    try:
        ended = _follow(client, run_id, definition)
    except KeyboardInterrupt:
        click.echo(f"not waiting any more; the run goes on, it can be stopped on its page: {page}", err=True)
        sys.exit(130)
    report = settings.home / "assets" / definition.name / "report" / cohort_name / "report.json"
    _show(client, ended, report, seconds=time.monotonic() - began)
    if not ended.succeeded:
        sys.exit(1)


def _given(texts: tuple[str, ...]) -> dict[str, object]:
    values: dict[str, object] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator:
            raise ParameterError(f"--param takes KEY=VALUE, not {text!r}")
        values[name] = value
    return values


def _launch(client: DagsterClient, workflow: Workflow, cohort: Cohort, config: dict[str, Any]) -> str:
    job = workflow.job_name

    def launch() -> str:
        return client.launch(
            job,
            partition=cohort.name,
            run_config={"ops": {f"{job}_cohort": {"ops": {f"{job}_prepare": {"config": config}}}}},
            tags={"kaapana_assets/cohort": cohort.name, "kaapana_assets/mode": config["mode"]},
        )

    try:
        return launch()
    except InputError:
        # The file may be newer than the definitions that Dagster has loaded.
        client.reload()
        return launch()


def _follow(client: DagsterClient, run_id: str, workflow: Workflow) -> Run:
    job = workflow.job_name
    shown: set[tuple[str, str]] = set()
    began = time.monotonic()

    def progress(run: Run) -> None:
        for step in run.steps:
            name = step.key.rpartition(".")[2].removeprefix(f"{job}_")
            if (name, step.status) not in shown:
                shown.add((name, step.status))
                click.echo(f"  {time.monotonic() - began:6.1f} s  {name}: {step.status.lower().replace('_', ' ')}")

    def away(_: DagsterUnavailable) -> None:
        click.echo(f"  {time.monotonic() - began:6.1f} s  Dagster does not answer; the run may go on, waiting")

    return client.wait(run_id, progress, on_away=away)


def _show(client: DagsterClient, run: Run, path: Path, *, seconds: float) -> None:
    report = _report(path, run.run_id)
    if report is not None:
        for row in report["operators"]:
            counts = ", ".join(f"{len(row[key])} {key}" for key in ("done", "reused", "skipped", "failed") if row[key])
            click.echo(f"  {row['operator']}: {counts}; {row['files']} files in {row['path']}")
        for uid, failure in list(report["failed"].items())[:_SHOWN]:
            click.echo(f"  failed: {uid} at {failure['operator']}: {_telling_line(failure['reason'], uid)}")
        if len(report["failed"]) > _SHOWN:
            click.echo(f"  ... and {len(report['failed']) - _SHOWN} more")
        click.echo(f"  report: {path}")
    else:
        for reason in _failures(client, run):
            click.echo(f"  {reason}")
    click.echo(f"{run.status.lower()} after {seconds:.1f} s")


def _telling_line(reason: str, uid: str) -> str:
    """The last line in which an operator that failed by itself speaks of the series, else how it ended."""
    first, *rest = reason.splitlines()
    if "exit code" not in first:
        return first
    return next((line.strip() for line in reversed(rest) if uid in line), first)


def _failures(client: DagsterClient, run: Run) -> list[str]:
    """Each reason once and without the names of the exceptions, which are in the run's log."""
    from kaapana_assets.graphql.answers import told

    reasons = []
    for said in client.failures(run.run_id):
        step, _, text = said.partition(": ")
        reasons.append(f"{step.rpartition('.')[2]}: {told(text)}")
    steps = [reason for reason in reasons if not reason.startswith("run: ")]
    return list(dict.fromkeys(steps or reasons))[:_SHOWN]


def _report(path: Path, run_id: str) -> dict[str, Any] | None:
    try:
        report: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    return report if report["dagster_run_id"] == run_id else None
