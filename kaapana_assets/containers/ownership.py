"""A run directory handed to the user that operators run as, where that is not the platform's own.

Operators get the folders: what they may write, and rename and remove what is in them. Files stay as they
are, because some are links to the archive: read-only and of the platform, no operator can change them.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from kaapana_assets.errors import ConfigurationError
from kaapana_assets.untrusted import Folder, opened

_OF_THE_PLATFORM = {"conf", "launches"}


def check_users(uid: int, *, own_uid: int) -> None:
    """See that ``hand_over`` will be able to do its work.

    Raises:
        ConfigurationError: operators run as another user than the platform, and that is not root.
    """
    if own_uid not in (uid, 0):
        raise ConfigurationError(
            f"KAAPANA_OPERATOR_UID={uid} can differ from the user of the platform, {own_uid}, only if that is root"
        )


def hand_over(directory: Path, uid: int) -> None:
    """Let a user work in a run directory; nothing where the user is this process' own.

    The directory itself stays the platform's: its ``conf`` can be read there, but not be put aside by
    an operator and another one be left in its place. Links are not followed, whoever made them.

    Args:
        directory: a run directory, or the view of one launch.
        uid: the user, and the group of the same number.

    Raises:
        PermissionError: this process may not give folders away; only root may.
    """
    if uid == os.geteuid():
        return
    with opened(directory) as top:
        # Whoever is in the group may make entries, and with the sticky bit remove none of others.
        os.fchown(top.fd, -1, uid)
        os.fchmod(top.fd, stat.S_ISVTX | 0o775)
        if top.status("conf") is not None:
            _show(top)
        for place, folder, _ in top.walk(without=_OF_THE_PLATFORM, strict=False):
            if place:
                os.fchown(folder.fd, uid, uid)
                os.fchmod(folder.fd, 0o755)


def _show(top: Folder) -> None:
    """Let all read the platform's own folder and its files, whatever the umask was when they were made."""
    with top.below("conf") as folder:
        os.fchmod(folder.fd, 0o755)
        for place, _, files in folder.walk(strict=False):
            for found in files if not place else ():
                with folder.open_file(found.name, found.status) as file:
                    os.fchmod(file.fileno(), 0o644)
