"""``kaapana-assets backup``: copies the home to another disk while the platform runs."""

from __future__ import annotations

import sys
from pathlib import Path

import click

_SHOWN = 20


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--verify", is_flag=True, help="Take none: read all backups in DIR and compare each file's digest.")
@click.option("--keep", type=click.IntRange(min=1), help="Afterwards remove all backups in DIR but the newest N.")
def command(folder: Path, verify: bool, keep: int | None) -> None:
    """Take a backup of the home into DIR, a folder of its own; the platform may run.

    Later backups into the same DIR copy only what is new. Cut short, the same command goes on. DIR holds
    patients' data: only you may enter it.
    """
    from tqdm import tqdm

    from kaapana_assets.backups.backup_folder import open_to_write
    from kaapana_assets.backups.places import check_apart
    from kaapana_assets.backups.taking import Backup
    from kaapana_assets.cli.homes import settings_to_read
    from kaapana_assets.shown import shown

    if verify:
        _verify(folder)
        return
    settings = settings_to_read()
    check_apart(settings.home, folder.absolute())  # checked before the folder is made
    with open_to_write(folder.absolute()) as opened:
        backup = Backup(settings, opened)
        if backup.waits():
            click.echo("… waiting for the end of a forgetting", err=True)
        sizes = backup.sizes()
        with tqdm(total=sizes.all_bytes, desc="copying", unit="B", unit_scale=True, disable=None) as bar:
            taken = backup.run(bar.update)
        removed = opened.remove_but(keep) if keep else 0
    click.echo(
        f"backup {taken.name}: {taken.files} files, {taken.size_bytes:,} bytes, of which {taken.new_bytes:,} are new"
    )
    if removed:
        click.echo(f"removed {removed} files that only older backups had")
    for what in backup.left_out():
        click.echo(f"not in it, take its own backup now (docs/backup.md): {what}")
    _say_some("not in it, since it is a link, no file, or too deep:", [shown(path) for path in taken.passed_over])
    _say_some("not in the archive, though its catalog lists it:", [shown(path) for path in taken.missing])
    sys.exit(1 if taken.missing else 0)


def _verify(folder: Path) -> None:
    from tqdm import tqdm

    from kaapana_assets.backups.backup_folder import open_to_write
    from kaapana_assets.backups.restoring import verify

    with open_to_write(folder.absolute(), make=False) as opened:
        with tqdm(desc="reading", unit="B", unit_scale=True, disable=None) as bar:
            damaged = verify(opened, bar.update)
        names = opened.names()
    _say_some("damaged:", list(damaged.values()))
    click.echo(
        f"{len(names)} backups, the newest {names[-1]}: {f'{len(damaged)} files are damaged' if damaged else 'whole'}"
    )
    sys.exit(1 if damaged else 0)


def _say_some(what: str, names: list[str]) -> None:
    for name in names[:_SHOWN]:
        click.echo(f"{what} {name}", err=True)
    if len(names) > _SHOWN:
        click.echo(f"{what} {len(names) - _SHOWN} more", err=True)
