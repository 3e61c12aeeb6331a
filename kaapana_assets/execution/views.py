"""The view of one launch: a directory of its own with what its operator declared, of its series, and nothing else.

    <run directory>/launches/<operator>-<hash of the series>/

Made anew for each launch, from the run directory, which no operator sees itself: what one operator does
to its input reaches no other one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence

from kaapana_assets.errors import UnsafePath
from kaapana_assets.execution.conf import show_conf
from kaapana_assets.execution.run_context import Work
from kaapana_assets.stores.files.run_directory import RunDirectory
from kaapana_assets.stores.files.trees import give_tree, make_plain
from kaapana_assets.workflows.operators import ContainerOperator, Operator


def view_of(operator: Operator, directory: RunDirectory, series: Sequence[str]) -> RunDirectory:
    """The view of a launch, there or not.

    The same for the same series: a process that takes over from one that died looks there again.
    """
    which = hashlib.sha256("\n".join(sorted(series)).encode()).hexdigest()[:16]
    return directory.view(f"{operator.full_name}-{which}")


def lay_out(work: Work, operator: Operator, directory: RunDirectory, view: RunDirectory, series: Sequence[str]) -> None:
    """Fill a view with the declared folders, which the directory holds; what was in it is removed.

    Raises:
        UnsafePath: something else than plain files of the platform, or of an operator, is there.
    """
    view = directory.empty_view(view.path.name)
    show_conf(work, operator, view, series)
    # A file is shared only where its owner keeps the operator from writing to it.
    isolates = work.stores.runner.isolates
    writable_copy = not (isolates and isinstance(operator, ContainerOperator))
    for folder, source in work.workflow.input_folders(operator).items():
        is_pooled = source is not None and source.level == "cohort"
        places = [(folder,)] if is_pooled else [view.place(uid, folder) for uid in series]

        def may_be_linked(status: os.stat_result, *, is_dicom: bool = source is None) -> bool:
            """What operators left was verified to have one name only; the rest is the platform's."""
            return is_dicom or (isolates and status.st_uid == os.geteuid())

        for place in places:
            with view.opened(*place, make=True) as target, contextlib.ExitStack() as stack:
                try:
                    given = stack.enter_context(directory.opened(*place))
                except FileNotFoundError:
                    continue
                give_tree(given, target, writable_copy=writable_copy, may_be_linked=may_be_linked)


def take_output(view: RunDirectory, directory: RunDirectory, *place: str) -> None:
    """Move an output from a view to the run directory, in the place of an earlier one, and make it plain.

    Raises:
        UnsafePath: it is not what was verified any more, a link stands above it, or it may not be moved.
    """
    directory.remove(*place)
    try:
        with view.opened(*place[:-1]) as source, directory.opened(*place[:-1], make=True) as target:
            with source.below(place[-1]) as output:
                output.make_writable()  # to move a folder is to write to it, and to the one above
            source.make_writable()
            source.rename(place[-1], target, place[-1])
        with directory.opened(*place) as output:
            for _, folder, files in output.walk():
                folder.make_writable()
                make_plain(folder, files)
    except (FileNotFoundError, PermissionError) as exc:
        raise UnsafePath(f"{view.path.joinpath(*place)} cannot be taken: {exc.strerror}: {exc.filename}") from exc


def remove_view(work: Work, directory: RunDirectory, view: RunDirectory) -> None:
    """Remove a view, and say what cannot be removed: the nightly clean tries again."""
    for problem in directory.remove_view(view.path.name):
        work.log.warning("not removed: %s", problem)
