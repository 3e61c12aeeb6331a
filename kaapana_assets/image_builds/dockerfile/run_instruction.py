"""Applies a RUN to a stage: Python packages, folders and modes; any other command becomes a finding."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Sequence

from kaapana_assets.image_builds.dockerfile.findings import Severity
from kaapana_assets.image_builds.dockerfile.instructions import Instruction
from kaapana_assets.image_builds.dockerfile.shell_commands import PYTHON, PipInstall, commands, is_expanded, pip_install
from kaapana_assets.image_builds.dockerfile.stages import BuildStage, Packages, exec_form
from kaapana_assets.image_builds.dockerfile.tree import absolute

_SHELLS = {"", "sh", "bash", "/bin/sh", "/bin/bash"}
_SYSTEM_INSTALLERS = {"apt-get", "apt", "aptitude", "apk", "yum", "dnf", "microdnf", "zypper"}
_HARMLESS = {
    "adduser": "operators run as the user of the platform",
    "addgroup": "operators run as the user of the platform",
    "useradd": "operators run as the user of the platform",
    "groupadd": "operators run as the user of the platform",
    "usermod": "operators run as the user of the platform",
    "groupmod": "operators run as the user of the platform",
    "userdel": "operators run as the user of the platform",
    "chown": "files are the platform user's",
    "chgrp": "files are the platform user's",
    "ldconfig": "no system library was installed",
    **dict.fromkeys(["echo", "true", "ls", "cat", "pwd", "which", "date", "env", "id", ":"], "only shows something"),
}
_MODE = re.compile(r"0?[0-7]{3,4}|[ugoa]*\+[rwxX]*x[rwxX]*")
_WEB = re.compile(r"https?://|ftp://")
_LOCAL = re.compile(r"(\.{1,2}$|\.{0,2}/|[^\s@]*\.(whl|tar\.gz|zip)$)")
_NOT_INSTALLED = re.compile(r"(pip|uv)([=<>~!\[].*)?")


def apply_run(instruction: Instruction, stage: BuildStage) -> None:
    """Apply a RUN to a stage, as far as that is possible without a container."""
    found = _commands(instruction, stage)
    if found is None:
        stage.add_finding(instruction, Severity.MATTERS, "is not run: its results must already be on this machine")
        return
    folder = stage.workdir
    for words in found:
        name = posixpath.basename(words[0])
        short = f"RUN {' '.join(words)}"[:100]
        if name == "cd" and len(words) == 2:
            folder = absolute(words[1], folder)
        elif not is_expanded(words):
            stage.add_finding(
                instruction, Severity.MATTERS, "is not run: only a shell can expand its variables", short=short
            )
        elif (installation := pip_install(words)) is not None:
            _install(instruction, stage, installation, folder, short)
        elif name in _FILE_COMMANDS and _FILE_COMMANDS[name](stage, words[1:], folder):
            continue
        else:
            severity, reason = _classify(name, words)
            stage.add_finding(instruction, severity, reason, short=short)


def _commands(instruction: Instruction, stage: BuildStage) -> list[list[str]] | None:
    listed = exec_form(instruction.value)
    if listed:
        return [list(listed)]
    text = instruction.value
    if instruction.heredocs:
        before = text.partition("<<")[0].strip()
        if before not in _SHELLS or len(instruction.heredocs) > 1:
            return None
        text = instruction.heredocs[0].text.replace("\\\n", " ")
    found = commands(text, stage.variables)
    return None if found is None else list(found)


def _classify(name: str, words: Sequence[str]) -> tuple[Severity, str]:
    if name in _SYSTEM_INSTALLERS:
        if "install" not in words and "add" not in words:
            return Severity.HARMLESS, "installs nothing"
        asked = words[max(words.index(verb) for verb in ("install", "add") if verb in words) + 1 :]
        packages = [word for word in asked if not word.startswith("-")]
        return Severity.MATTERS, f"needed on this machine, unless only the build needs it: {', '.join(packages)}"
    if name in _HARMLESS:
        return Severity.HARMLESS, _HARMLESS[name]
    if name == "rm":
        return Severity.HARMLESS, "there is no file of that name"
    if PYTHON.fullmatch(name) and words[1:3] in (["-m", "compileall"], ["-m", "venv"], ["-m", "ensurepip"]):
        return Severity.HARMLESS, "the operator has an environment of its own"
    if PYTHON.fullmatch(name) and words[1:] in (["--version"], ["-V"]):
        return Severity.HARMLESS, "only shows something"
    if name.startswith("pip") and words[1:2] in (["cache"], ["check"], ["list"], ["--version"], ["freeze"]):
        return Severity.HARMLESS, "installs nothing"
    if name.startswith("pip") and words[1:2] == ["uninstall"]:
        return Severity.HARMLESS, "the operator's environment has only the packages that are asked for"
    return Severity.MATTERS, "is not run: its results must already be on this machine"


def _make_folders(stage: BuildStage, arguments: Sequence[str], folder: str) -> bool:
    for path in [word for word in arguments if not word.startswith("-")]:
        stage.tree.add_folder(absolute(path, folder))
    return True


def _change_modes(stage: BuildStage, arguments: Sequence[str], folder: str) -> bool:
    """Change the modes of copied files; returns whether the command was understood and matched a file."""
    plain = [word for word in arguments if not word.startswith("-")]
    if len(plain) < 2 or not _MODE.fullmatch(plain[0]):
        return False
    matched = [path for pattern in plain[1:] for path in stage.tree.matching(absolute(pattern, folder))]
    for path in matched:
        bits = 0o755 if "+" in plain[0] else int(plain[0], 8)
        stage.tree.change_mode(path, bits)
    return bool(matched)


def _remove(stage: BuildStage, arguments: Sequence[str], folder: str) -> bool:
    patterns = [absolute(word, folder) for word in arguments if not word.startswith("-")]
    matched = [path for pattern in patterns for path in stage.tree.matching(pattern)]
    for path in matched:
        for each in [*stage.tree.below(path), path]:
            stage.tree.files.pop(each, None)
            stage.tree.folders -= {each} - {"/"}
    return bool(matched)


_FILE_COMMANDS: dict[str, Callable[[BuildStage, Sequence[str], str], bool]] = {
    "mkdir": _make_folders,
    "chmod": _change_modes,
    "rm": _remove,
}


def _install(instruction: Instruction, stage: BuildStage, installation: PipInstall, folder: str, short: str) -> None:
    if installation.unknown is not None:
        stage.add_finding(
            instruction,
            Severity.MATTERS,
            f"is not done: the option {installation.unknown} is not supported",
            short=short,
        )
        return
    reader = _RequirementFiles(instruction, stage, short)
    lines = [line for file in installation.files for line in reader.lines(file, folder)]
    constraints = [
        line for file in installation.constraints for line in reader.lines(file, folder)
    ] + reader.constraints
    lines += [_line(package, folder) for package in installation.packages if not _NOT_INSTALLED.fullmatch(package)]
    lines += [f"--editable {_line(path, folder)}" for path in installation.editable]
    lines = [line for line in lines if reader.is_there(line)]
    if any(line.strip() and not line.lstrip().startswith("#") for line in lines):
        local = any(line.removeprefix("--editable ").startswith("/") for line in lines)
        packages = Packages(
            lines=tuple(lines), constraints=tuple(constraints), options=installation.options, local=local
        )
        stage.installs = (*stage.installs, packages)


def _line(package: str, folder: str) -> str:
    """A requirement; a path in the image is made absolute."""
    path, bracket, extras = package.partition("[")
    if _LOCAL.match(path) and "://" not in package:
        return absolute(path, folder) + bracket + extras
    return package


class _RequirementFiles:
    """Reads requirements files of an image, with the files that they include."""

    def __init__(self, instruction: Instruction, stage: BuildStage, short: str) -> None:
        self._instruction, self._stage, self._short = instruction, stage, short
        self._open: list[str] = []
        self.constraints: list[str] = []

    def lines(self, name: str, folder: str) -> list[str]:
        if _WEB.match(name):
            reason = f"{name} is not read: pin the versions in a file of the image, or in KAAPANA_BASE_REQUIREMENTS"
            self._stage.add_finding(self._instruction, Severity.MATTERS, reason, short=self._short)
            return []
        path = absolute(name, folder)
        content = self._stage.tree.files.get(path)
        if content is None:
            reason = (
                f"{path} is not available: no instruction copies it; does an earlier RUN or the base image make it?"
            )
            self._stage.add_finding(self._instruction, Severity.MATTERS, reason, short=self._short)
            return []
        if path in self._open:
            return []
        if content.file is not None:
            self._stage.requirement_files |= {content.file.path}
        self._open.append(path)
        found = [each for line in content.read_text().splitlines() for each in self._resolved(line, path)]
        self._open.remove(path)
        return found

    def is_there(self, line: str) -> bool:
        """Whether a requirement that is a path in the image names a Python project there."""
        path = line.removeprefix("--editable ").partition("[")[0]
        projects = {path, f"{path}/pyproject.toml", f"{path}/setup.py"}
        if not path.startswith("/") or projects & self._stage.tree.files.keys():
            return True
        reason = f"{path} is no Python project in the image folder; does an earlier RUN or the base image make it?"
        self._stage.add_finding(self._instruction, Severity.MATTERS, reason, short=self._short)
        return False

    def _resolved(self, line: str, file: str) -> list[str]:
        text = re.sub(r"(^|\s)#.*", "", line).strip()
        match = re.fullmatch(r"(-r|-c|--requirement|--constraint)[\s=]*(\S+)", text)
        if match is not None:
            named = self.lines(match[2], posixpath.dirname(file))
            if match[1] in ("-r", "--requirement"):
                return named
            self.constraints += named
            return []
        editable = re.fullmatch(r"(?:-e|--editable)[\s=]*(\S+)", text)
        if editable is not None:
            return [f"--editable {_line(editable[1], self._stage.workdir)}"]
        return [_line(text, self._stage.workdir)] if text.startswith((".", "/")) else [line]
