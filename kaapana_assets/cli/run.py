"""``kaapana-assets run``: sends a cohort to a workflow and shows the result."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kaapana_assets.cli.homes import session_to_change
from kaapana_assets.errors import ParameterError

if TYPE_CHECKING:
    from kaapana_assets.workflows.launch_request import Mode


@click.command()
@click.argument("workflow")
@click.option("--cohort", required=True, help="Name of a frozen cohort.")
@click.option("--batch", "mode", flag_value="batch", default="batch", help="All series at once (the default).")
@click.option("--single", "mode", flag_value="single", help="A run directory and launches for each series.")
@click.option("--param", "given", multiple=True, metavar="KEY=VALUE", help="A parameter of the workflow; repeatable.")
@click.option("--force", is_flag=True, help="Compute again what is on the shelf already.")
@click.option("--no-wait", is_flag=True, help="Start it and return.")
def command(workflow: str, cohort: str, mode: Mode, given: tuple[str, ...], force: bool, no_wait: bool) -> None:
    """Send a frozen cohort to WORKFLOW through Dagster, and show what it made."""
    from kaapana_assets.cli.run_report import follow
    from kaapana_assets.operations import cohorts, runs

    with session_to_change() as session:
        started = runs.start(
            session,
            workflow,
            cohort,
            mode=mode,
            parameters=_parameters(given),
            force=force,
            on_reload=lambda why: click.echo(f"{why}: loading them again"),
        )
        series = len(cohorts.read(session, cohort).series)
        click.echo(f"{started.workflow.name} on cohort {cohort} ({series} series, {mode}): {started.url}")
        if not no_wait:
            follow(session, started)


def _parameters(texts: tuple[str, ...]) -> dict[str, object]:
    values: dict[str, object] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator:
            raise ParameterError(f"--param takes KEY=VALUE, not {text!r}")
        values[name] = value
    return values
