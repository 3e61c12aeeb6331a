"""Where the platform's folder of data is, for whoever does not say: found upwards, as git finds a repository.

The rule: ``KAAPANA_HOME``; else the nearest folder, from the working directory upwards, that has a home named
``kaapana-home`` or a file ``.env`` with settings; else ``kaapana-home`` in the working directory. A home is
a folder with the file ``.kaapana-home``, which what makes homes puts there, or with what an earlier version left.
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
"""In a home that is being made from a backup, until all is there."""
_BEFORE_THE_FIRST_DATA = {"workflows", "lost+found"}  # a file system's own, and what a user may put there
_TEXT = "The data of a platform of kaapana_assets; commands find it by this file.\n"
# Homes that were made before there was a marker have at least one of these.
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
    """The folder that a command belongs to.

    Attributes:
        folder: its home is below it, and relative paths of settings begin there.
        env_file: its file of settings, where it has one.
    """

    folder: Path
    env_file: Path | None


def find_site(working_directory: Path) -> Site:
    """The folder that a command belongs to that is started in a working directory.

    Raises:
        ConfigurationError: the nearest one belongs to another user, whose settings and workflow files would be
            taken, or others may change its settings.
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
    """The folder that a command belongs to whose home is named: nothing is looked for upwards.

    Raises:
        ConfigurationError: the file of settings in it belongs to another user, or others may change it.
    """
    env_file = working_directory / ".env"
    if not has_settings(env_file):
        return Site(working_directory, None)
    check_found(env_file, working_directory=working_directory, home=home)
    return Site(working_directory, env_file)


def is_home(folder: Path) -> bool:
    """Whether a folder is a platform's home; one that this user may not enter is taken for one."""
    try:
        return any((folder / name).exists() for name in (MARKER, *_OF_EARLIER_VERSIONS))
    except PermissionError:
        return os.access(folder, os.F_OK)


def keep_private(group: str = "") -> None:
    """Let what this process and its children make be for their user alone, or for reading by a group, too.

    Args:
        group: KAAPANA_GROUP.
    """
    os.umask(0o027 if group else 0o077)


def make_home(home: Path, *, group: str = "") -> None:
    """Make a home that only its user can enter, or mark one that is there, and note which version writes in it.

    Args:
        home: the folder.
        group: KAAPANA_GROUP, whose members may read there; empty: nobody may.

    Raises:
        ConfigurationError: it cannot be made, others may enter it (says the command that ends that), a newer
            program wrote in it, or a restore into it was cut short.
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
            with contextlib.suppress(PermissionError):  # another's folder: then it is seen below whether that will do
                _close(home, gid)
        check_private(home, group=group)
        if not (home / MARKER).exists():
            write_file(home / MARKER, _TEXT)
    except OSError as exc:
        raise ConfigurationError(f"KAAPANA_HOME={home} cannot be made: {exc.strerror}") from exc
    home_record.open_to_write(home)


def _begins_now(home: Path) -> bool:
    """Whether a folder has no data yet, so that nobody can rely on how it was entered."""
    return all(each.name in _BEFORE_THE_FIRST_DATA for each in home.iterdir())


def _close(home: Path, gid: int | None) -> None:
    if gid is None:
        home.chmod(0o700)
    else:
        os.chown(home, -1, gid)
        home.chmod(0o2750)  # what is made there is the group's, too


def check_private(home: Path, *, group: str = "") -> None:
    """See that nobody but this user, root and the group, if there is one, may enter a home.

    Raises:
        ConfigurationError: others may, or may put another folder in its place; says the command that ends that.
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
    # A folder that another user owns, such as a volume's root, may let the group write, too.
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
    """See that a folder is a home, for what only reads there.

    Raises:
        ConfigurationError: it is another user's, who lets nobody in, a newer program wrote in it, or a restore
            into it was cut short, or others may put another folder in its place.
        NotFound: it is none; says where it was looked for and how to name one.
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
