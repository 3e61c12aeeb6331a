"""Finds the platform's home, its folder of data, by searching upwards as git does for a repository.

The home is ``KAAPANA_HOME``, if it is set. Otherwise the search begins in the working directory and goes upwards to
the nearest folder with a home named ``kaapana-home`` or a file ``.env`` with settings. If there is none, the home is
``kaapana-home`` in the working directory. A folder is a home if it has the file ``.kaapana-home``, or a file or
folder that an earlier version put into its homes.
"""

from __future__ import annotations

import contextlib
import grp
import os
import shlex
import stat
from dataclasses import dataclass
from pathlib import Path

from kaapana_assets import home_record
from kaapana_assets.durable import make_folder, sync_folder, write_file
from kaapana_assets.errors import ConfigurationError, NotFound
from kaapana_assets.home_record import MARKER
from kaapana_assets.trusted_paths import check_above, check_found, has_settings

NAME = "kaapana-home"
RESTORING = ".restoring"
"""Marks a home that is being restored from a backup, until the restore is complete."""
_BEFORE_THE_FIRST_DATA = {"workflows", "lost+found"}  # the user may put the first there; a file system makes the second
_TEXT = "The data of a platform of kaapana_assets; commands find it by this file.\n"
# Homes made by versions without the marker have at least one of these.
_OF_EARLIER_VERSIONS = (
    "platform.lock",
    "index.sqlite",
    "images.json",
    "incoming",
    "archive",
    "cohorts",
    "workflows",
    "dagster",
)


@dataclass(frozen=True)
class Site:
    """The folder whose settings and home a command uses.

    Attributes:
        folder: the default home is in it, and relative paths in settings start from it.
        env_file: its file ``.env`` of settings, if it has one.
    """

    folder: Path
    env_file: Path | None


def find_site(working_directory: Path) -> Site:
    """Find the site of a command from the working directory upwards.

    Raises:
        ConfigurationError: the nearest site belongs to another user, whose settings and workflow files would be
            used, or other users may change its settings.
    """
    for folder in (working_directory, *working_directory.parents):
        env_file = folder / ".env"
        is_env_file = has_settings(env_file)
        if not is_env_file and not is_home(folder / NAME):
            continue
        found = env_file if is_env_file else folder / NAME
        check_found(found, working_directory=working_directory, home=folder / NAME)
        return Site(folder, env_file if is_env_file else None)
    return Site(working_directory, None)


def site_of_named_home(working_directory: Path, home: Path) -> Site:
    """Return the site of a command whose home is named: the working directory, without a search upwards.

    Raises:
        ConfigurationError: its file ``.env`` belongs to another user, or other users may change it.
    """
    env_file = working_directory / ".env"
    if not has_settings(env_file):
        return Site(working_directory, None)
    check_found(env_file, working_directory=working_directory, home=home)
    return Site(working_directory, env_file)


def is_home(folder: Path) -> bool:
    """Whether a folder is a platform's home; a folder that this user may not enter counts as one."""
    try:
        return any((folder / name).exists() for name in (MARKER, *_OF_EARLIER_VERSIONS))
    except PermissionError:
        return os.access(folder, os.F_OK)


def keep_private(group: str = "") -> None:
    """Set the umask: only this user can read new files of this process and its children, or a group as well.

    Args:
        group: KAAPANA_GROUP.
    """
    os.umask(0o027 if group else 0o077)


def make_home(home: Path, *, group: str = "") -> None:
    """Make a home that only its user can enter, or mark an existing one, and record the version that writes in it.

    Args:
        home: the folder.
        group: KAAPANA_GROUP, whose members may read the home; empty: no group may.

    Raises:
        ConfigurationError: it cannot be made; other users may enter it (the message gives the command that prevents
            it); a newer version wrote in it; or a restore into it was interrupted.
    """
    gid = _group_id(group) if group else None
    _refuse_half_restored(home)
    try:
        is_new = not home.exists() or _begins_now(home)
        if not home.exists():
            make_folder(home.parent)
            home.mkdir(mode=0o700, exist_ok=True)
            sync_folder(home.parent)
        if is_new:
            with contextlib.suppress(PermissionError):  # another user's folder: check_private decides
                _close(home, gid)
        check_private(home, group=group)
        if not (home / MARKER).exists():
            write_file(home / MARKER, _TEXT)
    except OSError as exc:
        raise ConfigurationError(f"KAAPANA_HOME={home} cannot be made: {exc.strerror}") from exc
    home_record.open_to_write(home)


