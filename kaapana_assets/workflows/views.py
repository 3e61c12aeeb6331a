"""The view of one launch: a directory of its own with what its operator declared, of its series, and nothing else.

    <run directory>/launches/<operator>-<hash of the series>/

Made anew for each launch, from the run directory, which no operator sees itself: what one operator does
to its input reaches no other one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from kaapana_assets.stores.run_directory import RunDirectory
from kaapana_assets.stores.transfer import give
from kaapana_assets.workflows.conf import write_conf
from kaapana_assets.workflows.operators import ContainerOperator, Operator
from kaapana_assets.workflows.work import Work


def view_of(operator: Operator, directory: RunDirectory, series: Sequence[str]) -> RunDirectory:
    """The view of a launch, there or not.

    The same for the same series: a process that takes over from one that died looks there again.
    """
    which = hashlib.sha256("\n".join(sorted(series)).encode()).hexdigest()[:16]
    return directory.view(f"{operator.full_name}-{which}")


def lay_out(work: Work, operator: Operator, directory: RunDirectory, view: RunDirectory, series: Sequence[str]) -> None:
    """Fill a view with the declared folders, which the directory holds; what was in it is removed."""
    view = directory.empty_view(view.name)
    write_conf(work, operator, view, series)
    # A file is shared only where its owner keeps the operator from writing to it.
    writable_copy = not (work.stores.runner.isolates and isinstance(operator, ContainerOperator))
    for folder, source in work.workflow.input_folders(operator).items():
        if source is not None and source.level == "cohort":
            _give_tree(directory.path / folder, view.path / folder, writable_copy=writable_copy)
            continue
        for uid in series:
            _give_tree(directory.series_dir(uid, folder), view.series_dir(uid, folder), writable_copy=writable_copy)


def take_output(output: Path, target: Path) -> None:
    """Move an output from a view to the run directory, in the place of an earlier one."""
    remove_output(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    output.rename(target)


def remove_output(folder: Path) -> None:
    """Make place for an output, whatever stands there."""
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)
    else:
        folder.unlink(missing_ok=True)


def link_in_place_of(*folders: Path) -> str | None:
    """What to say when an operator put a link where a folder belongs; the link is removed.

    It would lead what reads or writes there later, with the rights of the platform, elsewhere.
    """
    for folder in folders:
        if folder.is_symlink():
            folder.unlink()
            return f"it put a link in the place of the folder {folder.name}"
    return None


def _give_tree(source: Path, target: Path, *, writable_copy: bool) -> None:
    """Plain files only, and no empty folder below: as it comes from the shelf in the next run."""
    target.mkdir(parents=True, exist_ok=True)
    if not source.is_dir():
        return
    for folder, _, names in os.walk(source):
        there = target / Path(folder).relative_to(source)
        for name in names:
            path = Path(folder, name)
            if not path.is_symlink() and path.is_file():
                there.mkdir(parents=True, exist_ok=True)
                give(path, there / name, writable_copy=writable_copy)
