"""Expands quotes, escapes and variables in an instruction, as Docker's builder does.

Not used for RUN, CMD and ENTRYPOINT: the builder leaves their variables to the shell.

References:
    https://docs.docker.com/reference/dockerfile#environment-replacement
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from kaapana_assets.errors import ConfigurationError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MODIFIERS = (":-", ":+", ":?", "-", "+", "?")


def expand(text: str, variables: Mapping[str, str], *, escape: str = "\\") -> str:
    """The text as one word, without quotes and escapes, and with variables replaced.

    Raises:
        ConfigurationError: unterminated braces or quotes, an unknown modifier, a ``${name:?}`` without a value.
    """
    return "".join(_Reader(text, variables, escape).words(split=False))


def split_words(text: str, variables: Mapping[str, str], *, escape: str = "\\") -> list[str]:
    """The words of the text; blanks in quotes, after an escape or from a variable do not end a word.

    Raises:
        ConfigurationError: as ``expand`` raises it.
    """
    return _Reader(text, variables, escape).words(split=True)


class _Reader:
    def __init__(self, text: str, variables: Mapping[str, str], escape: str) -> None:
        self._text, self._variables, self._escape, self._at = text, variables, escape, 0

    def words(self, *, split: bool) -> list[str]:
        found: list[str] = []
        current: str | None = None
        while self._at < len(self._text):
            char = self._text[self._at]
            if split and char.isspace():
                self._at += 1
                if current is not None:
                    found.append(current)
                current = None
                continue
            current = (current or "") + self._piece(char)
        return found if current is None else [*found, current]

    def _piece(self, char: str) -> str:
        if char == "'":
            end = self._text.find("'", self._at + 1)
            if end < 0:
                raise self._error("a quote without an end")
            piece = self._text[self._at + 1 : end]
            self._at = end + 1
            return piece
        if char == '"':
            return self._quoted()
        if char == "$":
            return self._variable()
        if char == self._escape:
            self._at += 2
            return self._text[self._at - 1 : self._at]
        self._at += 1
        return char

    def _quoted(self) -> str:
        self._at += 1
        piece = ""
        while self._at < len(self._text):
            char = self._text[self._at]
            if char == '"':
                self._at += 1
                return piece
            if char == "$":
                piece += self._variable()
            elif char == self._escape and self._text[self._at + 1 : self._at + 2] in ('"', "$", self._escape):
                piece += self._text[self._at + 1]
                self._at += 2
            else:
                piece += char
                self._at += 1
        raise self._error("a quote without an end")

    def _variable(self) -> str:
        rest = self._text[self._at + 1 :]
        if rest.startswith("{"):
            return self._in_braces()
        match = _NAME.match(rest)
        self._at += 1 + (match.end() if match else 0)
        return self._variables.get(match[0], "") if match else "$"

    def _in_braces(self) -> str:
        end, depth = self._at + 2, 1
        while end < len(self._text) and depth:
            depth += {"{": 1, "}": -1}.get(self._text[end], 0)
            end += 1
        if depth:
            raise self._error("a ${ without its }")
        inside = self._text[self._at + 2 : end - 1]
        self._at = end
        match = _NAME.match(inside)
        modifier = next((sign for sign in _MODIFIERS if match and inside[match.end() :].startswith(sign)), "")
        if match is None or (match.end() != len(inside) and not modifier):
            raise self._error(f"${{{inside}}}, which is not supported")
        word = inside[match.end() + len(modifier) :]
        return self._modified(match[0], modifier, word)

    def _modified(self, name: str, modifier: str, word: str) -> str:
        value = self._variables.get(name)
        there = bool(value) if modifier.startswith(":") else value is not None
        if modifier.endswith("+"):
            return expand(word, self._variables, escape=self._escape) if there else ""
        if there or not modifier:
            return value or ""
        if modifier.endswith("?"):
            raise self._error(f"{name}, which has no value: {word}")
        return expand(word, self._variables, escape=self._escape)

    def _error(self, problem: str) -> ConfigurationError:
        return ConfigurationError(f"{self._text[:100]!r} has {problem}")
