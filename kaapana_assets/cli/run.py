"""``kaapana-assets run``: send a cohort to a workflow and see what becomes of it."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from kaapana_assets.cli.homes import settings_to_change
from kaapana_assets.cohorts import cohort as cohorts
from kaapana_assets.cohorts.cohort import Cohort
from kaapana_assets.errors import ConfigurationError, DagsterUnavailable, NotFound, ParameterError

if TYPE_CHECKING:
    from kaapana_assets.graphql import DagsterClient
    from kaapana_assets.graphql.answers import Run
    from kaapana_assets.settings import Settings
    from kaapana_assets.workflows.model import Workflow
    from kaapana_assets.workflows.plan import Plan


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
    from kaapana_assets.cli.run_report import report_of, show
    from kaapana_assets.containers.opening import open_runner
    from kaapana_assets.graphql import DagsterClient
    from kaapana_assets.workflows.loader import load_workflow_files
    from kaapana_assets.workflows.parameters import complete

    settings = settings_to_change()
    loaded = load_workflow_files(settings.home, open_runner(settings))
    definition = loaded.named(workflow)
    parameters = complete(definition.parameters, _given(given))
    cohort = cohorts.read(settings.home / "cohorts", cohort_name)
    client = DagsterClient(settings.dagster_url)
    _agree(client, settings, definition, loaded.plan)
    client.add_dynamic_partition("cohorts", cohort_name)
    config = {"mode": mode, "force": force, "parameters": parameters}
    began = time.monotonic()
    run_id = _launch(client, definition, cohort, config, plan=loaded.plan)
    page = client.run_url(run_id)
    click.echo(f"{definition.name} on cohort {cohort_name} ({len(cohort.series)} series, {mode}): {page}")
    if no_wait:
        return
    try:
        ended = _follow(client, run_id, definition)
    except KeyboardInterrupt:
        click.echo(f"not waiting any more; the run goes on, it can be stopped on its page: {page}", err=True)
        sys.exit(130)
    report = report_of(client, settings.home, ended, workflow=definition, cohort=cohort_name)
    show(client, ended, report, seconds=time.monotonic() - began)
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


def _agree(client: DagsterClient, settings: Settings, workflow: Workflow, plan: Plan) -> None:
    """See that Dagster has loaded the files that were loaded here, and let it load them if not.

    Raises:
        ConfigurationError: it has others also then.
    """
    known = _plan_in_dagster(client, workflow)
    if known == plan.digest:
        return
    what = "does not know this workflow yet" if known is None else "has loaded older workflow files, plugins or images"
    click.echo(f"Dagster {what}: loading them again")
    client.reload()
    known = _plan_in_dagster(client, workflow)
    if known == plan.digest:
        return
    found = "has no such workflow" if known is None else "has others"
    raise ConfigurationError(
        f"workflow {workflow.name!r} is not run: Dagster at {client.url} {found} after it loaded the workflow files "
        "and images again. Were they edited just now, run it again. Else it looks elsewhere than this command, which "
        f"sees the home {settings.home}, KAAPANA_IMAGES={settings.images} and KAAPANA_RUNNER={settings.runner}: set "
        "these as they were set for the platform"
    )


def _plan_in_dagster(client: DagsterClient, workflow: Workflow) -> str | None:
    from kaapana_assets.workflows.plan import PLAN_TAG

    try:
        return client.job_tags(workflow.job_name).get(PLAN_TAG, "")
    except NotFound:
        return None


def _launch(client: DagsterClient, workflow: Workflow, cohort: Cohort, config: dict[str, Any], *, plan: Plan) -> str:
    from kaapana_assets.workflows.plan import PLAN_TAG

    job = workflow.job_name
    return client.launch(
        job,
        partition=cohort.name,
        run_config={"ops": {f"{job}_cohort": {"ops": {f"{job}_prepare": {"config": config}}}}},
        tags={
            "kaapana_assets/cohort": cohort.name,
            "kaapana_assets/mode": config["mode"],
            PLAN_TAG: plan.digest,
        },
    )


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
