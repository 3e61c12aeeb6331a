"""Parses the text of a Dockerfile into instructions; their meaning is in ``stages``.

References:
    https://docs.docker.com/reference/dockerfile (format, parser directives, here-documents)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from kaapana_assets.errors import ConfigurationError

_DIRECTIVE = re.compile(r"#\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(.+?)\s*")
_FLAG = re.compile(r"--([a-z][a-z-]*)(?:=(\S*))?\s+")
_HEREDOC = re.compile(r"(?<![\w<\"'])<<(-?)([\"']?)([A-Za-z_]\w*)\2(?=\s|$)")
_WITH_FLAGS = {"FROM", "COPY", "ADD", "RUN", "HEALTHCHECK"}
_WITH_HEREDOCS = {"RUN", "COPY", "ADD"}


@dataclass(frozen=True)
class Heredoc:
    """A here-document: its name, its text, and whether variables in it are replaced."""

    name: str
    text: str
    expands: bool


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """One instruction.

    Attributes:
        keyword: the keyword in capitals.
        value: the text after the keyword and its flags, on one line.
        line: line number of its first line, from 1.
        flags: flags such as ``--chown=x``, by name; "" for a flag without a value.
        heredocs: its here-documents, in the order in which it names them.
    """

    keyword: str
    value: str
    line: int
    flags: Mapping[str, str] = field(default_factory=dict)
    heredocs: tuple[Heredoc, ...] = ()

    @property
    def short(self) -> str:
        """The instruction on one line of at most 100 characters, for messages."""
        text = " ".join([self.keyword, *(f"--{name}={value}" for name, value in self.flags.items()), self.value])
        text = " ".join(text.split())
        return text if len(text) <= 100 else f"{text[:97]}..."


@dataclass(frozen=True)
class Dockerfile:
    """The instructions of a Dockerfile, and its escape character."""

    instructions: tuple[Instruction, ...]
    escape: str = "\\"


def parse(text: str) -> Dockerfile:
    """Parse a Dockerfile.

    Raises:
        ConfigurationError: a here-document has no end, or the escape directive is wrong.
    """
    lines = text.removeprefix("\ufeff").splitlines()
    escape = _directives(lines).get("escape", "\\")
    if escape not in ("\\", "`"):
        raise ConfigurationError(f"Dockerfile: # escape={escape[:20]} must be \\ or `")
    return Dockerfile(tuple(_instructions(lines, escape)), escape)


def _directives(lines: Sequence[str]) -> dict[str, str]:
    """The parser directives, which are only allowed on the first lines."""
    found: dict[str, str] = {}
    for line in lines:
        match = _DIRECTIVE.fullmatch(line.strip())
        if match is None or match[1].lower() in found:
            break
        found[match[1].lower()] = match[2]
    return found


def _instructions(lines: Sequence[str], escape: str) -> Iterator[Instruction]:
    continued = re.compile(rf"(?<!{re.escape(escape)}){re.escape(escape)}[ \t]*$")
    at = 0
    while at < len(lines):
        first, text, continues = at, "", True
        while continues and at < len(lines):
            line = lines[at]
            at += 1
            # Comments and empty lines between continued lines are skipped and do not end the instruction.
            if line.lstrip().startswith("#") or not line.strip():
                continues = bool(text)
                continue
            if not text:
                first = at - 1
            continues = continued.search(line) is not None
            text += continued.sub("", line) if continues else line
        if text.strip():
            instruction = _instruction(text.strip(), first + 1)
            heredocs, at = _heredocs(instruction, lines, at)
            yield instruction if not heredocs else _with_heredocs(instruction, heredocs)


def _instruction(text: str, line: int) -> Instruction:
    keyword, value = (*text.split(maxsplit=1), "")[:2]
    flags: dict[str, str] = {}
    if keyword.upper() in _WITH_FLAGS:
        while match := _FLAG.match(value):
            # A RUN may have several --mount flags; none of them is used.
            flags[match[1]] = match[2] or ""
            value = value[match.end() :]
    return Instruction(keyword=keyword.upper(), value=value.strip(), line=line, flags=flags)


def _heredocs(instruction: Instruction, lines: Sequence[str], at: int) -> tuple[list[Heredoc], int]:
    found: list[Heredoc] = []
    if instruction.keyword not in _WITH_HEREDOCS:
        return found, at
    for indented, quote, name in _HEREDOC.findall(instruction.value):
        text: list[str] = []
        while True:
            if at >= len(lines):
                raise ConfigurationError(f"Dockerfile line {instruction.line}: the here-document {name} has no end")
            line = lines[at].lstrip("\t") if indented else lines[at]
            at += 1
            if line == name:
                break
            text.append(f"{line}\n")
        found.append(Heredoc(name, "".join(text), expands=not quote))
    return found, at


def _with_heredocs(instruction: Instruction, heredocs: list[Heredoc]) -> Instruction:
    return Instruction(
        keyword=instruction.keyword,
        value=_HEREDOC.sub(r"<<\3", instruction.value).strip(),
        line=instruction.line,
        flags=instruction.flags,
        heredocs=tuple(heredocs),
    )
