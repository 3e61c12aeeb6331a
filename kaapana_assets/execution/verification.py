"""What a launch left in its view, looked through as a whole before anything of it is used.

Refused are links, special files, hard links to files that are not of the launch, and outputs over the limits:
for the series that they belong to, and for the whole launch where they belong to none.
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
"""The series of what belongs to none."""


@dataclass
class Left:
    """What a launch left.

    Attributes:
        fitting: by series (or "" for a pooled output): the patterns that a file of the output fits; none where there
            is no folder.
        refused: by series: why the platform does not touch what was left.
        refused_launch: the same where it belongs to no series.
    """

    fitting: dict[str, set[str]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    refused_launch: str | None = None

    def missing(self, operator: Operator, uid: str = _OF_ALL) -> str | None:
        """What the output lacks; None when it is as declared."""
        if operator.only_acts:
            return None
        if uid not in self.fitting:
            return f"its output folder {operator.out_dir} is not there"
        for pattern in _patterns(operator):
            if pattern not in self.fitting[uid]:
                return f"its output folder {operator.out_dir} holds no file that fits {pattern}"
        return None


def verify(run: OperatorRun, view: RunDirectory, series: Sequence[str]) -> Left:
    """Look through the view of a launch that has ended, or failed."""
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
    """What is looked for in a view, and what was found there."""

    operator: Operator
    inputs: frozenset[str]
    names: _Names
    limits: Limits
    left: Left

    def look(self, folder: Folder, owner: str, *, is_output_here: bool, beside: tuple[str, ...] = ()) -> None:
        """Look through the folder of one series, or through the view but for its series."""
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
    """The names of files that have several, counted over a view.

    Args:
        is_given_linked: whether the platform gave inputs as hard links.
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
        """Walk a tree; the patterns that a file in it fits."""
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
        """Why, for each owner of a name of a file that has names outside of the view."""
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
    """For what belongs to no output, and is not taken: how many names the platform looks at."""
    return Limits(depth=DEEPEST, files=limits.files, size_bytes=0)


def _given(limits: Limits) -> Limits:
    """For inputs, which may be larger than outputs may."""
    return Limits(depth=DEEPEST, files=max(limits.files, Limits().files), size_bytes=0)


def _fits(path: str, pattern: str) -> bool:
    """Whether ``Path.glob`` would find a file: ``*`` stays within a name, ``**`` is any number of folders."""
    *folders, last = PurePosixPath(pattern).parts
    *above, name = path.split("/")
    if last == "**" or not fnmatch.fnmatchcase(name, last):
        return False
    reached = _past_any({0}, folders)  # how many of the pattern's folders those of the path have passed
    for each in above:
        stay = {at for at in reached if at < len(folders) and folders[at] == "**"}
        step = {at + 1 for at in reached - stay if at < len(folders) and fnmatch.fnmatchcase(each, folders[at])}
        reached = _past_any(stay | step, folders)
    return len(folders) in reached


def _past_any(reached: set[int], folders: Sequence[str]) -> set[int]:
    """With the places that are reached where ``**`` stands for no folder."""
    found = set(reached)
    for at, part in enumerate(folders):
        if at in found and part == "**":
            found.add(at + 1)
    return found
