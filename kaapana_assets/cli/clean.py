"""``kaapana-assets clean``: remove what runs left behind."""

from __future__ import annotations

import shutil

import click

from kaapana_assets.settings import load_settings
from kaapana_assets.stores.run_directory import RunDirectories
from kaapana_assets.stores.shelf import Shelf


@click.command()
@click.option("--days", type=float, help="Remove run directories not written to for that long; default by setting.")
@click.option("--dry-run", is_flag=True, help="Say what would be removed.")
def command(days: float | None, dry_run: bool) -> None:
    """Remove the directories of failed runs, and what killed runs left half-made.

    Assets, the archive and the spool are never touched.
    """
    settings = load_settings()
    limit = settings.run_retention_days if days is None else days
    directories = RunDirectories(settings.home / "workflows" / "data")
    verb = "would remove" if dry_run else "removed"
    for directory in directories.older_than(limit):
        if not dry_run:
            directories.remove(directory)
        click.echo(f"{verb} {directory.path}")
    for path in Shelf(settings.home / "assets").abandoned(older_than_days=max(limit, 1)):
        if not dry_run:
            shutil.rmtree(path)
        click.echo(f"{verb} {path}")
