"""Checks the locations of backup folders and restored homes: neither may be inside the other.

Folders are compared by device and inode, not by path: links and bind mounts give one folder several paths.
"""

from __future__ import annotations

from pathlib import Path

from kaapana_assets.backups import contents
from kaapana_assets.errors import ConfigurationError
from kaapana_assets.home_record import MARKER as HOME
from kaapana_assets.shown import shown

BACKUPS = "kaapana-backup"
"""The file that marks a backup folder."""


def check_apart(home: Path, backups: Path) -> None:
    """Check that a backup folder, which need not exist yet, is neither in a home nor contains one.

    Top-level folders of a home can be links to other disks; their targets belong to the home.

    Raises:
        ConfigurationError: one contains the other.
    """
    trees = [home, *(each for each in home.iterdir() if contents.is_kept(each.name) and each.is_dir())]
    inside = _above(backups)
    for tree in trees:
        if _number(tree) in inside:
            raise ConfigurationError(f"the backups {backups} may not be in the home {home}: {tree} is copied into them")
        if backups.is_dir() and _number(backups) in _above(tree):
            raise ConfigurationError(f"the backups {backups} may not be around {tree} of the home {home}")


def check_new_home(home: Path) -> None:
    """Check that a new home is neither in another home nor in a backup folder.

    Raises:
        ConfigurationError: it is in one.
    """
    for above in home.resolve().parents:
        for marker, what in ((HOME, "the home"), (BACKUPS, "the folder of backups")):
            if (above / marker).is_file():
                raise ConfigurationError(f"{shown(home)} is in {what} {above}: name a folder outside of it")


def _above(path: Path) -> set[tuple[int, int]]:
    """Device and inode of a folder and of its parents, as far as they exist."""
    path = path.resolve()
    return {_number(each) for each in (path, *path.parents) if each.exists()}


def _number(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino
