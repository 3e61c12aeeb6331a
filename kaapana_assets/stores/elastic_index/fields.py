"""From a document to what Elasticsearch holds of it.

================  ==========================================================================
``document``      the document as it came, the only part that is kept as ``_source``
``uid``           SeriesInstanceUID
``names``         every field that is there, and what it lies within
``words``         the words of each text value: ``:<field> the words .``
``text.<field>``  text values; ``text.<field>.lower-case`` is what is compared and sorted by
``number.<field>``  numbers
``date.<field>``  the days of dates and date-times, for histograms
``other``         text and numbers of fields beyond the limit of fields, see ``overflowing``
``changed``       when it was put
================  ==========================================================================

A field's text, numbers and dates lie apart, and names with dots are flat: no two documents can
disagree on the type of a field, so none is refused.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Collection, Iterable
from datetime import date
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

from kaapana_assets.stores.leaves import Value, folded, has_words, leaves, words
from kaapana_assets.stores.query.tree import FIELD_NAME

if TYPE_CHECKING:
    from kaapana_assets.dicom.attributes import Document

Indexed: TypeAlias = dict[str, Any]

LOWER_CASE = "lower-case"
"""Name of the sub-field that is compared; no field of a document has a hyphen in its name."""

END_OF_VALUE = "."
_TOKEN = re.compile(r"[^\W_](?:[^\W_]|[\u0300-\u036f])*")
_LONGEST_TOKEN = 200  # the server cuts words at 255
_FOLDED = "~"


def indexed(document: Document, *, changed_ms: int, unmapped: Callable[[Collection[str]], Collection[str]]) -> Indexed:
    """What the server gets for a document.

    Args:
        document: one of ``dicom.documents``, or any other JSON object.
        changed_ms: now, in milliseconds since 1970.
        unmapped: gives those of some fields that must go into ``other``.
    """
    found = leaves(document)
    fields = {name: values for name, values in found.items() if FIELD_NAME.fullmatch(name)}
    body: Indexed = {"document": document, "uid": document["SeriesInstanceUID"], "changed": changed_ms}
    text: dict[str, list[Value]] = {}
    number: dict[str, list[Value]] = {}
    days: dict[str, list[str]] = {}
    others: dict[str, list[str]] = {}
    beyond = unmapped(fields)
    for name, values in fields.items():
        if name in beyond:
            others.update(overflowing(name, values))
            continue
        texts = [value for value in values if isinstance(value, str)]
        if texts:
            text[name] = list(texts)
            dates = [day for day in map(_day, texts) if day]
            if dates:
                days[name] = dates
        if len(texts) < len(values):
            number[name] = [value for value in values if not isinstance(value, str)]
    for part, content in (("text", text), ("number", number), ("date", days), ("other", others)):
        if content:
            body[part] = content
    body["names"] = sorted(_with_parents(fields))
    body["words"] = [line for name, values in found.items() for line in _lines(name, values.values())]
    return body


def overflowing(name: str, values: Iterable[Value]) -> dict[str, list[str]]:
    """The entries of a field in ``other``: as it is for facets, and in the order of its values.

    A key of ``other`` has only texts: those that are numbers begin with "n", the others with "s".
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


@lru_cache(maxsize=100_000)
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


def _lines(name: str, values: Iterable[Value]) -> list[str]:
    before = marker(name) if FIELD_NAME.fullmatch(name) else ":"
    lines = []
    for value in values:
        if has_words(value):
            found = tokens(str(value))
            if found:
                lines.append(f"{before} {' '.join(found)} {END_OF_VALUE}")
    return lines


def _with_parents(names: Iterable[str]) -> set[str]:
    found = set(names)
    for name in names:
        parent = name.rpartition(".")[0]
        while parent and parent not in found:
            found.add(parent)
            parent = parent.rpartition(".")[0]
    return found


@lru_cache(maxsize=100_000)
def _day(text: str) -> str | None:
    """The day of a date or date-time; of ``2020-06`` its first."""
    if len(text) < 7 or text[4] != "-":
        return None
    day = text[:10] if len(text) >= 10 else f"{text}-01"
    try:
        return date.fromisoformat(day).isoformat()
    except ValueError:
        return None
