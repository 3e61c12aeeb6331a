"""``kaapana-assets clean``: removes what failed and killed runs left behind."""

from __future__ import annotations

import click

from kaapana_assets.cli.homes import session_to_change
from kaapana_assets.shown import shown


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
    from kaapana_assets.operations.cleaning import clean

    verb = "would remove" if dry_run else "removed"
    with session_to_change() as session:
        cleaned = clean(session, days=days, dry_run=dry_run)
    for path in cleaned.removed:
        click.echo(f"{verb} {path}")
    click.echo(f"{verb} {len(cleaned.removed)} folders not written to for {cleaned.days:g} days")
    for problem in cleaned.problems:
        click.echo(f"not removed: {shown(problem)}", err=True)
    if cleaned.problems:
        raise SystemExit(1)
