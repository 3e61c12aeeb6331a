"""Deals with the past of a home: its former folder, and what is left of a platform that was killed in it.

The records in a copied home name the processes of its original, which are left alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import psutil

from kaapana_assets import home_record
from kaapana_assets.errors import ConfigurationError
from kaapana_assets.settings import Settings
from kaapana_assets.supervision import record
from kaapana_assets.supervision.watchdog import TOKEN_VARIABLE, Members


def settle(settings: Settings, say: Callable[[str], None], *, accept_copy: bool) -> None:
    """Record the present folder of the home; the platform holds the home's lock.

    Args:
        settings: the platform's settings.
        say: prints one line for the user.
        accept_copy: the home is a copy, and its original is gone.

    Raises:
        ConfigurationError: the home is a copy that names servers of its original, or the original's platform is up.
    """
    home = settings.home
    known = home_record.read(home)
    if accept_copy and known is not None and known.identity is not None:
        _check_gone(known.identity, home)
    before = home_record.settle(home, _servers(settings), accept_copy=accept_copy)
    if before is None:
        return
    if home_record.is_there(before):
        say(f"this home is a copy of {before.path}, which is left alone; from here on they are two")
    else:
        say(f"this home was at {before.path} before, or is a copy of it")


def end_former(home: Path, say: Callable[[str], None], *, grace_s: float) -> None:
    """End what is left of a platform that was killed in this folder since the machine's last boot."""
    former = record.read_record(home)
    if former is not None:
        left = Members(frozenset(pid for pid in former.parts.values() if _bears(pid, former.token)), former.token)
        if left.living():
            say("a former platform was killed; ending what is left of it")
            left.end(grace_s=grace_s)
        shutil.rmtree(former.folder, ignore_errors=True)
    # A record from another folder or boot is removed too, because its processes are not this home's.
    record.remove_record(home)


def _servers(settings: Settings) -> dict[str, str]:
    """Return the stores on servers that only one home may use.

    A PACS may be shared, and Dagster's database records its own home.
    """
    embedded = {"index": settings.index == "sqlite", "objects": settings.objects == "folder"}
    return {name: where for name, where in settings.stores().items() if not embedded.get(name, True)}


def _check_gone(original: home_record.Identity, home: Path) -> None:
    """Refuse to replace an original whose platform is up."""
    if original.is_same_folder(home_record.identity_of(home)) or not home_record.is_there(original):
        return
    running = record.running_platform(Path(original.path))
    if running is not None:
        raise ConfigurationError(
            f"{home} is a copy of the home {original.path}, whose platform is up (process {running.pid}): stop it "
            "first, and remove that home if this copy is to take its place"
        )


def _bears(pid: int, token: str) -> bool:
    try:
        return psutil.Process(pid).environ().get(TOKEN_VARIABLE) == token
    except psutil.Error:
        return False
