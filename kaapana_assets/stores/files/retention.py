"""Removes what runs left behind when its retention time is over: run directories and unfinished outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from kaapana_assets.home_paths import HomePaths
from kaapana_assets.stores.files.run_directory import RunDirectories
from kaapana_assets.stores.files.shelf import Shelf
from kaapana_assets.untrusted import opened

_SHORTEST_DAYS = 1.0
"""Shortest retention of unfinished outputs: a running run may still stage a younger one, but none takes a day."""


def remove_left_behind(
    home: Path, *, days: float, dry_run: bool = False, left: Callable[[str], None] | None = None
) -> Iterator[Path]:
    """Remove what nobody wrote to for that many days, and yield each removed path.

    These are the directories of failed runs, and outputs that killed runs had not put on the shelf.
    Assets, the archive and the spool are never touched.

    Args:
        home: the folder of all data, ``KAAPANA_HOME``.
        days: how long run directories are kept.
        dry_run: yield the paths, but remove nothing.
        left: called with a message for each file or folder that cannot be removed; the others are removed.
    """
    paths = HomePaths(home)
    directories = RunDirectories(paths.run_directories)
    for directory in directories.older_than(days):
        problems = [] if dry_run else directories.remove(directory)
        yield from _told(directory.path, problems, left)
    for path in Shelf(paths.shelf).abandoned(older_than_days=max(days, _SHORTEST_DAYS)):
        with opened(path.parent) as staging:
            problems = [] if dry_run else staging.remove(path.name)
        yield from _told(path, problems, left)


def _told(path: Path, problems: list[str], left: Callable[[str], None] | None) -> Iterator[Path]:
    for problem in problems:
        if left is not None:
            left(problem)
    if not problems:
        yield path
