"""Text from outside, made fit to be shown: on a terminal, in HTML and JSON, in logs and in Dagster.

A file name may hold any bytes but "/" and NUL: bytes that are no UTF-8 (Python has them as lone
surrogates, which nothing can encode), control characters that steer a terminal, marks that turn the
direction of writing round. None of it is shown as it is, all of it stays readable.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

_ENDS_LINE = frozenset("\u2028\u2029")
_COLOURS = re.compile(r"(\x1b\[[0-9;]*m)")
_KEPT = frozenset("\u200c\u200d")  # joiners, which some scripts need within words


def shown(text: str | Path) -> str:
    r"""One line that every terminal, page and store takes, with escapes such as ``\xe9`` for what it cannot be."""
    said = str(text)
    if said.isascii() and said.isprintable():
        return said
    return "".join(_shown(char) for char in said)


def shown_lines(text: str) -> str:
    """The same for text of several lines, which stay, as do tabs."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if char in "\n\t" else _shown(char) for char in text)


def shown_output(line: str) -> str:
    """A line that a program printed, fit to be kept and shown: its tabs and colours stay."""
    if line.isprintable():
        return line
    return "".join(part if at % 2 else shown_lines(part) for at, part in enumerate(_COLOURS.split(line)))


def _shown(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"  # the byte itself, as Python's surrogateescape has it
    kind = unicodedata.category(char)
    if char in _ENDS_LINE or (kind in ("Cc", "Cf", "Cs", "Co") and char not in _KEPT):
        return char.encode("unicode_escape").decode("ascii")
    return char
