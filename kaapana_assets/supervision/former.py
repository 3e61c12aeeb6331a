"""What a home had before: the place where it was, and the platform that ran there.

A copied home tells of its original, which is left alone.
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
    """Note where the home is, for a platform that holds its lock.

    Args:
        settings: of the platform.
        say: prints one line for the user.
        accept_copy: the home is a copy, and its original is gone.

    Raises:
        ConfigurationError: it is a copy with the servers of its original, or the original is up.
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
    """End what a platform left that was killed on this home, in this folder and since the machine was started."""
    former = record.read_record(home)
    if former is not None:
        left = Members(frozenset(pid for pid in former.parts.values() if _bears(pid, former.token)), former.token)
        if left.living():
            say("a former platform was killed; ending what is left of it")
            left.end(grace_s=grace_s)
        shutil.rmtree(former.folder, ignore_errors=True)
    # One that is not of this folder goes as well: what it names is not ours.
    record.remove_record(home)


def _servers(settings: Settings) -> dict[str, str]:
    """The stores of the site that only one home may have; an archive is there to be shared, a database asks itself."""
    embedded = {"index": settings.index == "sqlite", "objects": settings.objects == "folder"}
    return {name: where for name, where in settings.stores().items() if not embedded.get(name, True)}


def _check_gone(original: home_record.Identity, home: Path) -> None:
    """Refuse to take the place of an original whose platform is up."""
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
