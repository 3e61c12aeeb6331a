"""``kaapana-assets send``: C-STORE a folder of DICOM files."""

from __future__ import annotations

import logging
import sys
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
    from tqdm import tqdm

    from kaapana_assets.dicom.limits import limits_of
    from kaapana_assets.errors import TemporaryError
    from kaapana_assets.ingest.dicom_folder import files_in, inspect
    from kaapana_assets.shown import shown
    from kaapana_assets.stores.dimse import Echo, Peer, echo, send_files
    from kaapana_assets.supervision.record import settings_in_use

    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    settings = settings_in_use()
    peer = Peer(
        host=host or settings.receiver_host,
        port=port or settings.receiver_port,
        called_ae_title=called or settings.receiver_ae_title,
        calling_ae_title=calling,
    )
    files = files_in(folder)
    if echo(peer) is not Echo.ANSWERS:
        raise TemporaryError(
            f"no DICOM receiver answers at {peer.host}:{peer.port} as {peer.called_ae_title}, or it does not take "
            f"{peer.calling_ae_title}: is the platform up?"
        )
    found = [
        inspect(path, limits=limits_of(settings))
        for path in tqdm(files, desc="reading", unit="file", leave=False, disable=None)
    ]
    objects = [file for file in found if file.identity is not None]
    failures = [(file.path, file.damage) for file in found if file.damage]
    sent = 0
    for result in tqdm(send_files(peer, objects), total=len(objects), desc="sending", unit="file", disable=None):
        if result.failure:
            failures.append((result.path, result.failure))
        else:
            sent += 1
    skipped = [file for file in found if file.skipped]
    click.echo(f"{sent} sent, {len(failures)} failed, {len(skipped)} skipped")
    for file in skipped:
        click.echo(f"skipped {shown(file.path)}: {file.skipped}")
    for path, reason in failures:
        click.echo(f"failed {shown(path)}: {shown(reason)}", err=True)
    sys.exit(1 if failures else 0)
