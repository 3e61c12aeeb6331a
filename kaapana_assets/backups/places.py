"""Where backups and restored homes may be: apart from homes, so that neither holds, nor forgets, the other.

Folders are told apart by their numbers, not by their paths: links and bind mounts give one folder several.
"""

from __future__ import annotations

from pathlib import Path

from kaapana_assets.backups import contents
from kaapana_assets.errors import ConfigurationError
from kaapana_assets.home_record import MARKER as HOME
from kaapana_assets.shown import shown

BACKUPS = "kaapana-backup"
"""The file that marks a folder of backups."""


def check_apart(home: Path, backups: Path) -> None:
    """See that a folder of backups, which may not be made yet, is not in a home nor around it.

    Folders at the top of a home can be links to other disks; what they lead to belongs to the home.

    Raises:
        ConfigurationError: it is.
    """
    trees = [home, *(each for each in home.iterdir() if contents.is_kept(each.name) and each.is_dir())]
    inside = _above(backups)
    for tree in trees:
        if _number(tree) in inside:
            raise ConfigurationError(f"the backups {backups} may not be in the home {home}: {tree} is copied into them")
        if backups.is_dir() and _number(backups) in _above(tree):
            raise ConfigurationError(f"the backups {backups} may not be around {tree} of the home {home}")


def check_new_home(home: Path) -> None:
    """See that a home which is to be made is not in another one, nor in a folder of backups.

    Raises:
        ConfigurationError: it is.
    """
    for above in home.resolve().parents:
        for marker, what in ((HOME, "the home"), (BACKUPS, "the folder of backups")):
            if (above / marker).is_file():
                raise ConfigurationError(f"{shown(home)} is in {what} {above}: name a folder outside of it")


def _above(path: Path) -> set[tuple[int, int]]:
    """The numbers of a folder and all above it, as far as they are there."""
    path = path.resolve()
    return {_number(each) for each in (path, *path.parents) if each.exists()}


def _number(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino
