"""``kaapana-assets receive``: receives DICOM objects from the network into the spool."""

from __future__ import annotations

import logging
import signal
import threading
from pathlib import Path

import click


@click.command()
@click.option("--host", help="Address to listen on. [KAAPANA_RECEIVER_HOST]")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 takes a free one. [KAAPANA_RECEIVER_PORT]"
)
@click.option("--aet", help="AE title. [KAAPANA_RECEIVER_AE_TITLE]")
@click.option(
    "--ready-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write host:port to this file once connections are taken.",
)
def command(host: str | None, port: int | None, aet: str | None, ready_file: Path | None) -> None:
    """Receive DICOM objects (C-STORE) until SIGTERM or Ctrl-C; answers C-ECHO."""
    from kaapana_assets.ingest.receiver import Receiver
    from kaapana_assets.ingest.spool import open_spool
    from kaapana_assets.operations.session import enter_home
    from kaapana_assets.settings import load_settings

    given = {"receiver_host": host, "receiver_port": port, "receiver_ae_title": aet}
    settings = load_settings(**{name: value for name, value in given.items() if value is not None})
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    enter_home(settings)
    stopping = threading.Event()

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: stopping.set())
    with Receiver(settings, open_spool(settings)) as receiver:
        where = "{}:{}".format(*receiver.address)
        click.echo(f"listening on {where} as {settings.receiver_ae_title}")
        if ready_file is not None:
            aside = ready_file.with_name(ready_file.name + ".new")
            aside.write_text(where + "\n")
            aside.replace(ready_file)
        stopping.wait()
        click.echo("stopping: objects on their way are finished first")
