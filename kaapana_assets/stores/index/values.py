"""How an index compares the values of documents and queries; the same for every engine."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kaapana_assets.dicom.attributes import JSON, Document


Value = str | int | float

VALUES_PER_FIELD = 1000
KEY_LENGTH = 200

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_TIME_OF_DAY = re.compile(r"\d\d:\d\d:\d\d(\.\d+)?")
_UID = re.compile(r"\d+(?:\.\d+){2,}")
# The tokenizer takes a run of ideographs for one word; here each is a word, as in other search engines.
_IDEOGRAPH = re.compile(r"([\u3041-\u309f\u3400-\u9fff\uf900-\ufaff])")
_LARGEST_INTEGER = 2**63 - 1
LAST_CHARACTER = "\U0010ffff"
# Forms of date and time bounds, and the character that follows each in a longer value of the same period.
_CONTINUATIONS = (
    (re.compile(r"\d{4}(-\d\d)?"), "-"),
    (re.compile(r"\d{4}-\d\d-\d\d"), "t"),
    (re.compile(r"(\d{4}-\d\d-\d\dt)?\d\d:\d\d:\d\d"), "."),
    (re.compile(r"\d{4}-\d\d-\d\dt\d\d(:\d\d)?|\d\d:\d\d"), ":"),
)


def leaves(document: Document) -> dict[str, dict[Value, Value]]:
    """The distinct values of each field, as a mapping of stored form to original; nested fields have dots.

    Only the first 1,000 distinct values of a field are returned.
    """
    found: dict[str, dict[Value, Value]] = {}
    for key, part in document.items():
        # Most fields have one short text or number, for which a generator would cost too much.
        kind = type(part)
        if (kind is str and 0 < len(part) <= KEY_LENGTH and part.isascii()) or kind is float:  # type: ignore[arg-type, union-attr]
            found.setdefault(key, {})[part] = part  # type: ignore[index, assignment]
            continue
        for name, value in _walk(part, key):
            values = found.setdefault(name, {})
            if len(values) < VALUES_PER_FIELD:
                values[stored(value)] = value
    return found


def _walk(value: JSON, name: str) -> Iterator[tuple[str, Value]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _walk(part, f"{name}.{key}")
    elif isinstance(value, list):
        for part in value:
            yield from _walk(part, name)
    elif isinstance(value, bool):
        yield name, str(value).lower()
    elif value is not None and value != "":
        yield name, value


def stored(value: Value) -> Value:
    """The value as an index holds it: text in NFC; long text as its beginning and a digest of the whole."""
    if isinstance(value, str):
        value = composed(value)
        if len(value) <= KEY_LENGTH:
            return value
        return f"{value[:KEY_LENGTH]}…{hashlib.sha256(value.encode()).hexdigest()[:16]}"
    return value if isinstance(value, float) or abs(value) <= _LARGEST_INTEGER else float(value)


def composed(text: str) -> str:
    """Text in Unicode's normal form NFC: a letter and its accent are one character where Unicode has one.

    Scanners and people write "é" as one character or as two; they mean the same name.
    """
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def folded(value: Value) -> Value:
    """The value used in comparisons: text in NFC and without letter case, numbers unchanged."""
    return composed(composed(value).casefold()) if isinstance(value, str) else value


def as_number(text: str) -> float | None:
    """The number that the text of a query stands for; None if it is no number."""
    if not _NUMBER.fullmatch(text):
        return None
    return float(text)


def has_words(value: Value) -> bool:
    """Whether a value is text with searchable words; times of day are not, they would only fill the vocabulary."""
    return isinstance(value, str) and not _TIME_OF_DAY.fullmatch(value)


def words(text: str) -> str:
    """The text for the tokenizer, in which a UID is one word and each ideograph is one word."""
    joined = _UID.sub(lambda uid: uid[0].replace(".", "x"), str(folded(text)))
    return joined if joined.isascii() else _IDEOGRAPH.sub(r" \1 ", joined)


def end_of(bound: str) -> str:
    """The last text of the period that a lower-case date or time bound names; any other bound unchanged."""
    for pattern, continuation in _CONTINUATIONS:
        if pattern.fullmatch(bound):
            return bound + continuation + LAST_CHARACTER
    return bound
