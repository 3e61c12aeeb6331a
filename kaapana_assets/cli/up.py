"""``kaapana-assets up``: starts the platform and supervises it."""

from __future__ import annotations

import os
from pathlib import Path

import click

from kaapana_assets.durable import suppress_no_room
from kaapana_assets.health.stores import check_before_start
from kaapana_assets.operations.library_logs import quiet_libraries
from kaapana_assets.operations.session import enter_home
from kaapana_assets.settings import PROJECT_ROOT, current_site, load_settings, take_environment
from kaapana_assets.supervision.platform import PlatformSupervisor


@click.command("up")
@click.option("--webserver-port", type=click.IntRange(0, 65535), help="Port of the web UI; 0 takes a free one.")
@click.option("--receiver-port", type=click.IntRange(0, 65535), help="Port of the DICOM receiver; 0 takes a free one.")
@click.option("--health-port", type=click.IntRange(0, 65535), help="Port of the health page; 0 takes a free one.")
@click.option("--env-file", type=click.Path(path_type=Path), help="File of settings, lines KAAPANA_X=value.")
@click.option("--services", is_flag=True, help="Use the servers that `make services` started.")
@click.option("--accept-copy", is_flag=True, help="This home is a copy, and its original is gone for good.")
def command(
    webserver_port: int | None,
    receiver_port: int | None,
    health_port: int | None,
    env_file: Path | None,
    services: bool,
    accept_copy: bool,
) -> None:
    """Start the whole platform, watch over it, and stop it with Ctrl-C.

    Settings that can't work are refused; a store that is away is said, and waited for. Parts that crash
    are started again. What each prints is in KAAPANA_HOME/logs.
    """
    if services:
        if env_file is not None:
            raise click.UsageError("--services names a file of settings itself: leave --env-file away")
        env_file = services_file()
    if env_file is not None:
        env_file = env_file.absolute()
        take_environment(env_file)
    # All parts start in the same folder, and so find the same settings as this process.
    os.chdir(current_site().folder)
    ports = {"webserver_port": webserver_port, "receiver_port": receiver_port, "health_port": health_port}
    settings = load_settings(**{name: port for name, port in ports.items() if port is not None})
    _say(f"KAAPANA_HOME {settings.home}")
    enter_home(settings)
    platform = PlatformSupervisor(settings, _say, env_file=env_file, accept_copy=accept_copy)
    quiet_libraries()
    check_before_start(settings, _say)
    platform.run()


def _say(line: str) -> None:
    # A full disk under the console must not end the platform.
    with suppress_no_room():
        click.echo(line)


def services_file() -> Path:
    """Return the file into which `make services` writes the settings of its servers."""
    return Path(os.environ.get("KAAPANA_SERVICES_HOME", PROJECT_ROOT / ".services")) / "services.env"
