"""The values of a document and of a query as an index compares them, the same for every engine."""

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
# The tokenizer takes a run of ideographs for one word; each is one, as in other search engines.
_IDEOGRAPH = re.compile(r"([\u3041-\u309f\u3400-\u9fff\uf900-\ufaff])")
_LARGEST_INTEGER = 2**63 - 1
LAST_CHARACTER = "\U0010ffff"
# What may follow a date or time bound in a value that lies within what it names.
_CONTINUATIONS = (
    (re.compile(r"\d{4}(-\d\d)?"), "-"),
    (re.compile(r"\d{4}-\d\d-\d\d"), "t"),
    (re.compile(r"(\d{4}-\d\d-\d\dt)?\d\d:\d\d:\d\d"), "."),
    (re.compile(r"\d{4}-\d\d-\d\dt\d\d(:\d\d)?|\d\d:\d\d"), ":"),
)


def leaves(document: Document) -> dict[str, dict[Value, Value]]:
    """The different values of each field as stored, with each as it was; nested fields with dots.

    Of a field with more than 1,000 different values in one document, the first 1,000.
    """
    found: dict[str, dict[Value, Value]] = {}
    for key, part in document.items():
        # Most of a document is one short text or number for each key: not worth a generator.
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
    """The value as an index holds it: text composed, and of long text a beginning and a digest of the whole."""
    if isinstance(value, str):
        value = composed(value)
        if len(value) <= KEY_LENGTH:
            return value
        return f"{value[:KEY_LENGTH]}…{hashlib.sha256(value.encode()).hexdigest()[:16]}"
    return value if isinstance(value, float) or abs(value) <= _LARGEST_INTEGER else float(value)


def composed(text: str) -> str:
    """Text in Unicode's form NFC: letters and their accents as one character wherever there is one.

    Scanners and people write "é" as one character or as two; they mean the same name.
    """
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def folded(value: Value) -> Value:
    """What values are compared by: text without difference of letter case and form, numbers as they are."""
    return composed(composed(value).casefold()) if isinstance(value, str) else value


def as_number(text: str) -> float | None:
    """The number that a value of a query reads as."""
    if not _NUMBER.fullmatch(text):
        return None
    return float(text)


def has_words(value: Value) -> bool:
    """Whether a value is text to search in; times of day would only fill the vocabulary."""
    return isinstance(value, str) and not _TIME_OF_DAY.fullmatch(value)


def words(text: str) -> str:
    """The text as the tokenizer gets it: a UID is one word, an ideograph is one word."""
    joined = _UID.sub(lambda uid: uid[0].replace(".", "x"), str(folded(text)))
    return joined if joined.isascii() else _IDEOGRAPH.sub(r" \1 ", joined)


def end_of(bound: str) -> str:
    """The last text that a date or time bound names, without capitals; any other bound as it is."""
    for pattern, continuation in _CONTINUATIONS:
        if pattern.fullmatch(bound):
            return bound + continuation + LAST_CHARACTER
    return bound
