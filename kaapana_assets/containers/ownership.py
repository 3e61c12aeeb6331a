"""A run directory handed to the user that operators run as, where that is not the platform's own.

Operators get the folders: what they may write, and rename and remove what is in them. Files stay as they
are, because some are links to the archive: read-only and of the platform, no operator can change them.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from kaapana_assets.errors import ConfigurationError

_OF_THE_PLATFORM = {"conf", "launches"}
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


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
    for _, folders, _, folder in os.fwalk(directory, follow_symlinks=False):
        if _is_same(folder, directory):
            # Whoever is in the group may make entries, and with the sticky bit remove none of others.
            os.fchown(folder, -1, uid)
            os.fchmod(folder, stat.S_ISVTX | 0o775)
            if "conf" in folders:
                _show(folder, "conf")
            folders[:] = [name for name in folders if name not in _OF_THE_PLATFORM]
        else:
            os.fchown(folder, uid, uid)
            os.fchmod(folder, 0o755)


def _is_same(folder: int, directory: Path) -> bool:
    return os.path.samestat(os.fstat(folder), directory.stat())


def _show(parent: int, name: str) -> None:
    """Let all read the platform's own folder and its files, whatever the umask was when they were made."""
    folder = os.open(name, _FLAGS, dir_fd=parent)
    try:
        os.fchmod(folder, 0o755)
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False):
                    os.chmod(entry.name, 0o644, dir_fd=folder)
    finally:
        os.close(folder)
