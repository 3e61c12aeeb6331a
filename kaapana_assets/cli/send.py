"""``kaapana-assets send``: sends a folder of DICOM files by C-STORE."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import click


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--host", help="Address of the receiver. [KAAPANA_RECEIVER_HOST]")
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the receiver. [KAAPANA_RECEIVER_PORT]")
@click.option("--called", help="AE title of the receiver. [KAAPANA_RECEIVER_AE_TITLE]")
@click.option("--calling", default="KAAPANA_SEND", show_default=True, help="AE title to call oneself.")
def command(folder: Path, host: str | None, port: int | None, called: str | None, calling: str) -> None:
    """Send the DICOM files in FOLDER and below over the network (C-STORE)."""
    from kaapana_assets.cli.progress import bars
    from kaapana_assets.operations import arrivals
    from kaapana_assets.shown import shown
    from kaapana_assets.supervision.record import settings_in_use

    settings = settings_in_use()
    own = arrivals.receiver_of(settings, calling_ae_title=calling)
    peer = replace(own, host=host or own.host, port=port or own.port, called_ae_title=called or own.called_ae_title)
    with bars("file") as progress:
        sent = arrivals.send_folder(settings, folder, peer=peer, progress=progress)
    click.echo(f"{sent.instances} sent, {len(sent.failed)} failed, {len(sent.skipped)} skipped")
    for file in sent.skipped:
        click.echo(f"skipped {shown(file.path)}: {file.skipped}")
    for failed in sent.failed:
        click.echo(f"failed {shown(failed.path)}: {shown(failed.reason)}", err=True)
    sys.exit(1 if sent.failed else 0)
