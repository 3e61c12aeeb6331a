"""Hands a run directory over to the user that operators run as, if that is not the platform's own user.

Operators become owners of the folders, so they can create, rename and remove entries in them. Files keep
their owner, because some are hard links to the archive: those are read-only and belong to the platform, so
no operator can change them.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from kaapana_assets.errors import ConfigurationError
from kaapana_assets.untrusted import Folder, opened

_OF_THE_PLATFORM = {"conf", "launches"}


def check_users(uid: int, *, own_uid: int) -> None:
    """Check that ``hand_over`` will be permitted.

    Raises:
        ConfigurationError: operators run as another user than the platform, which does not run as root.
    """
    if own_uid not in (uid, 0):
        raise ConfigurationError(
            f"KAAPANA_OPERATOR_UID={uid} can differ from the user of the platform, {own_uid}, only if that is root"
        )


def hand_over(directory: Path, uid: int) -> None:
    """Let a user work in a run directory. Does nothing if this process runs as that user.

    The platform keeps ownership of the directory itself: an operator can read ``conf`` in it, but can
    neither move it away nor replace it. Links are never followed.

    Args:
        directory: a run directory, or the view of one launch.
        uid: ID of the user, and of the group.

    Raises:
        PermissionError: this process may not change owners; only root may.
    """
    if uid == os.geteuid():
        return
    with opened(directory) as top:
        # Members of the group may create entries; the sticky bit keeps them from removing those of others.
        os.fchown(top.fd, -1, uid)
        os.fchmod(top.fd, stat.S_ISVTX | 0o775)
        if top.status("conf") is not None:
            _show(top)
        for place, folder, _ in top.walk(without=_OF_THE_PLATFORM, strict=False):
            if place:
                os.fchown(folder.fd, uid, uid)
                os.fchmod(folder.fd, 0o755)


def _show(top: Folder) -> None:
    """Make ``conf`` and its files readable for everyone, whatever umask they were created under."""
    with top.below("conf") as folder:
        os.fchmod(folder.fd, 0o755)
        for place, _, files in folder.walk(strict=False):
            for found in files if not place else ():
                with folder.open_file(found.name, found.status) as file:
                    os.fchmod(file.fileno(), 0o644)
