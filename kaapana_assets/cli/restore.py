"""``kaapana-assets restore``: makes a home from a backup."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--into", "home", required=True, type=click.Path(path_type=Path), help="The new home: empty or not there."
)
@click.option("--at", "name", default="", help="Which backup, as `backup` named it; else the newest.")
def command(folder: Path, home: Path, name: str) -> None:
    """Make a home from a backup in DIR, at any path; then set KAAPANA_HOME to it.

    Each file is compared with its digest. Cut short, the same command goes on. Workflow files are part of
    a backup, and the platform runs them: restore only what you trust.
    """
    from tqdm import tqdm

    from kaapana_assets.backups.backup_folder import open_to_read
    from kaapana_assets.backups.restoring import Restore
    from kaapana_assets.shown import shown

    home = home.absolute()
    with open_to_read(folder.absolute()) as opened:
        restore = Restore(opened, home, name=name)
        header, size = restore.check()
        with tqdm(total=size, desc="restoring", unit="B", unit_scale=True, disable=None) as bar:
            restore.run(bar.update)
    click.echo(f"restored {shown(header.home)} as it was at {shown(header.created)} into {shown(home)}")
    for what in header.left_out:
        click.echo(f"not in the backup, restore its own (docs/backup.md): {shown(what)}")
    if header.settings:
        click.echo("settings then, besides secrets:")
        for variable, value in sorted(header.settings.items()):
            click.echo(f"  {shown(variable)}={shown(value)}")
    click.echo(f"start it with KAAPANA_HOME={shown(home)} kaapana-assets up")
