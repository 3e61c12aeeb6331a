"""``kaapana-assets cohort``: freezes selections of series and shows them."""

from __future__ import annotations

import time

import click

from kaapana_assets.cli.homes import session_to_read
from kaapana_assets.errors import DagsterUnavailable


@click.group()
def command() -> None:
    """Freeze selections of series and show them."""


@command.command()
@click.argument("name")
@click.option("--query", required=True, help='Which series, for example "Modality:CT AND PatientAge:[40 TO 60]".')
def create(name: str, query: str) -> None:
    """Freeze the series that match a query now as the cohort NAME."""
    from kaapana_assets.operations import cohorts
    from kaapana_assets.operations.session import Session, enter_home
    from kaapana_assets.supervision.record import settings_in_use

    settings = settings_in_use()
    click.echo(f"home {settings.home}", err=True)
    enter_home(settings)
    with Session(settings) as session:
        frozen, path = cohorts.freeze(session, name, query)
        click.echo(f"cohort {name}: {len(frozen.series)} series, {frozen.digest[:19]}, {path}")
        began = time.monotonic()
        try:
            recorded = cohorts.record(session, name)
        except DagsterUnavailable as exc:
            click.echo(f"not in Dagster yet ({exc}); it will be a partition there when the platform is up")
            return
    what = "recorded as an asset" if recorded.succeeded else f"recording it ended as {recorded.status}"
    click.echo(f"{what} in {time.monotonic() - began:.0f} s: {recorded.url}")


@command.command("list")
def list_cohorts() -> None:
    """Show all cohorts."""
    from kaapana_assets.operations import cohorts

    with session_to_read() as session:
        found, problems = cohorts.all_cohorts(session)
    for problem in problems:
        click.echo(problem, err=True)
    for cohort in found:
        click.echo(f"{cohort.name}\t{len(cohort.series)} series\t{cohort.created}\t{cohort.query}")


@command.command()
@click.argument("name")
def show(name: str) -> None:
    """Show the SeriesInstanceUIDs of the cohort NAME, one a line."""
    from kaapana_assets.operations import cohorts

    with session_to_read() as session:
        for uid in cohorts.read(session, name).series:
            click.echo(uid)
