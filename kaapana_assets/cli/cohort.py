"""``kaapana-assets cohort``: freeze selections of series and show them."""

from __future__ import annotations

import time
from datetime import datetime, timezone

import click

from kaapana_assets.cli.homes import enter_home, settings_to_read
from kaapana_assets.cohorts import cohort as cohorts
from kaapana_assets.errors import DagsterUnavailable, NotFound
from kaapana_assets.settings import Settings
from kaapana_assets.stores.opening import open_index
from kaapana_assets.supervision.record import settings_in_use

_WAIT_S = 120


@click.group()
def command() -> None:
    """Freeze selections of series and show them."""


@command.command()
@click.argument("name")
@click.option("--query", required=True, help='Which series, for example "Modality:CT AND PatientAge:[40 TO 60]".')
def create(name: str, query: str) -> None:
    """Freeze the series that match a query now as the cohort NAME."""
    settings = settings_in_use()
    click.echo(f"home {settings.home}", err=True)
    enter_home(settings)
    frozen = cohorts.freeze(open_index(settings), name=name, query=query, now=datetime.now(timezone.utc))
    path = cohorts.save(settings.home / "cohorts", frozen)
    click.echo(f"cohort {name}: {len(frozen.series)} series, {frozen.digest[:19]}, {path}")
    try:
        _record(settings, name)
    except DagsterUnavailable as exc:
        click.echo(f"not in Dagster yet ({exc}); it will be a partition there when the platform is up")


@command.command("list")
def list_cohorts() -> None:
    """Show all cohorts."""
    folder = settings_to_read().home / "cohorts"
    for name in cohorts.names(folder):
        try:
            frozen = cohorts.read(folder, name)
        except NotFound as exc:
            click.echo(str(exc), err=True)
            continue
        click.echo(f"{name}\t{len(frozen.series)} series\t{frozen.created}\t{frozen.query}")


@command.command()
@click.argument("name")
def show(name: str) -> None:
    """Show the SeriesInstanceUIDs of the cohort NAME, one a line."""
    for uid in cohorts.read(settings_to_read().home / "cohorts", name).series:
        click.echo(uid)


def _record(settings: Settings, name: str) -> None:
    from kaapana_assets.graphql import DagsterClient

    client = DagsterClient(settings.dagster_url)
    client.add_dynamic_partition("cohorts", name)
    run = client.launch("record_cohort", partition=name)
    began = time.monotonic()
    ended = client.wait(run, timeout_s=_WAIT_S)
    what = "recorded as an asset" if ended.succeeded else f"recording it ended as {ended.status}"
    page = client.asset_url("cohort", name)
    click.echo(f"{what} in {time.monotonic() - began:.0f} s: {page if ended.succeeded else client.run_url(run)}")
