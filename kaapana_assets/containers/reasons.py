"""Picks the one line of a process' output that says why it failed.

The command line, reports, Dagster and the health page all show this line. ``outcomes`` translates exit
codes; nothing here knows about runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from kaapana_assets.shown import shown

INDENT = "  "
"""Precedes each line of an operator's output in a message, to set it off from the platform's own words."""

_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07]*\x07")
_BARE = re.compile(r"^[\s│╰╭├└─▶\u00d7✗*>|-]+(?=\S)")  # drawn by installers and test runners
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
_WRAPPED = re.compile(r"(?<=\S)\n[ \t]+")  # Dagster wraps its own messages and indents the continuation


def telling_line(output: Sequence[str], *, series: str = "") -> str:
    """Return the line of a process' output that best explains its failure; empty if no line does.

    The kinds of lines, best first: an exception that names the series, a failure that names the series, an
    exception, any line that names the series, any line. Of the best kind found, the last line is returned.

    Args:
        output: the last lines of the process' output.
        series: SeriesInstanceUID that failed; "" if the failure concerns no single series.
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
    """Shorten a message of the platform to one line, with the telling line of the output that it quotes.

    Args:
        reason: a message, in which quoted output is indented as by ``outcomes.tail``.
        series: SeriesInstanceUID that failed; "" if the failure concerns no single series.
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
    """Yield the indices of traceback frames and their source lines, whose text may name anything."""
    in_frame = False
    for at, line in enumerate(lines):
        in_frame = bool(_FRAME.match(line)) or (in_frame and line.startswith((" ", "\t")))
        if in_frame:
            yield at


def _exceptions(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yield the index and the text of each line that reports an exception."""
    in_traceback = False
    for at, line in enumerate(lines):
        if _FRAME.match(line):
            in_traceback = True
            continue
        is_last_of_traceback = in_traceback and bool(line) and not line[0].isspace()
        in_traceback = in_traceback and not is_last_of_traceback
        # In the traceback of an exception group, bars precede each line.
        bare = _BARE.sub("", line) if line.lstrip().startswith(("|", "+")) else line
        if (is_last_of_traceback and _PYTHON.match(line)) or _EXCEPTIONS.match(bare):
            yield at, _with_next(bare, lines[at + 1 :])


def _with_next(line: str, following: Sequence[str]) -> str:
    """Return the line; if it breaks off before the reason, append the next meaningful line."""
    line = re.sub(r"^what\(\):\s*", "", line.strip())
    if not line.endswith((":", ": ''", "panicked at")):
        return line
    after = next((each.strip() for each in following if not _is_decoration(each)), "")
    return f"{line} {after}".strip()


def _is_decoration(line: str) -> bool:
    return not any(character.isalnum() for character in line) or bool(_PROGRESS.search(line))


def _names(line: str, series: str) -> bool:
    return re.search(rf"(?<![\d.]){re.escape(series)}(?![\d]|\.\d)", line) is not None
