"""Converts DICOM attributes to JSON, each under its keyword and with its natural type.

Nothing raises here: an attribute that breaks the rules of its VR is kept as text, or its name is
added to ``Losses.unreadable``. ``documents`` combines the attributes of all instances of a series.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, time
from decimal import Decimal
from typing import TypeAlias

from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from kaapana_assets.dicom.headers import PYDICOM_ERRORS

JSON: TypeAlias = str | int | float | bool | list["JSON"] | dict[str, "JSON"] | None
Document: TypeAlias = dict[str, JSON]

TEXT_LIMIT = 8192
VALUES_LIMIT = 256

EXACT_INTEGERS = 2**53
"""Indices compare doubles, which hold every integer exactly up to this one."""

_BULK_VRS = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "OB or OW"))
_DATE = re.compile(r"(\d{4})[.-]?(\d{2})[.-]?(\d{2})")
_TIME = re.compile(r"(\d{2})(?::?(\d{2})(?::?(\d{2})(?:\.(\d{1,6}))?)?)?")
_DATETIME = re.compile(r"(\d{4})(?:(\d{2})(?:(\d{2})(\d{2}(?:\d{2}(?:\d{2}(?:\.\d{1,6})?)?)?)?)?)?([+-]\d{4})?")
_OFFSET_MINUTES = (-12 * 60, 14 * 60)  # PS3.5 6.2
# ASCII only: Python's own conversions also accept "1_000" and digits of other scripts.
_INTEGER_STRING = re.compile(r"[+-]?[0-9]+")
_FRACTION_STRING = re.compile(r"[+-]?([0-9]+\.[0-9]*|\.[0-9]+)")
_DECIMAL_STRING = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
_EXACT_DIGITS = 15  # a double keeps this many digits of any decimal
_AGE = re.compile(r"(\d{1,3})([DWMY])")
_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}


@dataclass
class Losses:
    """Dotted keywords of the attributes that were truncated, and of those that could not be read."""

    truncated: set[str] = field(default_factory=set)
    unreadable: set[str] = field(default_factory=set)


def dataset_json(ds: Dataset, losses: Losses, *, prefix: str = "") -> Document:
    """All attributes of a dataset except empty ones and bulk binary data.

    Private and unknown attributes, and repeated overlays or curves, are keyed by their tag as eight
    hex digits. Text is truncated to 8,192 characters and a list to 256 values; sequences are complete.

    Args:
        ds: a header or a sequence item.
        losses: collects the names of truncated and unreadable attributes.
        prefix: prepended to those names, including the dot.
    """
    document: Document = {}
    for tag in sorted(ds.keys()):
        if tag.element == 0:
            continue  # a group length describes the encoding, not the object
        name = keyword_for_tag(tag) if not tag.is_private else ""
        if not name or name in document:
            name = f"{tag:08X}"
        document.update(attribute_json(ds, tag, losses, name=name, path=prefix + name))
    return document


def attribute_json(ds: Dataset, tag: BaseTag, losses: Losses, *, name: str, path: str) -> Document:
    """One attribute: ``{name: value}``, ``{name_text: text}`` if malformed, ``{}`` if empty."""
    item = ds.get_item(tag)
    if isinstance(item, RawDataElement) and _is_cut(item):
        losses.unreadable.add(path)
        return {}
    try:
        element = ds[tag]
        return _element_json(element, losses, name=name, path=path)
    except PYDICOM_ERRORS:
        raw = item.value if isinstance(item, RawDataElement) else None
        text = _printable(raw) if isinstance(raw, bytes) else None
        if text:
            return {f"{name}_text": _cut(text, losses, path)}
        losses.unreadable.add(path)
        return {}


def _element_json(element: DataElement, losses: Losses, *, name: str, path: str) -> Document:
    vr, value = element.VR, element.value
    if vr in _BULK_VRS or value is None:
        return {}
    if vr == "SQ":
        items: list[JSON] = [dataset_json(item, losses, prefix=path + ".") for item in value]
        return {name: items} if items else {}
    if isinstance(value, bytes):
        value = _from_bytes(value, vr)
    many = isinstance(value, Sequence) and not isinstance(value, str)
    values = [part for part in (value if many else [value]) if part is not None and str(part).strip("\0 ") != ""]
    if len(values) > VALUES_LIMIT:
        losses.truncated.add(path)
        values = values[:VALUES_LIMIT]
    convert = _CONVERTERS.get(vr)
    texts = [] if convert is _binary_float else [_cut(_clean(_text(part)), losses, path) for part in values]
    if convert is None:
        return _named(name, texts)
    converted = [convert(part) for part in values]
    if any(part is None for part in converted):
        return _named(f"{name}_text", [_cut(_clean(_text(part)), losses, path) for part in values])
    document = _named(name, converted)
    if vr == "AS":
        document.update(_named(f"{name}_text", texts))
    return document


def _named(name: str, values: Iterable[JSON]) -> Document:
    kept = list(values)
    if not kept:
        return {}
    return {name: kept if len(kept) > 1 else kept[0]}


def _is_cut(item: RawDataElement) -> bool:
    """Whether the bytes end within a tag; pydicom would silently drop that tag."""
    return item.VR == "AT" and isinstance(item.value, bytes) and len(item.value) % 4 != 0


def _text(value: object) -> str:
    """A value as written in the file: pydicom's IS and DS numbers keep their original text."""
    text = getattr(value, "original_string", None)
    return text if isinstance(text, str) else str(value)


