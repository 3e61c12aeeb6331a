"""``kaapana-assets import``: put a folder of DICOM files into the spool."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import click


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def command(folder: Path) -> None:
    """Copy the DICOM files in FOLDER and below into the spool, without the network.

    Files that look like DICOM but cannot be read are copied to the quarantine with the reason.
    """
    from tqdm import tqdm

    from kaapana_assets.cli.homes import settings_to_write
    from kaapana_assets.dicom.limits import limits_of
    from kaapana_assets.ingest.dicom_folder import files_in
    from kaapana_assets.ingest.folder_import import ImportOutcome, import_files
    from kaapana_assets.ingest.spool import open_spool
    from kaapana_assets.shown import shown

    settings = settings_to_write()
    spool = open_spool(settings)
    spool.prepare()
    files = files_in(folder)
    imported = import_files(spool, files, limits=limits_of(settings))
    results = list(tqdm(imported, total=len(files), desc="importing", unit="file", disable=None))
    counts = Counter(result.outcome for result in results)
    for outcome in ImportOutcome:
        if counts[outcome]:
            click.echo(f"{counts[outcome]} {outcome.value}")
    if not results:
        click.echo(f"no files in {shown(folder)}")
    for result in results:
        if result.reason:
            click.echo(f"{result.outcome.name.lower()} {shown(result.path)}: {shown(result.reason)}")
    sys.exit(1 if counts[ImportOutcome.QUARANTINED] or counts[ImportOutcome.CONFLICT] else 0)
