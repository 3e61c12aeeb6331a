"""Refuses settings files, homes and folders above them that other users own or may replace.

The module ``home`` defines what a home and a settings file are. Root can do anything and is trusted.
"""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

from kaapana_assets.errors import ConfigurationError

_LARGEST_SETTINGS = 1 << 20


def has_settings(env_file: Path) -> bool:
    """Whether a file names settings of the platform; only regular files of at most 1 MiB are read."""
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
    """Check that a path which the search found belongs to this user, since its settings and code will be used.

    In the working directory itself it may also belong to root or to the owner of that folder, because this user chose
    to go there.

    Args:
        found: a settings file or a home.
        working_directory: where the search began.
        home: the home that the error tells the user to name.

    Raises:
        ConfigurationError: it belongs to another user, or is a file that other users may change.
    """
    owners = {found.stat().st_uid, found.lstat().st_uid}  # both the link and its target must be trusted
    trusted = {os.geteuid()}
    if found.parent == working_directory:
        trusted |= {0, working_directory.stat().st_uid}
    if not owners <= trusted:
        raise ConfigurationError(
            f"{found} belongs to another user, and is not taken from {working_directory} for that reason: set "
            f"KAAPANA_HOME={home} if it is the home you mean, and go to a folder of your own"
        )
    status = found.stat()
    # A group that belongs to one user alone has that user's number.
    is_of_own_group = status.st_gid == status.st_uid
    if found.is_file() and (status.st_mode & 0o002 or (status.st_mode & 0o020 and not is_of_own_group)):
        raise ConfigurationError(
            f"the file of settings {found} may be changed by other users (mode {stat.S_IMODE(status.st_mode):04o}), "
            f"who could have this user execute what they like. See what is in it; this closes it:\n  "
            f"chmod go-w {shlex.quote(str(found))}"
        )


def check_above(home: Path) -> None:
    """Check that other users cannot replace a home.

    Raises:
        ConfigurationError: every user may rename a folder above the home, or a link in its path; the message gives
            the command that prevents it.
    """
    for folder in dict.fromkeys((*home.absolute().parents, *home.resolve().parents)):
        try:
            mode = stat.S_IMODE(folder.stat().st_mode)
        except OSError:  # it does not exist yet, or opening the home will fail
            continue
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise ConfigurationError(
                f"KAAPANA_HOME={home} is below {folder}, where every user of the machine may put another folder in its "
                f"place (mode {mode:04o}). This ends that:\n  chmod o-w {shlex.quote(str(folder))}\n(or chmod +t, if "
                "all are to have folders there; else move the home)"
            )
