"""Verifies everything that a launch left in its view, before any of it is used.

Links, special files, hard links to files outside the launch, and outputs over the limits are refused: for the
series that they belong to, or for the whole launch if they belong to no series.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
from collections import defaultdict
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from kaapana_assets.errors import UnsafePath
from kaapana_assets.execution.run_context import OperatorRun
from kaapana_assets.stores.files.run_directory import RunDirectory
from kaapana_assets.stores.files.trees import foreign_link
from kaapana_assets.tree_limits import Limits
from kaapana_assets.untrusted import DEEPEST, Folder, Found
from kaapana_assets.workflows.operators import ContainerOperator, Operator

_OF_ALL = ""
"""Stands for the SeriesInstanceUID of files that belong to no series."""


@dataclass
class Left:
    """The findings in the view of a launch.

    Attributes:
        fitting: the patterns that some file of the output matches, by series ("" for a pooled output); a series
            without an output folder has no entry.
        refused: why a series' files are refused, by series.
        refused_launch: why files that belong to no series are refused; None if they are not.
    """

    fitting: dict[str, set[str]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    refused_launch: str | None = None

    def missing(self, operator: Operator, uid: str = _OF_ALL) -> str | None:
        """Return what the output lacks; None if it is complete."""
        if operator.only_acts:
            return None
        if uid not in self.fitting:
            return f"its output folder {operator.out_dir} is not there"
        for pattern in _patterns(operator):
            if pattern not in self.fitting[uid]:
                return f"its output folder {operator.out_dir} holds no file that fits {pattern}"
        return None


def verify(run: OperatorRun, view: RunDirectory, series: Sequence[str]) -> Left:
    """Verify the view of a launch that has ended, successfully or not."""
    left = Left()
    names = _Names(is_given_linked=run.stores.runner.isolates and isinstance(run.operator, ContainerOperator))
    limits = run.stores.limits
    search = _Search(run.operator, frozenset(run.workflow.input_folders(run.operator)), names, limits, left)
    try:
        with contextlib.suppress(FileNotFoundError), view.opened() as top:
            search.look(top, _OF_ALL, is_output_here=run.operator.level == "cohort", beside=("batch",))
            if top.has_folder("batch"):
                with top.below("batch") as batch:
                    names.note(batch, _beside(limits), owner=_OF_ALL, without=frozenset(series))
    except UnsafePath as exc:
        left.refused_launch = str(exc)
        return left
    for uid in series:
        try:
            with contextlib.suppress(FileNotFoundError), view.opened("batch", uid) as folder:
                search.look(folder, uid, is_output_here=run.operator.level == "series")
        except UnsafePath as exc:
            left.refused[uid] = str(exc)
    for owner, reason in names.foreign().items():
        left.refused.setdefault(owner, reason)
    left.refused_launch = left.refused.pop(_OF_ALL, None)
    return left


@dataclass(frozen=True)
class _Search:
    """The search through one view, which fills ``left`` and ``names``."""

    operator: Operator
    inputs: frozenset[str]
    names: _Names
    limits: Limits
    left: Left

    def look(self, folder: Folder, owner: str, *, is_output_here: bool, beside: tuple[str, ...] = ()) -> None:
        """Search the folder of one series, or the view without the folders of its series."""
        output = self.operator.out_dir if is_output_here else None
        for name in self.inputs - {output}:
            if folder.has_folder(name):
                with folder.below(name) as given:
                    self.names.note(given, _given(self.limits), owner=owner, is_given=True)
        if output is not None and folder.has_folder(output):
            with folder.below(output) as made:
                patterns = _patterns(self.operator)
                self.left.fitting[owner] = self.names.note(made, self.limits, owner=owner, patterns=patterns)
        self.names.note(folder, _beside(self.limits), owner=owner, without={output, *self.inputs, *beside})


class _Names:
    """Collects the names of files with several hard links, over a whole view.

    Args:
        is_given_linked: whether inputs may be hard links to files of the platform.
    """

    def __init__(self, *, is_given_linked: bool) -> None:
        self._is_given_linked = is_given_linked
        self._found: dict[tuple[int, int], list[tuple[str, bool, Found, Folder]]] = defaultdict(list)

    def note(
        self,
        top: Folder,
        limits: Limits,
        *,
        owner: str,
        without: Container[str | None] = (),
        patterns: Sequence[str] = (),
        is_given: bool = False,
    ) -> set[str]:
        """Walk a tree, and return the patterns that some file in it matches."""
        fitting: set[str] = set()
        for place, folder, files in top.walk(limits=limits, without=without):
            for found in files:
                path = f"{place}/{found.name}" if place else found.name
                fitting.update(each for each in patterns if each not in fitting and _fits(path, each))
                status = found.status
                if status.st_nlink > 1:
                    of_platform = is_given and self._is_given_linked and status.st_uid == os.geteuid()
                    self._found[status.st_dev, status.st_ino].append((owner, of_platform, found, folder))
        return fitting

    def foreign(self) -> dict[str, str]:
        """Return the refusals of files that have further hard links outside the view, by series."""
        reasons: dict[str, str] = {}
        for named in self._found.values():
            if len(named) < named[0][2].status.st_nlink:
                for owner, of_platform, found, folder in named:
                    if not of_platform:
                        reasons.setdefault(owner, str(foreign_link(folder, found)))
        return reasons


def _patterns(operator: Operator) -> tuple[str, ...]:
    return operator.output_patterns or ("**/*",)


def _beside(limits: Limits) -> Limits:
    """Return the limits for files outside of outputs, which are not published: only their number is limited."""
    return Limits(depth=DEEPEST, files=limits.files, size_bytes=0)


def _given(limits: Limits) -> Limits:
    """Return the limits for inputs, which may be larger than outputs."""
    return Limits(depth=DEEPEST, files=max(limits.files, Limits().files), size_bytes=0)


def _fits(path: str, pattern: str) -> bool:
    """Whether ``Path.glob`` would match a path: ``*`` matches within a name, ``**`` any number of folders."""
    *folders, last = PurePosixPath(pattern).parts
    *above, name = path.split("/")
    if last == "**" or not fnmatch.fnmatchcase(name, last):
        return False
    reached = _past_any({0}, folders)  # how many of the pattern's folders the path's folders may have matched so far
    for each in above:
        stay = {at for at in reached if at < len(folders) and folders[at] == "**"}
        step = {at + 1 for at in reached - stay if at < len(folders) and fnmatch.fnmatchcase(each, folders[at])}
        reached = _past_any(stay | step, folders)
    return len(folders) in reached


def _past_any(reached: set[int], folders: Sequence[str]) -> set[int]:
    """Add the positions that are reached if ``**`` matches no folder."""
    found = set(reached)
    for at, part in enumerate(folders):
        if at in found and part == "**":
            found.add(at + 1)
    return found
