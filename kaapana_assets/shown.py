"""Escapes untrusted text for display: on a terminal, in HTML and JSON, in logs and in Dagster.

A file name may hold any bytes but "/" and NUL: bytes that are not UTF-8 (lone surrogates in Python, which cannot be
encoded), control characters that steer a terminal, marks that reverse the direction of writing. All of them are
escaped, and the text stays readable.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

_ENDS_LINE = frozenset("\u2028\u2029")
_COLOURS = re.compile(r"(\x1b\[[0-9;]*m)")
_KEPT = frozenset("\u200c\u200d")  # zero-width joiners, which some scripts need within words


def shown(text: str | Path) -> str:
    r"""Return the text as one printable line; what cannot be displayed becomes an escape such as ``\xe9``."""
    said = str(text)
    if said.isascii() and said.isprintable():
        return said
    return "".join(_shown(char) for char in said)


def shown_lines(text: str) -> str:
    """Return text of several lines escaped like ``shown``, but with its line feeds and tabs."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if char in "\n\t" else _shown(char) for char in text)


def shown_output(line: str) -> str:
    """Return a line that a program printed, escaped like ``shown``, but with its tabs and colours."""
    if line.isprintable():
        return line
    return "".join(part if at % 2 else shown_lines(part) for at, part in enumerate(_COLOURS.split(line)))


def _shown(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"  # the byte that surrogateescape stands for
    kind = unicodedata.category(char)
    if char in _ENDS_LINE or (kind in ("Cc", "Cf", "Cs", "Co") and char not in _KEPT):
        return char.encode("unicode_escape").decode("ascii")
    return char
