"""Where the platform's folder of data is, for whoever does not say: found upwards, as git finds a repository.

The rule: ``KAAPANA_HOME``; else the nearest folder, from the working directory upwards, that has a home named
``kaapana-home`` or a file ``.env`` with settings; else ``kaapana-home`` in the working directory. A home is
a folder with the file ``.kaapana-home``, which what makes homes puts there, or with what an earlier version left.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from kaapana_assets.errors import ConfigurationError, NotFound

NAME = "kaapana-home"
MARKER = ".kaapana-home"
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
            taken.
    """
    for folder in (working_directory, *working_directory.parents):
        env_file = folder / ".env"
        has_settings = _has_settings(env_file)
        if not has_settings and not is_home(folder / NAME):
            continue
        found = env_file if has_settings else folder / NAME
        if folder != working_directory and found.stat().st_uid != os.geteuid():
            raise ConfigurationError(
                f"{found} belongs to another user, and is not taken from {working_directory} for that reason: set "
                f"KAAPANA_HOME={folder / NAME} if it is the home you mean"
            )
        return Site(folder, env_file if has_settings else None)
    return Site(working_directory, None)


def is_home(folder: Path) -> bool:
    """Whether a folder is a platform's home."""
    return any((folder / name).exists() for name in (MARKER, *_OF_EARLIER_VERSIONS))


def make_home(home: Path) -> None:
    """Make a home, or mark one that is there.

    Raises:
        ConfigurationError: it cannot be made.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        if not (home / MARKER).exists():
            (home / MARKER).write_text(_TEXT)
    except OSError as exc:
        raise ConfigurationError(f"KAAPANA_HOME={home} cannot be made: {exc.strerror}") from exc


def check_home(home: Path) -> None:
    """See that a folder is a home, for what only reads there.

    Raises:
        NotFound: it is none; says where it was looked for and how to name one.
    """
    if is_home(home):
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


def _has_settings(env_file: Path) -> bool:
    try:
        lines = env_file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    return any(line.strip().removeprefix("export ").lstrip().startswith("KAAPANA_") for line in lines)
