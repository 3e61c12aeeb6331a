"""The one line that says why something failed, picked from all that a process printed.

The same choice for the command line, reports, Dagster and the health page. How a process ended is in
``endings``; nothing here knows of runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from kaapana_assets.shown import shown

INDENT = "  "
"""Put before each line of output in a message, which so tells it from the platform's own words."""

_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07]*\x07")
_BARE = re.compile(r"^[\s│╰╭├└─▶\u00d7✗*>|-]+(?=\S)")  # what installers and test runners draw before a line
_PROGRESS = re.compile(
    r"\d+ ?%\s*\||\d(?:it|s|B|MB|kB|batch|file|slice)/(?:s|it)\b|\[[#=>.\s-]{5,}\]|^\s*\d{1,3} ?%\s*$"
)
_FRAME = re.compile(r'^[\s|+]+File ".*", line \d+')
_PYTHON = re.compile(r"^[A-Za-z_][\w.]*(?::(?:\s.*)?)?$")
_EXCEPTIONS = re.compile(
    r"^\s*(?:"
    r"what\(\):\s*\S"  # C++, after "terminate called after throwing"
    r"|Description: .*error"  # ITK
    r"|Caused by: |Exception in thread |panic: |Error in |thread '.*' panicked at "
    r"|[A-Za-z_][\w.$:]*(?:Error|Exception): "
    r")",
    re.IGNORECASE,
)
_FAILURE = re.compile(
    r"\b(?:error|fail\w*|refus\w*|cannot|can't|could not|couldn't|unable|invalid|missing|broken|unsupported|"
    r"not (?:found|supported|readable|valid|implemented)|no such|denied|corrupt\w*|abort\w*|fatal|critical)\b",
    re.IGNORECASE,
)
_AFTERWARDS = re.compile(r"^(?:Aborted|Execution halted|Exiting|make: \*\*\*)", re.IGNORECASE)
_OPERATOR_ENDED = re.compile(r"^operator \S+ of \S+ \(image .*\) ended with exit code (\d+)$")
_ENDED = re.compile(r"exit code \d+$")
_WRAPPED = re.compile(r"(?<=\S)\n[ \t]+")  # Dagster breaks its own messages into lines and indents what follows


def telling_line(output: Sequence[str], *, series: str = "") -> str:
    """The line of a process' output that says most about why it failed; empty if none says anything.

    In this order, the last of each kind: an exception that names the series, a line that speaks of a
    failure and names it, an exception, any line that names the series, any line at all.

    Args:
        output: the last lines that it printed.
        series: SeriesInstanceUID that the reason is for; "" where it is for no single one.
    """
    lines = [_ANSI.sub("", line).expandtabs().rstrip() for line in output]
    exceptions = dict(_exceptions(lines))
    of_frames = set(_of_frames(lines))
    said = [at for at, line in enumerate(lines) if at not in of_frames and not _is_decoration(line)]
    named = [at for at in said if series and _names(lines[at], series)]
    choices: list[Sequence[int]] = [
        [at for at in exceptions if at in named],
        [at for at in named if _FAILURE.search(lines[at])],
        list(exceptions),
        named,
        [at for at in said if not _AFTERWARDS.match(lines[at])],
        said,
    ]
    at = next((found[-1] for found in choices if found), None)
    if at is None:
        return ""
    return shown(exceptions.get(at) or _BARE.sub("", lines[at]).strip())


def short_reason(reason: str, *, series: str = "") -> str:
    """One line of a message of the platform: why, where it quotes an operator's output.

    Args:
        reason: a message, its quoted output indented as ``endings.tail`` does.
        series: SeriesInstanceUID that the reason is for, if any.
    """
    head, *rest = reason.strip().splitlines() or [""]
    said = telling_line([line.removeprefix(INDENT) for line in rest if line.startswith(INDENT)], series=series)
    operator_ended = _OPERATOR_ENDED.match(head)
    if operator_ended and said:
        return f"{said} (exit code {operator_ended[1]})"
    if said and _ENDED.search(head):
        return f"{head}: {said}"
    if said and head.startswith("operator "):
        return f"{head}; it last said: {said}"
    return next((line.strip() for line in _WRAPPED.sub(" ", reason).splitlines() if line.strip()), "")


def _of_frames(lines: Sequence[str]) -> Iterator[int]:
    """The places of the frames of tracebacks with the source they show, which may name anything."""
    in_frame = False
    for at, line in enumerate(lines):
        in_frame = bool(_FRAME.match(line)) or (in_frame and line.startswith((" ", "\t")))
        if in_frame:
            yield at


def _exceptions(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """The places of lines that tell an exception, and what they say."""
    in_traceback = False
    for at, line in enumerate(lines):
        if _FRAME.match(line):
            in_traceback = True
            continue
        is_last_of_traceback = in_traceback and bool(line) and not line[0].isspace()
        in_traceback = in_traceback and not is_last_of_traceback
        # In a group each line of a traceback has bars before it.
        bare = _BARE.sub("", line) if line.lstrip().startswith(("|", "+")) else line
        if (is_last_of_traceback and _PYTHON.match(line)) or _EXCEPTIONS.match(bare):
            yield at, _with_next(bare, lines[at + 1 :])


def _with_next(line: str, following: Sequence[str]) -> str:
    """The line; one that ends before it says why, with the next that does."""
    line = re.sub(r"^what\(\):\s*", "", line.strip())
    if not line.endswith((":", ": ''", "panicked at")):
        return line
    after = next((each.strip() for each in following if not _is_decoration(each)), "")
    return f"{line} {after}".strip()


def _is_decoration(line: str) -> bool:
    return not any(character.isalnum() for character in line) or bool(_PROGRESS.search(line))


def _names(line: str, series: str) -> bool:
    return re.search(rf"(?<![\d.]){re.escape(series)}(?![\d]|\.\d)", line) is not None
