"""What runs leave behind and for how long it is kept: their directories, and outputs made by half."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from kaapana_assets.stores.run_directory import RunDirectories
from kaapana_assets.stores.shelf import Shelf

_SHORTEST_DAYS = 1.0
"""A half-made output may belong to a run that goes on; none stages one for a day."""


def remove_left_behind(home: Path, *, days: float, dry_run: bool = False) -> Iterator[Path]:
    """Remove what nothing was written to for that many days, giving each path.

    The directories of failed runs, and outputs that killed runs had not put on the shelf. Assets,
    the archive and the spool are never touched.

    Args:
        home: the folder of all data.
        days: how long run directories are kept.
        dry_run: only tell.
    """
    directories = RunDirectories(home / "workflows" / "data")
    for directory in directories.older_than(days):
        if not dry_run:
            directories.remove(directory)
        yield directory.path
    for path in Shelf(home / "assets").abandoned(older_than_days=max(days, _SHORTEST_DAYS)):
        if not dry_run:
            shutil.rmtree(path)
        yield path
