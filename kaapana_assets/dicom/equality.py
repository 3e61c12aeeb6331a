"""Compares two files attribute by attribute, even if one of them was re-encoded on its way."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pydicom
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_sequence
from pydicom.tag import BaseTag
from pydicom.uid import UID
from pydicom.valuerep import VR

from kaapana_assets.dicom.file_meta import skip_file_meta
from kaapana_assets.dicom.headers import PYDICOM_ERRORS, captured_pydicom_warnings, identity_of, open_dicom
from kaapana_assets.dicom.limits import DEFAULT_LIMITS, ReadingLimits
from kaapana_assets.errors import InputError

_DATASET_TRAILING_PADDING = 0xFFFCFFFC
_PIXEL_DATA = 0x7FE00010
_UNDEFINED_LENGTH = 0xFFFFFFFF
# Bytes of one number by VR, which are reversed in a big endian file.
_WORD_BYTES = {"AT": 2, "OW": 2, "SS": 2, "US": 2, "FL": 4, "OF": 4, "OL": 4, "SL": 4, "UL": 4}
_WORD_BYTES |= {"FD": 8, "OD": 8, "OV": 8, "SV": 8, "UV": 8}
_TEXT_VRS = frozenset(
    ["AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"]
)


def same_object(one: Path, other: Path, *, limits: ReadingLimits = DEFAULT_LIMITS) -> bool:
    """Whether all attributes of two files are equal, pixel data included, in any encoding.

    Implicit or explicit VR, byte order, deflation, lengths of sequences, padding, group lengths and
    file meta information do not count. Pixel data in a different compression makes a different object,
    because only decoding could prove it equal. Both files are read into memory. A file that cannot be
    read, or that exceeds the limit, equals no other.

    Args:
        one: the first file.
        other: the second file.
        limits: for reading a file into memory, deflated or not.
    """
    try:
        if max(one.stat().st_size, other.stat().st_size) > limits.inflated_bytes:
            return False
        with captured_pydicom_warnings():
            first, second = _read(one, limits), _read(other, limits)
            return _compression(first) == _compression(second) and _equal(first, second)
    except (InputError, *PYDICOM_ERRORS):
        return False


def syntax_difference(one: Path, other: Path) -> str:
    """The transfer syntaxes of two files, for a message; empty if they are the same."""
    syntaxes = []
    for path in (one, other):
        try:
            with path.open("rb") as file:
                syntaxes.append(skip_file_meta(file) or "an unknown one")
        except OSError:
            return ""
    if syntaxes[0] == syntaxes[1]:
        return ""
    return f" (in transfer syntax {UID(syntaxes[0]).name}, the other in {UID(syntaxes[1]).name})"


def _read(path: Path, limits: ReadingLimits) -> Dataset:
    with open_dicom(path, limits=limits) as file:
        ds = pydicom.dcmread(file, force=True)  # a file may have been stored without file meta information
    identity_of(ds)
    return ds


def _compression(ds: Dataset) -> str:
    """The transfer syntax of compressed pixel data; empty if it is not compressed."""
    element = ds.get_item(_PIXEL_DATA) if _PIXEL_DATA in ds else None
    is_compressed = isinstance(element, RawDataElement) and element.length == _UNDEFINED_LENGTH
    return str(ds.file_meta.TransferSyntaxUID) if is_compressed else ""


def _equal(one: Dataset, other: Dataset) -> bool:
    tags = _tags(one)
    return tags == _tags(other) and all(_equal_element(one, other, tag) for tag in tags)


def _tags(ds: Dataset) -> set[BaseTag]:
    return {tag for tag in ds.keys() if tag.element != 0 and tag != _DATASET_TRAILING_PADDING}  # noqa: SIM118


def _equal_element(one: Dataset, other: Dataset, tag: BaseTag) -> bool:
    first, second = one.get_item(tag), other.get_item(tag)
    vr = _known_vr(first, tag) or _known_vr(second, tag) or ""
    if vr == VR.SQ:
        items, others = _items(one, tag), _items(other, tag)
        return len(items) == len(others) and all(map(_equal, items, others))
    if isinstance(first, RawDataElement) and isinstance(second, RawDataElement):
        kinds = {found for found in (_own_vr(first), _own_vr(second)) if found}
        if _are_one_kind(kinds) and _canonical(first, vr) == _canonical(second, vr):
            return True
    if isinstance(one[tag].value, bytes) or _known_vr(first, tag) != _known_vr(second, tag):
        return False  # pydicom keeps such bytes in the byte order of the file
    return bool(one[tag] == other[tag])  # numbers written as other text, such as 1.0 and 1.00


def _own_vr(element: RawDataElement | DataElement | None) -> str:
    vr = str(element.VR or "") if element is not None else ""
    return "" if vr == VR.UN else vr


def _known_vr(element: RawDataElement | DataElement | None, tag: BaseTag) -> str:
    if vr := _own_vr(element):
        return vr
    try:
        return "" if tag.is_private else dictionary_VR(tag)
    except KeyError:
        return ""


def _are_one_kind(vrs: set[str]) -> bool:
    """Whether values of these VRs can be equal: writers choose freely between OB and OW."""
    return len(vrs) <= 1 or vrs in ({"OB", "OW"}, {"US", "SS"})


def _canonical(element: RawDataElement, vr: str) -> bytes:
    """The value in little endian, without padding."""
    value = element.value or b""
    width = _WORD_BYTES.get(_own_vr(element), 1)
    if not element.is_little_endian and width > 1:
        value = b"".join(value[at : at + width][::-1] for at in range(0, len(value), width))
    return value.rstrip(b"\0 ") if vr in _TEXT_VRS else value


def _items(ds: Dataset, tag: BaseTag) -> list[Dataset]:
    """The items of a sequence; as UN, without its VR, it is in implicit VR little endian (PS3.5 6.2.2)."""
    value = ds[tag].value
    if isinstance(value, bytes):
        value = read_sequence(
            BytesIO(value),
            is_implicit_VR=True,
            is_little_endian=True,
            bytelength=len(value),
            encoding=ds._character_set,
        )
    return list(value or ())
