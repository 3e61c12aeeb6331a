"""The view of one launch: a directory with only the declared inputs of its series.

    <run directory>/launches/<operator>-<hash of the series>/

Each launch gets a new view, filled from the run directory, which no operator sees. An operator that changes
its input therefore affects no other operator.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence

from kaapana_assets.errors import UnsafePath
from kaapana_assets.execution.conf import show_conf
from kaapana_assets.execution.run_context import OperatorRun, RunContext
from kaapana_assets.stores.files.run_directory import RunDirectory
from kaapana_assets.stores.files.trees import give_tree, make_plain
from kaapana_assets.workflows.operators import ContainerOperator, Operator


def view_of(operator: Operator, directory: RunDirectory, series: Sequence[str]) -> RunDirectory:
    """Return the view of a launch, whether it exists or not.

    Equal series have the same view, so that a process that replaces a dead one finds it again.
    """
    which = hashlib.sha256("\n".join(sorted(series)).encode()).hexdigest()[:16]
    return directory.view(f"{operator.full_name}-{which}")


def lay_out(run: OperatorRun, directory: RunDirectory, view: RunDirectory, series: Sequence[str]) -> None:
    """Empty a view, and fill it with the declared inputs from the directory.

    Raises:
        UnsafePath: an input holds a link, a special file or a foreign hard link, or the view cannot be emptied.
    """
    view = directory.empty_view(view.path.name)
    show_conf(run, view, series)
    # Files are hard-linked only if the operator cannot write to them.
    isolates = run.stores.runner.isolates
    writable_copy = not (isolates and isinstance(run.operator, ContainerOperator))
    for folder, source in run.workflow.input_folders(run.operator).items():
        is_pooled = source is not None and source.level == "cohort"
        places = [(folder,)] if is_pooled else [view.names_of(uid, folder) for uid in series]

        def may_be_linked(status: os.stat_result, *, is_dicom: bool = source is None) -> bool:
            """Outputs of operators were verified to have one name only; other names are the platform's."""
            return is_dicom or (isolates and status.st_uid == os.geteuid())

        for place in places:
            with view.opened(*place, make=True) as target, contextlib.ExitStack() as stack:
                try:
                    given = stack.enter_context(directory.opened(*place))
                except FileNotFoundError:
                    continue
                give_tree(given, target, writable_copy=writable_copy, may_be_linked=may_be_linked)


def take_output(view: RunDirectory, directory: RunDirectory, *place: str) -> None:
    """Move an output from a view to the run directory, replacing an earlier one, and make its files plain.

    Raises:
        UnsafePath: the output changed after its verification, a link is in its path, or it may not be moved.
    """
    directory.remove(*place)
    try:
        with view.opened(*place[:-1]) as source, directory.opened(*place[:-1], make=True) as target:
            with source.below(place[-1]) as output:
                output.make_writable()  # moving a folder needs write permission on it and on its parent
            source.make_writable()
            source.rename(place[-1], target, place[-1])
        with directory.opened(*place) as output:
            for _, folder, files in output.walk():
                folder.make_writable()
                make_plain(folder, files)
    except (FileNotFoundError, PermissionError) as exc:
        raise UnsafePath(f"{view.path.joinpath(*place)} cannot be taken: {exc.strerror}: {exc.filename}") from exc


def remove_view(run: RunContext, directory: RunDirectory, view: RunDirectory) -> None:
    """Remove a view, and log what cannot be removed: the nightly clean tries again."""
    for problem in directory.remove_view(view.path.name):
        run.log.warning("not removed: %s", problem)