def _from_bytes(value: bytes, vr: str) -> object:
    """Numbers if the VR is ambiguous; text if the bytes are text, as in private attributes; else None."""
    if vr.startswith("US or") or vr == "US":
        return list(struct.unpack(f"<{len(value) // 2}H", value))
    return _printable(value)


def _printable(value: bytes) -> str | None:
    """The bytes as text, or None if they are not printable UTF-8."""
    try:
        text = value.rstrip(b"\0 ").decode("utf-8")
    except UnicodeDecodeError:
        return None
    return text if all(char.isprintable() or char in "\r\n\t\f" for char in text) else None


def _clean(text: str) -> str:
    """The text without NUL, lone surrogates and padding, so that every store can hold it."""
    return text.replace("\0", "").strip(" ").encode("utf-8", "replace").decode("utf-8")


def _cut(text: str, losses: Losses, path: str) -> str:
    if len(text) <= TEXT_LIMIT:
        return text
    losses.truncated.add(path)
    return text[:TEXT_LIMIT]


def _binary_integer(value: object) -> int | None:
    """The integer, or None if it is not one or is too large for an index to compare exactly."""
    try:
        number = int(value)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        return None
    return number if abs(number) <= EXACT_INTEGERS else None


def _binary_float(value: object) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _integer_string(value: object) -> int | float | None:
    """The number of an IS value; a fraction, which the VR forbids, is kept as a float."""
    text = _text(value).strip()
    if _INTEGER_STRING.fullmatch(text):
        return _binary_integer(text)
    if not _FRACTION_STRING.fullmatch(text):
        return None
    number = _double(text)
    return int(number) if number is not None and number.is_integer() else number


def _decimal_string(value: object) -> float | None:
    """The number of a DS value."""
    text = _text(value).strip("\0 ")
    return _double(text) if _DECIMAL_STRING.fullmatch(text) else None


def _double(text: str) -> float | None:
    """The double that keeps all digits of the decimal, or None if there is none, as beyond 1.8e308."""
    number = float(text)
    if len(text) <= _EXACT_DIGITS and "e" not in text.lower():
        return number
    if not math.isfinite(number):
        return None
    given = Decimal(text)
    digits = len(given.as_tuple().digits)
    return number if Decimal(f"{number:.{digits - 1}e}") == given else None


def _date(value: object) -> str | None:
    """``YYYY-MM-DD`` of a DA value; accepts the dots of ACR-NEMA too (PS3.5 6.2)."""
    match = _DATE.fullmatch(str(value).strip())
    if match is None:
        return None
    try:
        return date(*(int(part) for part in match.groups())).isoformat()
    except ValueError:
        return None


def _time(value: object) -> str | None:
    """``HH:MM:SS.ffffff`` of a TM value; omitted components are zero."""
    match = _TIME.fullmatch(str(value).strip())
    if match is None:
        return None
    hour, minute, second, fraction = match.groups(default="0")
    try:
        return time(int(hour), int(minute), int(second), int(fraction.ljust(6, "0"))).isoformat("microseconds")
    except ValueError:
        return None


def _datetime(value: object) -> str | None:
    """ISO 8601 of a DT value, with the precision and the offset that the value has."""
    match = _DATETIME.fullmatch(str(value).strip())
    if match is None:
        return None
    year, month, day, clock, offset = match.groups()
    if _date(f"{year}{month or '01'}{day or '01'}") is None:
        return None
    text = "-".join(part for part in (year, month, day) if part)
    if clock is None:
        return text
    time_of_day = _time(clock)
    if time_of_day is None or (offset and not _is_offset(offset)):
        return None
    return f"{text}T{time_of_day}" + (f"{offset[:3]}:{offset[3:]}" if offset else "")


def _is_offset(text: str) -> bool:
    """Whether ``+HHMM`` is a possible offset from UTC."""
    minutes = int(text[0] + "1") * (60 * int(text[1:3]) + int(text[3:]))
    lowest, highest = _OFFSET_MINUTES
    return lowest <= minutes <= highest and int(text[3:]) < 60


def _age(value: object) -> float | None:
    """An AS value in years: a month is a twelfth of a year, a year has 365.25 days."""
    match = _AGE.fullmatch(str(value).strip())
    return round(int(match[1]) * _YEARS[match[2]], 4) if match else None


def _tag(value: object) -> str | None:
    number = _binary_integer(value)
    return None if number is None else f"{number:08X}"


_CONVERTERS: dict[str, Callable[[object], JSON]] = {
    "AS": _age,
    "AT": _tag,
    "DA": _date,
    "DS": _decimal_string,
    "DT": _datetime,
    "FD": _binary_float,
    "FL": _binary_float,
    "IS": _integer_string,
    "SL": _binary_integer,
    "SS": _binary_integer,
    "SV": _binary_integer,
    "TM": _time,
    "UL": _binary_integer,
    "US": _binary_integer,
    "US or SS": _binary_integer,
    "US or OW": _binary_integer,
    "US or SS or OW": _binary_integer,
    "UV": _binary_integer,
}
