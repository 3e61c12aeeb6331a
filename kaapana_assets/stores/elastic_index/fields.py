"""From a document to what Elasticsearch holds of it.

=================== ===========================================================================
``document``        the document as it came, the only part that is kept as ``_source``
``uid``             SeriesInstanceUID
``changed``         when it was put
``words``           the words of each text value: ``:<field> the words``
``text.<field>``    text values; ``text.<field>.lower-case`` is what is compared and sorted by
``number.<field>``  numbers
``date.<field>``    the days of dates and date-times, for histograms
``other``           text and numbers of fields beyond the limit of fields, see ``overflowing``
=================== ===========================================================================

A field's text, numbers and dates lie apart, and names with dots are flat: no two documents can
disagree on the type of a field, so none is refused.

The JSON is put together from pieces that are remembered, because most values come again and again.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Iterable, Mapping, Set
from datetime import date
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

from kaapana_assets.stores.leaves import Value, folded, has_words, leaves, words
from kaapana_assets.stores.query.tree import FIELD_NAME

if TYPE_CHECKING:
    from kaapana_assets.dicom.attributes import Document

LOWER_CASE = "lower-case"
"""Name of the sub-field that is compared; no field of a document has a hyphen in its name."""

NAMES = "~"
"""The key of ``other`` with the names of its fields and of what they lie within."""

WORDS_APART = 10_000
"""Positions between two values in ``words``: more than the words of the longest text."""

_TOKEN = re.compile(r"[^\W_](?:[^\W_]|[\u0300-\u036f])*")
_LONGEST_TOKEN = 200  # the server cuts words at 255
_MOST_LINES = 200_000  # times WORDS_APART, the server counts positions to 2**31
_FOLDED = "~"
_REMEMBERED = 50_000
_LONGEST_REMEMBERED = 100

_Piece: TypeAlias = tuple[str, str, str, str]

_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def indexed(document: Document, *, uid: str, changed_ms: int, unmapped: Callable[[Set[str]], Set[str]]) -> str:
    """What the server gets for a document, as JSON.

    Args:
        document: one of ``dicom.documents``, or any other JSON object.
        uid: its SeriesInstanceUID.
        changed_ms: now, in milliseconds since 1970.
        unmapped: gives those of some fields that must go into ``other``.
    """
    found = leaves(document)
    text: list[str] = []
    number: list[str] = []
    days: list[str] = []
    lines: list[str] = []
    beyond = unmapped(found.keys())
    others = {}
    for name, values in found.items():
        if len(values) == 1 and name not in beyond:
            ((kept, value),) = values.items()
            short = type(value) is not str or len(value) < _LONGEST_REMEMBERED
            piece = _piece(name, kept, value) if short else _several(name, values)
        elif name in beyond and FIELD_NAME.fullmatch(name):
            others.update(overflowing(name, values))
            piece = ("", "", "", _several(name, values)[3])
        else:
            piece = _several(name, values)
        of_text, of_number, of_days, of_words = piece
        if of_text:
            text.append(of_text)
        if of_words:
            lines.append(of_words)
        if of_number:
            number.append(of_number)
        if of_days:
            days.append(of_days)
    if others:
        others[NAMES] = sorted(_with_parents(beyond))
    parts = [f'"document":{_json(document)},"uid":"{uid}","changed":{changed_ms}']
    for part, content in (("text", text), ("number", number), ("date", days)):
        if content:
            parts.append(f'"{part}":{{{",".join(content)}}}')
    if others:
        parts.append(f'"other":{_json(others)}')
    return f'{{{",".join(parts)},"words":[{",".join(islice(lines, _MOST_LINES))}]}}'


def _several(name: str, values: Mapping[Value, Value]) -> _Piece:
    """JSON of a field for ``text``, ``number``, ``date`` and ``words``; empty if it has none."""
    texts = [value for value in values if isinstance(value, str)]
    lines = [line for value in values.values() if (line := _line(name, value))]
    joined = ",".join(map(_json, lines))
    if not FIELD_NAME.fullmatch(name):
        return "", "", "", joined
    numbers = [value for value in values if not isinstance(value, str)]
    days = [day for day in map(_day, texts) if day]
    key = _json(name)
    text, number, dates = (f"{key}:{_json(content)}" if content else "" for content in (texts, numbers, days))
    return text, number, dates, joined


@lru_cache(maxsize=_REMEMBERED)
def _piece(name: str, kept: Value, value: Value) -> _Piece:
    return _several(name, {kept: value})


def overflowing(name: str, values: Iterable[Value]) -> dict[str, list[str]]:
    """The entries of a field in ``other``: as it is for facets, and in the order of its values.

    All are texts: what are numbers begin with "n", the others with "s".
    """
    kept = [coded(value, exact=True) for value in values]
    return {name: kept, name + _FOLDED: sorted({coded(value, exact=False) for value in values})}


def other_key(name: str) -> str:
    """The field of the server in which values of ``other`` are compared."""
    return f"other.{name}{_FOLDED}"


def coded(value: Value, *, exact: bool) -> str:
    """A value as ``other`` holds it: exact for showing it, else so that texts are in the order of values."""
    if isinstance(value, str):
        return "s" + (value if exact else str(folded(value)))
    if exact:
        return f"n{value!r}"
    bits = int.from_bytes(struct.pack(">d", float(value) + 0.0), "big")  # -0.0 is 0.0
    bits = ~bits & (2**64 - 1) if bits >> 63 else bits | 1 << 63
    return f"n{bits:016x}"


def tokens(text: str) -> tuple[str, ...]:
    """The words of a text, as a query and a document have them."""
    found = _TOKEN.findall(words(text))
    if all(len(token) <= _LONGEST_TOKEN for token in found):
        return tuple(found)
    starts = ((token, start) for token in found for start in range(0, len(token), _LONGEST_TOKEN))
    return tuple(token[start : start + _LONGEST_TOKEN] for token, start in starts)


def marker(name: str) -> str:
    """The word that stands before those of a value of a field."""
    return f":{name}"


def _line(name: str, value: Value) -> str:
    found = tokens(str(value)) if has_words(value) else ()
    return f"{marker(name) if FIELD_NAME.fullmatch(name) else ':'} {' '.join(found)}" if found else ""


def _with_parents(names: Iterable[str]) -> set[str]:
    found = set(names)
    for name in names:
        parent = name.rpartition(".")[0]
        while parent and parent not in found:
            found.add(parent)
            parent = parent.rpartition(".")[0]
    return found


def _day(text: str) -> str | None:
    """The day of a date or date-time; of ``2020-06`` its first."""
    if len(text) < 7 or text[4] != "-":
        return None
    day = text[:10] if len(text) >= 10 else f"{text}-01"
    try:
        return date.fromisoformat(day).isoformat()
    except ValueError:
        return None
