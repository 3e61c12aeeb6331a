"""``kaapana-assets up``."""

from __future__ import annotations

import click

from kaapana_assets.settings import load_settings
from kaapana_assets.supervision.platform import Platform


@click.command("up")
@click.option("--webserver-port", type=click.IntRange(0, 65535), help="Port of the web UI; 0 takes a free one.")
@click.option("--receiver-port", type=click.IntRange(0, 65535), help="Port of the DICOM receiver; 0 takes a free one.")
def command(webserver_port: int | None, receiver_port: int | None) -> None:
    """Start the whole platform, watch over it, and stop it with Ctrl-C.

    Parts that crash are started again. What each prints is in KAAPANA_HOME/logs.
    """
    ports = {"webserver_port": webserver_port, "receiver_port": receiver_port}
    settings = load_settings(**{name: port for name, port in ports.items() if port is not None})
    click.echo(f"KAAPANA_HOME {settings.home}")
    Platform(settings, click.echo).run()
