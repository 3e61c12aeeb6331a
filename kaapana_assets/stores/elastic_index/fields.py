"""Turns a document into the JSON that Elasticsearch stores and indexes.

=================== ===========================================================================
``document``        the document itself, not searchable
``uid``             SeriesInstanceUID
``changed``         time of the last put
``words``           words of each text value after its markers: ``:<field> :<field> the words``
``text.<field>``    text values; ``text.<field>.lower-case`` is used to compare and to sort
``number.<field>``  numbers
``date.<field>``    the days of dates and date-times, for histograms
``other``           text and numbers of fields beyond the field limit, see ``overflowing``
=================== ===========================================================================

Text, numbers and dates of a field are separate server fields, and names with dots are not nested. So
no two documents can disagree on the type of a field, and the server refuses none.

The JSON is assembled from cached pieces, because most values occur in many documents.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING

from kaapana_assets.stores.index.values import Value, folded, has_words, leaves, stored, words
from kaapana_assets.stores.query.tree import FIELD_NAME

if TYPE_CHECKING:
    from kaapana_assets.dicom.attributes import Document

LOWER_CASE = "lower-case"
"""The sub-field that queries compare. No field of a document has a hyphen in its name."""

NAMES = "~"
"""The key of ``other`` that lists the names of its fields and of the sequences that contain them."""

WORDS_APART = 10_000
"""Position gap between two values in ``words``: more than the words of the longest text and its markers."""

_TOKEN = re.compile(r"[^\W_](?:[^\W_]|[\u0300-\u036f])*")
_LONGEST_TOKEN = 200  # the server cuts words at 255
_LONGEST_MARKS = 15_000  # characters: less than WORDS_APART words
_MOST_LINES = 200_000  # with WORDS_APART positions each, below the server's limit of 2**31
_FOLDED = "~"
_REMEMBERED = 50_000
_LONGEST_REMEMBERED = 100

_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def indexed(document: Document, *, uid: str, changed_ms: int, unmapped: Callable[[Set[str]], Set[str]]) -> str:
    """The JSON body that is sent to the server for a document.

    Args:
        document: made by ``dicom.documents``, or any other JSON object.
        uid: its SeriesInstanceUID.
        changed_ms: the current time, in milliseconds since 1970.
        unmapped: returns the given fields that must go into ``other``.
    """
    parts, rest = _short_values(document)
    beyond = unmapped(document.keys() - rest.keys())
    if beyond:
        parts, rest = _Parts(), {**document}
    others: dict[str, list[str]] = {}
    found = leaves(rest)
    beyond = unmapped(found.keys())
    for name, values in found.items():
        if name in beyond and FIELD_NAME.fullmatch(name):
            others.update(overflowing(name, values))
            parts.add_words(name, values.values())
        else:
            parts.add(name, values)
    if others:
        others[NAMES] = sorted(_with_parents(beyond))
        parts.other = f',"other":{_json(others)}'
    return f'{{"document":{_json(document)},"uid":"{uid}","changed":{changed_ms}{parts.as_json()}}}'


@dataclass
class _Parts:
    """JSON pieces by server field; ``words`` maps the words of a value to the markers of its fields."""

    text: list[str] = field(default_factory=list)
    number: list[str] = field(default_factory=list)
    date: list[str] = field(default_factory=list)
    words: dict[str, str] = field(default_factory=dict)
    other: str = ""

    def add(self, name: str, values: Mapping[Value, Value]) -> None:
        """Add all values of a field."""
        pieces = [_piece_of(name, kept, value) for kept, value in values.items()]
        for place, found in enumerate((self.text, self.number, self.date)):
            contents = [piece[place].partition(":")[2] for piece in pieces if piece[place]]
            if contents:
                found.append(f"{_key(name)}:[{','.join(contents)}]")
        self.add_words(name, values.values())

    def add_words(self, name: str, values: Iterable[Value]) -> None:
        """Add only the words of a field."""
        for value in values:
            text = _words(value)
            if text:
                self.words[text] = _joined(self.words.get(text), _mark(name))

    def as_json(self) -> str:
        """The rest of the body, after ``changed``."""
        named = (("text", self.text), ("number", self.number), ("date", self.date))
        parts = "".join([f',"{name}":{{{",".join(found)}}}' for name, found in named if found])
        # Words and markers contain nothing that JSON escapes.
        lines = islice([f'"{marks} {text}"' for text, marks in self.words.items()], _MOST_LINES)
        return f'{parts}{self.other},"words":[{",".join(lines)}]'


def _short_values(document: Document) -> tuple[_Parts, Document]:
    """The pieces of all fields with one short value, which are most of a document, and the other fields."""
    parts, rest = _Parts(), {}
    texts, numbers, days, words_of = parts.text, parts.number, parts.date, parts.words
    for key, value in document.items():
        kind = type(value)
        if not (kind is float or (kind is str and 0 < len(value) < _LONGEST_REMEMBERED) or kind is int):  # type: ignore[arg-type]
            rest[key] = value
            continue
        text, number, day, found, mark = _remembered(key, value)  # type: ignore[arg-type]
        if number:
            numbers.append(number)
        else:
            if text:
                texts.append(text)
            if found:
                known = words_of.get(found)
                words_of[found] = mark if known is None else _joined(known, mark)
            if day:
                days.append(day)
    return parts, rest


@lru_cache(maxsize=_REMEMBERED)
def _remembered(name: str, value: Value) -> tuple[str, str, str, str, str]:
    return (*_piece_of(name, stored(value), value), _words(value), _mark(name))


def _piece_of(name: str, kept: Value, value: Value) -> tuple[str, str, str]:
    """The JSON of one value for ``text``, ``number`` and ``date``; empty for a field that no query can name."""
    key = _key(name)
    if not key:
        return "", "", ""
    if not isinstance(value, str):
        return "", f"{key}:{_json(kept)}", ""
    day = _day(value)
    return f"{key}:{_json(kept)}", "", f'{key}:"{day}"' if day else ""


def _words(value: Value) -> str:
    return " ".join(tokens(str(value))) if has_words(value) else ""


def _joined(marks: str | None, mark: str) -> str:
    """The markers of the fields that share a text; beyond ``_LONGEST_MARKS``, further fields are left out."""
    if not marks:
        return mark
    return f"{marks} {mark}" if len(marks) < _LONGEST_MARKS else marks


@lru_cache(maxsize=_REMEMBERED)
def _key(name: str) -> str:
    return f'"{name}"' if FIELD_NAME.fullmatch(name) else ""


@lru_cache(maxsize=_REMEMBERED)
def _mark(name: str) -> str:
    return marker(name) if FIELD_NAME.fullmatch(name) else ":"


def overflowing(name: str, values: Iterable[Value]) -> dict[str, list[str]]:
    """The two entries of a field in ``other``: exact values for facets, and sortable ones for queries and order.

    All values are strings: those of numbers begin with "n", those of text with "s".
    """
    kept = [coded(value, exact=True) for value in values]
    return {name: kept, name + _FOLDED: sorted({coded(value, exact=False) for value in values})}


def other_key(name: str) -> str:
    """The server field that queries use to compare values in ``other``."""
    return f"other.{name}{_FOLDED}"


def coded(value: Value, *, exact: bool) -> str:
    """A value as a string for ``other``: exact to show it, else folded so that strings sort as their values do."""
    if isinstance(value, str):
        return "s" + (value if exact else str(folded(value)))
    if exact:
        return f"n{value!r}"
    bits = int.from_bytes(struct.pack(">d", float(value) + 0.0), "big")  # -0.0 is 0.0
    bits = ~bits & (2**64 - 1) if bits >> 63 else bits | 1 << 63
    return f"n{bits:016x}"


def tokens(text: str) -> tuple[str, ...]:
    """The words of a text; queries and documents are split in the same way."""
    found = _TOKEN.findall(words(text))
    if len(text) <= _LONGEST_TOKEN or all(len(token) <= _LONGEST_TOKEN for token in found):
        return tuple(found)
    starts = ((token, start) for token in found for start in range(0, len(token), _LONGEST_TOKEN))
    return tuple(token[start : start + _LONGEST_TOKEN] for token, start in starts)


def marker(name: str) -> str:
    """The marker that comes before the words of a field's value."""
    return f":{name}"


def _with_parents(names: Iterable[str]) -> set[str]:
    found = set(names)
    for name in names:
        parent = name.rpartition(".")[0]
        while parent and parent not in found:
            found.add(parent)
            parent = parent.rpartition(".")[0]
    return found


def _day(text: str) -> str | None:
    """The day of a date or date-time; for ``2020-06``, the first day of the month."""
    if len(text) < 7 or text[4] != "-":
        return None
    day = text[:10] if len(text) >= 10 else f"{text}-01"
    try:
        return date.fromisoformat(day).isoformat()
    except ValueError:
        return None
