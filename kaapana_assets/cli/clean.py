"""``kaapana-assets clean``: remove what runs left behind."""

from __future__ import annotations

import click

from kaapana_assets.cli.homes import settings_to_change
from kaapana_assets.shown import shown
from kaapana_assets.stores.retention import remove_left_behind


@click.command()
@click.option(
    "--days",
    type=click.FloatRange(min=0),
    help="Remove run directories not written to for that long; default by setting.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be removed.")
def command(days: float | None, dry_run: bool) -> None:
    """Remove the directories of failed runs, and what killed runs left half-made.

    Assets, the archive and the spool are never touched. The platform does this every night.
    """
    settings = settings_to_change()
    verb = "would remove" if dry_run else "removed"
    count = 0
    limit = settings.run_retention_days if days is None else days
    problems: list[str] = []
    for path in remove_left_behind(settings.home, days=limit, dry_run=dry_run, left=problems.append):
        click.echo(f"{verb} {path}")
        count += 1
    click.echo(f"{verb} {count} folders not written to for {limit:g} days")
    for problem in problems:
        click.echo(f"not removed: {shown(problem)}", err=True)
    if problems:
        raise SystemExit(1)
