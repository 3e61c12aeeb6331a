"""The build stages of a Dockerfile: files, environment, packages and start of each.

Build arguments have their defaults; files come from the build context and from other stages. Each
instruction that is not applied becomes a finding of its stage.
"""

from __future__ import annotations

import json
import platform
import posixpath
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kaapana_assets.errors import ConfigurationError
from kaapana_assets.image_builds.dockerfile.findings import DockerfileFinding, Severity
from kaapana_assets.image_builds.dockerfile.instructions import Dockerfile, Instruction
from kaapana_assets.image_builds.dockerfile.tree import Content, Tree, absolute, copy_paths
from kaapana_assets.image_builds.dockerfile.variables import expand, split_words

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""PATH of an image that sets none; nearly all base images have this value."""

_ARCHIVE = re.compile(r".*\.(tar|tar\.(gz|bz2|xz|zst)|tgz|tbz2?|txz)")
_ADDRESS = re.compile(r"(https?|ftp|ssh|git)://|git@")
_OCTAL = re.compile(r"0?[0-7]{3,4}")
_HARMLESS = {
    "USER": "operators run as the user of the platform",
    "VOLUME": "the operator writes to a folder of its own",
    "HEALTHCHECK": "the health of operators is not checked",
    "EXPOSE": "operators use the network of the machine",
    "STOPSIGNAL": "operators are stopped by SIGTERM",
    "MAINTAINER": "has no effect on a container",
    "ONBUILD": "concerns only images that are built on this one",
}


@dataclass(frozen=True, kw_only=True)
class Packages:
    """One installation of Python packages.

    Attributes:
        lines: lines of a requirements file.
        constraints: lines of a constraints file.
        options: options of pip that decide what is installed.
        local: whether a line is a path in the image.
    """

    lines: tuple[str, ...]
    constraints: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    local: bool = False


@dataclass
class BuildStage:
    """The state of a build stage after its last instruction.

    Attributes:
        base: reference of its base image, followed through earlier stages.
        shell: program and arguments that run a shell form.
        installs: installations of Python packages, in order.
        requirement_files: paths on this machine of the requirements files that were read.
        arguments: values of build arguments.
        has_own_cmd: whether the stage itself has a CMD, and not only inherits one.
    """

    base: str = ""
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    workdir: str = "/"
    shell: tuple[str, ...] = ("/bin/sh", "-c")
    environment: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    tree: Tree = field(default_factory=Tree)
    installs: tuple[Packages, ...] = ()
    requirement_files: frozenset[Path] = frozenset()
    findings: tuple[DockerfileFinding, ...] = ()
    arguments: dict[str, str] = field(default_factory=dict)
    has_own_cmd: bool = False

    @property
    def variables(self) -> dict[str, str]:
        """The variables that instructions of the stage can use."""
        return {"PATH": PATH, **self.arguments, **self.environment}

    def derived(self) -> BuildStage:
        """A new stage that is based on this one."""
        return BuildStage(
            base=self.base,
            entrypoint=self.entrypoint,
            cmd=self.cmd,
            workdir=self.workdir,
            shell=self.shell,
            environment=dict(self.environment),
            labels=dict(self.labels),
            tree=self.tree.copy(),
            installs=self.installs,
            requirement_files=self.requirement_files,
            findings=self.findings,
        )

    def add_finding(self, instruction: Instruction, severity: Severity, reason: str, *, short: str = "") -> None:
        """Add a finding about an instruction; ``short`` replaces its text."""
        found = DockerfileFinding(instruction.line, short or instruction.short, severity, reason)
        if found not in self.findings:
            self.findings = (*self.findings, found)


def last_stage(
    dockerfile: Dockerfile, context: Tree, apply_run: Callable[[Instruction, BuildStage], None]
) -> BuildStage:
    """The final stage of a Dockerfile, which becomes the image.

    Args:
        dockerfile: the parsed Dockerfile.
        context: the build context.
        apply_run: applies a RUN to a stage.

    Raises:
        ConfigurationError: an instruction has a syntax error; the message names its line.
    """
    interpreter = _Interpreter(context, dockerfile.escape, apply_run)
    for instruction in dockerfile.instructions:
        try:
            interpreter.apply(instruction)
        except ConfigurationError as exc:
            raise ConfigurationError(f"line {instruction.line}: {exc}") from exc
    return interpreter.stage


class _Interpreter:
    def __init__(self, context: Tree, escape: str, apply_run: Callable[[Instruction, BuildStage], None]) -> None:
        self.stage = BuildStage()
        self._context, self._escape = context, escape
        self._defaults: dict[str, str] = {}
        self._stages: dict[str, BuildStage] = {}
        self._in_stage = False
        self._handlers: dict[str, Callable[[Instruction], None]] = {
            "FROM": self._from,
            "ARG": self._arg,
            "ENV": lambda each: self.stage.environment.update(self._pairs(each)),
            "LABEL": lambda each: self.stage.labels.update(self._pairs(each)),
            "WORKDIR": self._workdir,
            "COPY": self._copy,
            "ADD": self._copy,
            "ENTRYPOINT": self._entrypoint,
            "CMD": self._cmd,
            "SHELL": self._shell,
            "RUN": lambda each: apply_run(each, self.stage),
        }

    def apply(self, instruction: Instruction) -> None:
        handler = self._handlers.get(instruction.keyword)
        if handler is not None:
            handler(instruction)
        elif instruction.keyword in _HARMLESS:
            self.stage.add_finding(instruction, Severity.HARMLESS, _HARMLESS[instruction.keyword])
        else:
            self.stage.add_finding(instruction, Severity.ERROR, "Docker knows no such instruction")

    def _expanded(self, text: str) -> str:
        return expand(text, self.stage.variables, escape=self._escape)

    def _from(self, instruction: Instruction) -> None:
        parts = expand(instruction.value, {**_platform(), **self._defaults}, escape=self._escape).split()
        reference = parts[0] if parts else ""
        earlier = self._stages.get(reference.lower())
        self.stage = earlier.derived() if earlier is not None else BuildStage(base=reference)
        if not self._in_stage:
            self._in_stage = True
        self._stages[str(len({id(stage) for stage in self._stages.values()}))] = self.stage
        if len(parts) == 3 and parts[1].lower() == "as":
            self._stages[parts[2].lower()] = self.stage

    def _arg(self, instruction: Instruction) -> None:
        known = self._defaults if not self._in_stage else self.stage.variables
        for word in split_words(instruction.value, known, escape=self._escape):
            name, equals, default = word.partition("=")
            if not self._in_stage:
                self._defaults[name] = default
            elif equals:
                self.stage.arguments[name] = default
            else:
                inherited = {**_platform(), **self._defaults}
                if name in inherited:
                    self.stage.arguments[name] = inherited[name]

    def _pairs(self, instruction: Instruction) -> dict[str, str]:
        first = instruction.value.split(maxsplit=1)
        if first and "=" not in first[0]:  # the legacy form: ENV NAME rest of the line
            return {first[0]: self._expanded(first[1]) if len(first) > 1 else ""}
        pairs = (
            word.partition("=") for word in split_words(instruction.value, self.stage.variables, escape=self._escape)
        )
        return {name: value for name, _, value in pairs}

    def _workdir(self, instruction: Instruction) -> None:
        self.stage.workdir = absolute(self._expanded(instruction.value), self.stage.workdir)
        self.stage.tree.add_folder(self.stage.workdir)

    def _entrypoint(self, instruction: Instruction) -> None:
        self.stage.entrypoint = self._form(instruction)
        if not self.stage.has_own_cmd:  # ENTRYPOINT resets an inherited CMD, not one of this stage
            self.stage.cmd = ()

    def _cmd(self, instruction: Instruction) -> None:
        self.stage.cmd, self.stage.has_own_cmd = self._form(instruction), True

    def _shell(self, instruction: Instruction) -> None:
        listed = exec_form(instruction.value)
        if not listed:
            raise ConfigurationError('SHELL takes a list, such as SHELL ["/bin/bash", "-c"]')
        self.stage.shell = listed

    def _form(self, instruction: Instruction) -> tuple[str, ...]:
        listed = exec_form(instruction.value)
        if listed is not None:
            return listed
        return (*self.stage.shell, instruction.value) if instruction.value else ()

    def _copy(self, instruction: Instruction) -> None:
        listed = exec_form(instruction.value) or instruction.value.split()
        given = [self._expanded(word) for word in listed]
        if len(given) < 2:
            raise ConfigurationError(f"{instruction.keyword} takes a source and a target")
        *sources, target = given
        destination = posixpath.join(self.stage.workdir, target)
        destination = absolute(destination) + ("/" if target.endswith(("/", "/.")) or target == "." else "")
        self._note_flags(instruction)
        heredocs = {f"<<{heredoc.name}": heredoc for heredoc in instruction.heredocs}
        files = []
        for source in sources:
            if source in heredocs:
                self._write(heredocs[source].text, heredocs[source].name, destination, heredocs[source].expands)
            elif instruction.keyword == "ADD" and (_ADDRESS.match(source) or _ARCHIVE.fullmatch(source)):
                done = "fetched" if _ADDRESS.match(source) else "unpacked"
                self.stage.add_finding(
                    instruction, Severity.MATTERS, f"{source} is not {done}: put the files below files/"
                )
            else:
                files.append(source)
        if files:
            self._put(instruction, files, destination if len(sources) == 1 else destination.rstrip("/") + "/")

    def _write(self, text: str, name: str, destination: str, expands: bool) -> None:
        content = Content(text=self._expanded_text(text) if expands else text)
        self.stage.tree.add_file(absolute(name, destination) if destination.endswith("/") else destination, content)

    def _expanded_text(self, text: str) -> str:
        # Quotes have no meaning in a here-document.
        return re.sub(
            r"\$(?:\{(\w+)\}|([A-Za-z_]\w*))", lambda found: self.stage.variables.get(found[1] or found[2], ""), text
        )

    def _put(self, instruction: Instruction, files: list[str], destination: str) -> None:
        mode = instruction.flags.get("chmod", "")
        source = self._source(instruction)
        if source is None:
            reason = f"the files of the image {instruction.flags['from']} are not available: put them below files/"
            self.stage.add_finding(instruction, Severity.MATTERS, reason)
            return
        bits = int(mode, 8) if _OCTAL.fullmatch(mode) else None
        missing = copy_paths(source.tree, files, self.stage.tree, destination, mode=bits)
        if not missing:
            return
        if "from" not in instruction.flags:
            ignored = " (or .dockerignore excludes it)"
            self.stage.add_finding(
                instruction, Severity.ERROR, f"{', '.join(missing)} is not in the image folder{ignored}"
            )
        elif source.installs:
            self.stage.installs = tuple(dict.fromkeys([*self.stage.installs, *source.installs]))
            self.stage.requirement_files |= source.requirement_files
            self.stage.add_finding(
                instruction, Severity.HARMLESS, "the packages of that stage are installed for this stage"
            )
        else:
            self.stage.add_finding(
                instruction, Severity.MATTERS, f"{', '.join(missing)} is made by a RUN of that stage"
            )

    def _source(self, instruction: Instruction) -> BuildStage | None:
        if "from" not in instruction.flags:
            return BuildStage(tree=self._context)
        return self._stages.get(self._expanded(instruction.flags["from"]).lower())

    def _note_flags(self, instruction: Instruction) -> None:
        for name, value in instruction.flags.items():
            shown = f"{instruction.keyword} --{name}={value}"
            if name == "chown":
                self.stage.add_finding(instruction, Severity.HARMLESS, "files are the platform user's", short=shown)
            elif name in ("exclude", "parents") or (name == "chmod" and not _OCTAL.fullmatch(value)):
                self.stage.add_finding(instruction, Severity.MATTERS, "the option is not supported", short=shown)


def exec_form(value: str) -> tuple[str, ...] | None:
    """The words of an exec form, a JSON list of strings; None for a shell form."""
    if not value.startswith("["):
        return None
    try:
        listed = json.loads(value)
    except json.JSONDecodeError:
        return None
    return tuple(listed) if isinstance(listed, list) and all(isinstance(word, str) for word in listed) else None


def _platform() -> Mapping[str, str]:
    """The build arguments that Docker predefines."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    values = {"PLATFORM": f"linux/{machine}", "OS": "linux", "ARCH": machine, "VARIANT": ""}
    return {f"{prefix}{name}": value for prefix in ("TARGET", "BUILD") for name, value in values.items()}
