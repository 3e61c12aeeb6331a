"""The plan of all runs: the files and images that workflows are loaded from, and one digest of them.

The files are read once, and ``plan_imports`` imports exactly what was read: the digest describes what was
loaded, whatever is edited meanwhile. Whoever launches a run names the plan, and a worker with another plan
refuses the run.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from kaapana_assets.home_paths import HomePaths

BUILT_IN = Path(__file__).parent / "built_in"
PLAN_TAG = "kaapana_assets/plan"
"""Tag of jobs and runs: the digest of their plan."""

_NOT_CONTENT = {"__pycache__", ".git", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
_LEFT_BY_EDITORS = (".pyc", ".swp", ".swx", "~")
_SHOWN = 5


@dataclass(frozen=True)
class PlanFiles:
    """The content of all files that workflows are loaded from, read once.

    Attributes:
        dags: the user's folder of workflow files.
        plugins: the folder of modules that those files may import.
        sources: the content of each Python file.
        digests: SHA-256 of each file by its name, such as ``dags/study.py``; of a file that cannot be read,
            the reason.
        paths: the path of each file by the same name.
    """

    dags: Path
    plugins: Path
    sources: Mapping[Path, bytes]
    digests: Mapping[str, str]
    paths: Mapping[str, Path]


@dataclass(frozen=True)
class Plan:
    """The files, images and operators that runs use.

    Attributes:
        files: SHA-256 of each file by its name.
        images: content digest of each image that a workflow names; empty if the image does not exist.
        operators: by workflow, the full name and the level of each operator.
    """

    files: Mapping[str, str]
    images: Mapping[str, str]
    operators: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """The digest of the whole plan."""
        return hashlib.sha256(self.as_text().encode()).hexdigest()[:40]

    def as_text(self) -> str:
        """Return the plan as text for a run's snapshot, from which another process can read it."""
        values = {"files": self.files, "images": self.images, "operators": self.operators}
        return json.dumps(values, sort_keys=True, default=dict)

    @staticmethod
    def from_text(text: str) -> Plan:
        """Read the plan from a run's snapshot."""
        values: dict[str, Any] = json.loads(text)
        return Plan(values["files"], values["images"], values["operators"])

    def changes_to(self, now: Plan) -> str:
        """Describe the differences to a later plan; only the first few."""
        said = [*_changes(self.files, now.files), *(f"image {each}" for each in _changes(self.images, now.images))]
        if not said and self.operators != now.operators:
            said = ["the files define other operators than they did, though their text is the same"]
        more = f" and {len(said) - _SHOWN} more" if len(said) > _SHOWN else ""
        return ", ".join(said[:_SHOWN]) + more


def read_plan_files(home: Path) -> PlanFiles:
    """Read the built-in workflow files, and all files below the user's folders of workflows and plugins."""
    in_home = HomePaths(home)
    sources: dict[Path, bytes] = {}
    digests: dict[str, str] = {}
    paths: dict[str, Path] = {}
    for name, root in (("built_in", BUILT_IN), ("dags", in_home.workflow_files), ("plugins", in_home.plugins)):
        for path in files_below(root):
            key = f"{name}/{path.relative_to(root).as_posix()}"
            paths[key] = path
            try:
                if path.suffix == ".py":
                    sources[path] = path.read_bytes()
                    digests[key] = hashlib.sha256(sources[path]).hexdigest()
                else:
                    digests[key] = file_digest(path)
            except OSError as exc:
                digests[key] = f"cannot be read: {exc.strerror}"
    return PlanFiles(in_home.workflow_files, in_home.plugins, sources, digests, paths)


def files_below(root: Path) -> Iterator[Path]:
    """Yield all files below a folder, sorted by name, following links; skip caches and editors' leftovers."""
    seen: set[tuple[int, int]] = set()

    def walk(folder: Path) -> Iterator[Path]:
        try:
            state = folder.stat()
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            return  # missing or not readable, so nothing below it can be imported either
        if (state.st_dev, state.st_ino) in seen:
            return
        seen.add((state.st_dev, state.st_ino))
        for entry in entries:
            path = folder / entry.name
            if entry.name in _NOT_CONTENT or entry.name.startswith(".#") or entry.name.endswith(_LEFT_BY_EDITORS):
                continue
            if path.is_dir():
                yield from walk(path)
            elif path.is_file():
                yield path

    return walk(root)


def file_digest(path: Path) -> str:
    """Return the SHA-256 digest of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _changes(before: Mapping[str, str], after: Mapping[str, str]) -> Iterable[str]:
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) == after.get(name):
            continue
        gone, new = not after.get(name), not before.get(name)
        yield f"{name} {'is gone' if gone else 'is new' if new else 'changed'}"
