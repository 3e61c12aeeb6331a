"""Splits the shell text of a RUN into commands, and parses installations by pip and uv.

Only chains of commands are supported, joined by ``&&``, ``||``, ``;``, pipes or line breaks. For loops,
conditions and command substitutions there is no result, and the caller reports a finding.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)
_PIP = re.compile(r"pip(3(\.\d+)?)?")
PYTHON = re.compile(r"python(3(\.\d+)?)?")
_UNEXPANDED = re.compile(r"\$\{|\$[A-Za-z_]")
_SEPARATORS = {"&&", "||", ";", "|", "&", "(", ")"}
_CONTROL = {"if", "then", "else", "elif", "fi", "for", "do", "done", "while", "until", "case", "esac", "{", "}"}
_PREFIXES = {"sudo", "exec", "command", "time", "set", "export"}

# Options of pip and uv that decide what is installed, with the number of their values.
_KEPT_OPTIONS = {
    "--no-deps": 0,
    "--pre": 0,
    "--upgrade": 0,
    "--no-binary": 1,
    "--only-binary": 1,
    "--index-url": 1,
    "--extra-index-url": 1,
    "--find-links": 1,
    "--no-index": 0,
    "--no-build-isolation": 0,
    "--require-hashes": 0,
}
_SHORT = {"-U": "--upgrade", "-i": "--index-url", "-f": "--find-links", "--default-index": "--index-url"}
# Options that only decide how it is installed, with the number of their values.
_DROPPED_OPTIONS = {
    "--no-cache-dir": 0,
    "--no-cache": 0,
    "--quiet": 0,
    "-q": 0,
    "-qq": 0,
    "--verbose": 0,
    "-v": 0,
    "--disable-pip-version-check": 0,
    "--no-input": 0,
    "--break-system-packages": 0,
    "--user": 0,
    "--system": 0,
    "--force-reinstall": 0,
    "--ignore-installed": 0,
    "-I": 0,
    "--prefer-binary": 0,
    "--no-warn-script-location": 0,
    "--no-compile": 0,
    "--compile": 0,
    "--compile-bytecode": 0,
    "--isolated": 0,
    "--no-python-version-warning": 0,
    "--use-pep517": 0,
    "--progress-bar": 1,
    "--root-user-action": 1,
    "--trusted-host": 1,
    "--timeout": 1,
    "--default-timeout": 1,
    "--retries": 1,
    "--cache-dir": 1,
    "--upgrade-strategy": 1,
    "--python": 1,
    "--proxy": 1,
    "--cert": 1,
    "--link-mode": 1,
    "--index-strategy": 1,
}


@dataclass(frozen=True, kw_only=True)
class PipInstall:
    """An installation by pip or uv.

    Attributes:
        packages: requirement specifiers, paths and URLs, unchanged.
        files: paths or URLs of requirements files.
        constraints: paths or URLs of constraints files.
        editable: paths of editable installations.
        options: options that decide what is installed, in long form, with their values.
        unknown: the first option that is not supported; None if there is none.
    """

    packages: tuple[str, ...]
    files: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    editable: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    unknown: str | None = None


def commands(text: str, variables: Mapping[str, str]) -> Iterator[list[str]] | None:
    """The words of each command in a shell text; None if the text is more than a chain of commands.

    Args:
        text: the shell text.
        variables: values of build variables; other variables stay as they are.
    """
    if "$(" in text or "`" in text:
        return None
    found: list[list[str]] = [[]]
    try:
        for line in text.splitlines():
            for token in _tokens(_substituted(line, variables)):
                if token in _SEPARATORS:
                    found.append([])
                else:
                    found[-1].append(token)
            found.append([])
    except ValueError:  # an unterminated quote
        return None
    plain = [words for words in map(_without_prefixes, found) if words]
    if any(words[0] in _CONTROL for words in plain):
        return None
    return iter(plain)


def is_expanded(words: Sequence[str]) -> bool:
    """Whether no word has a variable left that only a shell can expand."""
    return not any(_UNEXPANDED.search(word) for word in words)


def pip_install(words: Sequence[str]) -> PipInstall | None:
    """The installation by pip or uv that a command is; None for any other command."""
    rest = _after_pip(words)
    if rest is None or "install" not in rest:
        return None
    before, arguments = rest[: rest.index("install")], rest[rest.index("install") + 1 :]
    return _parsed([*before, *arguments])


def _after_pip(words: Sequence[str]) -> Sequence[str] | None:
    """The words after ``pip``, ``python -m pip``, ``uv pip`` or ``python -m uv pip``; None without pip."""
    name = posixpath.basename(words[0])
    if _PIP.fullmatch(name):
        return words[1:]
    if PYTHON.fullmatch(name) and "-m" in words[1:3]:
        after = words[words.index("-m") + 1 :]
        return _after_pip(after) if after and after[0] in ("pip", "uv") else None
    if name == "uv" and len(words) > 1 and words[1] == "pip":
        return words[2:]
    return None


def _parsed(arguments: Sequence[str]) -> PipInstall:
    packages: list[str] = []
    named: dict[str, list[str]] = {"-r": [], "-c": [], "-e": []}
    options: list[str] = []
    unknown = None
    remaining = list(arguments)
    while remaining:
        word = remaining.pop(0)
        option, value = _option(word)
        if option in ("-r", "-c", "-e"):
            named[option].append(value if value is not None else remaining.pop(0) if remaining else "")
        elif option is None:
            packages.append(word)
        elif option in _KEPT_OPTIONS:
            options.append(option)
            if _KEPT_OPTIONS[option]:
                options.append(value if value is not None else remaining.pop(0) if remaining else "")
        elif option in _DROPPED_OPTIONS:
            if _DROPPED_OPTIONS[option] and value is None and remaining:
                remaining.pop(0)
        else:
            unknown = unknown or option
    return PipInstall(
        packages=tuple(packages),
        files=tuple(named["-r"]),
        constraints=tuple(named["-c"]),
        editable=tuple(named["-e"]),
        options=tuple(options),
        unknown=unknown,
    )


def _option(word: str) -> tuple[str | None, str | None]:
    """An option in its canonical form, and its value if the word includes one."""
    if not word.startswith("-"):
        return None, None
    name, equals, value = word.partition("=")
    long = {"--requirement": "-r", "--requirements": "-r", "--constraint": "-c", "--constraints": "-c"}
    name = {**long, "--editable": "-e", **_SHORT}.get(name, name)
    if not name.startswith("--") and name[:2] in ("-r", "-c", "-e") and len(name) > 2:
        return name[:2], word[2:]
    return name, value if equals else None


def _tokens(line: str) -> list[str]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars="();<>|&")
    lexer.whitespace_split = True
    lexer.commenters = ""
    return list(lexer)


def _without_prefixes(words: Sequence[str]) -> list[str]:
    """A command without redirections, leading assignments and prefixes such as ``sudo``."""
    found: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word.startswith((">", "<")):
            if found and found[-1].isdigit():
                found.pop()
            skip = True
        else:
            found.append(word)
    while found and (_ASSIGNMENT.fullmatch(found[0]) or (found[0] in _PREFIXES and len(found) > 1)):
        if found[0] in ("set", "export"):
            return []
        found.pop(0)
    return found


def _substituted(line: str, variables: Mapping[str, str]) -> str:
    return _VARIABLE.sub(lambda found: variables.get(found[1] or found[2], found[0]), line)
