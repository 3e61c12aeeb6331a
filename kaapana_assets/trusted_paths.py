"""Which files of settings, homes and folders above them are taken: none that other users put there or may replace.

What a home and a file of settings are is in ``home``. Root may do all, and is trusted with all.
"""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

from kaapana_assets.errors import ConfigurationError

_LARGEST_SETTINGS = 1 << 20


def has_settings(env_file: Path) -> bool:
    """Whether a file names settings of the platform; what is no plain file, or over 1 MiB, is not read."""
    try:
        descriptor = os.open(env_file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST_SETTINGS:
            return False
        lines = os.read(descriptor, _LARGEST_SETTINGS).decode(errors="replace").splitlines()
    finally:
        os.close(descriptor)
    return any(line.strip().removeprefix("export ").lstrip().startswith("KAAPANA_") for line in lines)


def check_found(found: Path, *, working_directory: Path, home: Path) -> None:
    """See that what was found, and not named, is this user's: its settings and workflow files count.

    In the working directory itself it may also be of the one whose folder that is, to which this user went.

    Args:
        found: a file of settings or a home.
        working_directory: in which it was looked for, and above.
        home: to be named, if it is meant.

    Raises:
        ConfigurationError: it belongs to another user, or is a file that others may change.
    """
    owners = {found.stat().st_uid, found.lstat().st_uid}  # a link is trusted as little as what it leads to
    trusted = {os.geteuid()}
    if found.parent == working_directory:
        trusted |= {0, working_directory.stat().st_uid}
    if not owners <= trusted:
        raise ConfigurationError(
            f"{found} belongs to another user, and is not taken from {working_directory} for that reason: set "
            f"KAAPANA_HOME={home} if it is the home you mean, and go to a folder of your own"
        )
    status = found.stat()
    # Where each user has a group of his own, it has his number.
    is_of_own_group = status.st_gid == status.st_uid
    if found.is_file() and (status.st_mode & 0o002 or (status.st_mode & 0o020 and not is_of_own_group)):
        raise ConfigurationError(
            f"the file of settings {found} may be changed by other users (mode {stat.S_IMODE(status.st_mode):04o}), "
            f"who could have this user execute what they like. See what is in it; this closes it:\n  "
            f"chmod go-w {shlex.quote(str(found))}"
        )


def check_above(home: Path) -> None:
    """See that nobody can put another folder in the place of a home.

    Raises:
        ConfigurationError: all users may rename a folder above it, or a link on the way; says how to end that.
    """
    for folder in dict.fromkeys((*home.absolute().parents, *home.resolve().parents)):
        try:
            mode = stat.S_IMODE(folder.stat().st_mode)
        except OSError:  # not there yet, or seen by whoever opens the home
            continue
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise ConfigurationError(
                f"KAAPANA_HOME={home} is below {folder}, where every user of the machine may put another folder in its "
                f"place (mode {mode:04o}). This ends that:\n  chmod o-w {shlex.quote(str(folder))}\n(or chmod +t, if "
                "all are to have folders there; else move the home)"
            )
