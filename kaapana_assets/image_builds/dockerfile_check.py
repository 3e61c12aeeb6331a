"""Checks which instructions of a Dockerfile the process runner does not apply.

The findings are shown by `images check`, and in the log of an operator that failed.
"""

from __future__ import annotations

import os
import posixpath
import re
import shutil
import sys
from collections.abc import Iterator, Sequence

from kaapana_assets.errors import ConfigurationError
from kaapana_assets.image_builds.base_requirements import BaseRequirements
from kaapana_assets.image_builds.dockerfile.findings import DockerfileFinding, Severity
from kaapana_assets.image_builds.dockerfile.shell_commands import PYTHON, commands, is_expanded
from kaapana_assets.image_builds.dockerfile.tree import Tree, absolute
from kaapana_assets.image_builds.folder import Image

_PLAIN_BASES = {"python", "debian", "ubuntu", "alpine", "busybox", "bash", "scratch"}
_SCRIPT_SUFFIXES = (".py", ".sh", ".bash")
_PATH_IN_TEXT = re.compile(r"(?<![\w./~+%@})-])/[\w.+@%~-]+(?:/[\w.+@%~-]+)+")
_SHELL_BUILTINS = {"cd", "export", "set", "source", ".", "exec", "test", "[", "umask", "ulimit", "trap", "eval"}
_MAX_SCRIPT_BYTES = 1 << 20


def check_dockerfile(image: Image, bases: BaseRequirements) -> tuple[DockerfileFinding, ...]:
    """All instructions that the process runner does not apply, in the order of the Dockerfile.

    Raises:
        ConfigurationError: the Dockerfile cannot be read.
    """
    found = [*_check_base(image, bases), *image.stage.findings, *_check_start(image), *_check_scripts(image)]
    return tuple(sorted(found, key=lambda each: each.line or sys.maxsize))


def relevant_findings(image: Image, bases: BaseRequirements) -> tuple[DockerfileFinding, ...]:
    """The findings that may explain a failure of an operator; none if the Dockerfile cannot be read."""
    try:
        return tuple(each for each in check_dockerfile(image, bases) if each.severity is not Severity.HARMLESS)
    except ConfigurationError:
        return ()


def _check_base(image: Image, bases: BaseRequirements) -> Iterator[DockerfileFinding]:
    base = image.stage.base
    line = next((each.line for each in image.dockerfile.instructions if each.keyword == "FROM"), 0)
    name = base.partition("@")[0].removeprefix("docker.io/").removeprefix("library/").partition(":")[0]
    python = f"Python {sys.version_info.major}.{sys.version_info.minor}"
    if bases.find(base) is not None:
        reason = f"its packages are those of KAAPANA_BASE_REQUIREMENTS, on {python}"
        yield DockerfileFinding(line, f"FROM {base}", Severity.HARMLESS, reason)
    elif name in _PLAIN_BASES:
        yield DockerfileFinding(
            line, f"FROM {base}", Severity.HARMLESS, f"operators run on this machine, with its {python}"
        )
    else:
        reason = "the process runner has no base image: name its Python packages in KAAPANA_BASE_REQUIREMENTS"
        yield DockerfileFinding(line, f"FROM {base}", Severity.MATTERS, reason)


def _check_start(image: Image) -> Iterator[DockerfileFinding]:
    stage = image.stage
    arguments = (*stage.entrypoint, *stage.cmd)
    shown = f"start {' '.join(arguments)}"[:100]
    if not arguments:
        reason = "the Dockerfile has no ENTRYPOINT and no CMD: give its operators a command"
        yield DockerfileFinding(0, "start", Severity.MATTERS, reason)
        return
    program = _program(arguments, stage.shell)
    if PYTHON.fullmatch(program.rpartition("/")[2]) or _is_in(stage.tree, program, stage.workdir):
        return
    if shutil.which(program) is None and not _is_in_path(stage.tree, program, stage.variables["PATH"]):
        reason = f"{program} is neither in the image folder nor on this machine; does a Python package install it?"
        yield DockerfileFinding(0, shown, Severity.MATTERS, reason)


def _program(arguments: Sequence[str], shell: Sequence[str]) -> str:
    """The program of a start command; of a shell form, the first command of its text."""
    if tuple(arguments[: len(shell)]) == tuple(shell) and len(arguments) > len(shell):
        first = next(commands(arguments[len(shell)], {}) or iter(()), [])
        if first and is_expanded(first[:1]) and first[0] not in _SHELL_BUILTINS:
            return first[0]
    return arguments[0]


def _is_in(tree: Tree, program: str, workdir: str) -> bool:
    return "/" in program and absolute(program, workdir) in tree.files


def _is_in_path(tree: Tree, program: str, path: str) -> bool:
    return any(absolute(program, folder) in tree.files for folder in path.split(":") if folder)


def _check_scripts(image: Image) -> Iterator[DockerfileFinding]:
    """Paths of the image in the text of its scripts that do not exist on this machine."""
    tree = image.stage.tree
    for path, content in sorted(tree.files.items()):
        if not path.endswith(_SCRIPT_SUFFIXES) or (content.file and content.file.status.st_size > _MAX_SCRIPT_BYTES):
            continue
        named = dict.fromkeys(_PATH_IN_TEXT.findall(content.read_text()))
        missing = [each for each in named if _is_image_path(tree, absolute(each)) and not os.path.lexists(each)]
        if missing:
            reason = f"has {', '.join(missing[:3])} in its text, which is not mapped: use paths relative to the script"
            yield DockerfileFinding(0, path, Severity.MATTERS, reason)


def _is_image_path(tree: Tree, path: str) -> bool:
    return path in tree or (posixpath.dirname(path) in tree.folders and posixpath.dirname(path) != "/")
