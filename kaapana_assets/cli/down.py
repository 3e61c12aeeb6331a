"""``kaapana-assets down``: stops the running platform."""

from __future__ import annotations

import os
import signal
import time

import click

from kaapana_assets.errors import TemporaryError
from kaapana_assets.home import check_home
from kaapana_assets.settings import load_settings
from kaapana_assets.supervision.record import has_lock, running_platform

_WAIT_S = 60


@click.command("down")
def command() -> None:
    """Stop the platform that runs on KAAPANA_HOME, as Ctrl-C there does."""
    home = load_settings().home
    check_home(home)
    record = running_platform(home)
    if record is None or not has_lock(home, record.pid):
        click.echo(f"no platform is up on {home}")
        return
    os.kill(record.pid, signal.SIGINT)
    began = time.monotonic()
    while running_platform(home) is not None or _lives(record.pid):
        if time.monotonic() - began > _WAIT_S:
            raise TemporaryError(f"the platform (process {record.pid}) is still there after {_WAIT_S} s")
        time.sleep(0.1)
    click.echo(f"stopped after {time.monotonic() - began:.1f} s")


def _lives(pid: int) -> bool:
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
