"""``kaapana-assets import``: copies a folder of DICOM files into the spool."""

from __future__ import annotations

import sys
from pathlib import Path

import click


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def command(folder: Path) -> None:
    """Copy the DICOM files in FOLDER and below into the spool, without the network.

    Files that look like DICOM but cannot be read are copied to the quarantine with the reason.
    """
    from kaapana_assets.cli.progress import bars
    from kaapana_assets.ingest.folder_import import ImportOutcome
    from kaapana_assets.operations.arrivals import import_folder
    from kaapana_assets.operations.session import settings_to_write
    from kaapana_assets.shown import shown

    with bars("file") as progress:
        imported = import_folder(settings_to_write(), folder, progress=progress)
    for outcome in ImportOutcome:
        if imported.counts[outcome]:
            click.echo(f"{imported.counts[outcome]} {outcome.value}")
    if not imported.files:
        click.echo(f"no files in {shown(folder)}")
    for file in imported.files:
        if file.reason:
            click.echo(f"{file.outcome.name.lower()} {shown(file.path)}: {shown(file.reason)}")
    sys.exit(0 if imported.is_whole else 1)