def _begins_now(home: Path) -> bool:
    """Whether a folder has no data yet, so that nobody relies on its permissions."""
    return all(each.name in _BEFORE_THE_FIRST_DATA for each in home.iterdir())


def _close(home: Path, gid: int | None) -> None:
    if gid is None:
        home.chmod(0o700)
    else:
        os.chown(home, -1, gid)
        home.chmod(0o2750)  # new files inherit the group


def check_private(home: Path, *, group: str = "") -> None:
    """Check that only this user, root and the group, if one is given, may enter a home.

    Raises:
        ConfigurationError: other users may enter it or replace it; the message gives the command that prevents it.
    """
    check_above(home)
    gid = _group_id(group) if group else None
    status = home.stat()
    mode = stat.S_IMODE(status.st_mode)
    where = f"KAAPANA_HOME={home}"
    if status.st_uid not in (0, os.geteuid()):
        raise ConfigurationError(
            f"{where} belongs to another user (number {status.st_uid}), who can read and change all in it. This makes "
            f"it the platform's:\n  chown -R {os.geteuid()} {shlex.quote(str(home))}"
        )
    if gid is None and mode & 0o077:
        raise ConfigurationError(
            f"{where} holds data of patients and can be entered by other users (mode {mode:04o}). This makes it "
            f"private:\n  chmod 700 {shlex.quote(str(home))}\n(or set KAAPANA_GROUP to the group that may read there)"
        )
    # A folder that another user owns, such as the root of a volume, may be writable by the group.
    if gid is not None and (mode & 0o007 or mode & 0o050 != 0o050 or status.st_gid != gid):
        path = shlex.quote(str(home))
        raise ConfigurationError(
            f"{where} is not for its user and the group {group} alone (mode {mode:04o}, group {status.st_gid}). This "
            f"makes it so:\n  chgrp -R {shlex.quote(group)} {path} && chmod -R g+rX,g-w {path} && "
            f"find {path} -type d -exec chmod g+s {{}} + && chmod 2750 {path}"
        )


def _group_id(group: str) -> int:
    if group.isdecimal():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError as exc:
        raise ConfigurationError(f"KAAPANA_GROUP={group}: this machine has no such group") from exc


def check_home(home: Path) -> None:
    """Check that a folder is a home, for a caller that only reads it.

    Raises:
        ConfigurationError: this user may not enter it, a newer version wrote in it, a restore into it was
            interrupted, or other users may replace it.
        NotFound: it is not a home; the message says where the search looked and how to name a home.
    """
    if home.is_dir() and not os.access(home, os.R_OK | os.X_OK):
        raise ConfigurationError(f"KAAPANA_HOME={home} is another user's, who lets nobody in")
    check_above(home)
    _refuse_half_restored(home)
    if is_home(home):
        home_record.read(home)
        return
    what = "is no home of a platform" if home.is_dir() else "is not there"
    how = (
        "KAAPANA_HOME names it"
        if "KAAPANA_HOME" in os.environ
        else f"no folder {NAME} is a home in {Path.cwd()} or above it, and KAAPANA_HOME is not set"
    )
    raise NotFound(
        f"no home: {home} {what} ({how}). Set KAAPANA_HOME to the folder of data, or go to the folder that holds "
        f"{NAME}; `kaapana-assets up`, `receive`, `import` and `demo` make a new one"
    )


def _refuse_half_restored(home: Path) -> None:
    if (home / RESTORING).exists():
        raise ConfigurationError(
            f"the home {home} is not whole: a restore was cut short; give the same `kaapana-assets restore` again, or "
            "remove the folder"
        )
