"""Reads the identifiers at the start of an encoded dataset, without decoding the dataset.

This is all that the receiver reads of an object, so it must be cheap and robust against any bytes.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from kaapana_assets.dicom.headers import out_of_order_message
from kaapana_assets.dicom.identifiers import checked_uid
from kaapana_assets.durable import Buffer
from kaapana_assets.errors import UnreadableDicom

IMPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_BIG_ENDIAN = "1.2.840.10008.1.2.2"
IMPLEMENTATION_UID = "2.25.300836402116098362071870146962041371297"
"""Implementation Class UID of file meta information that import writes (PS3.5 B.2)."""

DEFLATED = "1.2.840.10008.1.2.1.99"

_SOP_CLASS, _SOP_INSTANCE, _STUDY, _SERIES = 0x00080016, 0x00080018, 0x0020000D, 0x0020000E
_KEYWORDS = {
    _SOP_CLASS: "SOPClassUID",
    _SOP_INSTANCE: "SOPInstanceUID",
    _STUDY: "StudyInstanceUID",
    _SERIES: "SeriesInstanceUID",
}
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
_LONG_VRS = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_UID_LIMIT_BYTES = 4096
_ELEMENT_LIMIT = 200_000
_INFLATED_LIMIT_BYTES = 4 * 1024**2


@dataclass(frozen=True)
class DatasetIdentifiers:
    """The identifiers in a dataset, each checked to be a UID."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str


def read_dataset_identifiers(data: Buffer, transfer_syntax_uid: str) -> DatasetIdentifiers:
    """Read the identifiers of an encoded dataset.

    Args:
        data: the dataset without file meta information, at least up to SeriesInstanceUID.
        transfer_syntax_uid: encoding of the dataset; an unknown one is read as explicit VR little
            endian, which the standard requires of every new transfer syntax.

    Raises:
        UnreadableDicom: the bytes are not such a dataset, or an identifier is missing.
        InvalidIdentifier: an identifier is not a UID.

    References:
        PS3.5 7.1 (data elements), 7.5 (nesting), A.1 to A.5 (transfer syntaxes).
    """
    if transfer_syntax_uid == DEFLATED:
        try:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, _INFLATED_LIMIT_BYTES)
        except zlib.error as exc:
            raise UnreadableDicom(f"the dataset is not deflated as its transfer syntax says ({exc})") from exc
    elements = _ElementReader(
        data,
        implicit=_is_implicit(data, transfer_syntax_uid),
        order=">" if transfer_syntax_uid == EXPLICIT_BIG_ENDIAN else "<",
    )
    try:
        found = elements.identifiers()
    except struct.error as exc:
        raise UnreadableDicom("the dataset ends before SeriesInstanceUID") from exc
    uids = {}
    for tag, keyword in _KEYWORDS.items():
        if not found.get(tag, b"").strip(b"\0 "):
            if late := elements.misplaced(tag):
                raise UnreadableDicom(out_of_order_message(keyword, tag, after=late))
            raise UnreadableDicom(f"{keyword} is missing in the dataset")
        uids[tag] = checked_uid(found[tag].decode("ascii", "replace"), keyword=keyword)
    return DatasetIdentifiers(uids[_SOP_CLASS], uids[_SOP_INSTANCE], uids[_STUDY], uids[_SERIES])


def _is_implicit(data: Buffer, transfer_syntax_uid: str) -> bool:
    """Whether the VR is implicit; the bytes decide, because some files contradict their transfer syntax."""
    first_vr = bytes(data[4:6])
    if transfer_syntax_uid == IMPLICIT_LITTLE_ENDIAN:
        return first_vr not in (b"CS", b"UI", b"UL", b"LO", b"SH")
    return len(first_vr) == 2 and not (first_vr.isalpha() and first_vr.isupper())


class _ElementReader:
    """Reads element by element; enters sequences of undefined length and skips others."""

    def __init__(self, data: Buffer, *, implicit: bool, order: str) -> None:
        self._data = data
        self._position = 0
        self._start = 0
        # Whether the VR is implicit: one entry for the dataset, and one for each sequence or item of
        # undefined length around the position.
        self._implicit = [implicit]
        self._tag = struct.Struct(order + "HH")
        self._short = struct.Struct(order + "H")
        self._long = struct.Struct(order + "L")

    def identifiers(self) -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        for _ in range(_ELEMENT_LIMIT):
            if self._position >= len(self._data) and len(self._implicit) == 1:
                return found
            self._start = self._position
            tag, vr, length = self._next()
            if tag in (_ITEM, _ITEM_END, _SEQUENCE_END):
                self._nest(tag, length)
            elif length == _UNDEFINED:
                # PS3.5 6.2.2: the content of UN of undefined length is always implicit VR.
                self._implicit.append(self._implicit[-1] or vr == b"UN")
            elif len(self._implicit) > 1:
                self._position += length
            elif tag > _SERIES:
                self._position = self._start
                return found
            else:
                if tag in _KEYWORDS:
                    found[tag] = self._value(tag, length)
                    if tag == _SERIES:
                        return found
                self._position += length
        raise UnreadableDicom(f"no SeriesInstanceUID in the first {_ELEMENT_LIMIT} elements of the dataset")

    def misplaced(self, wanted: int) -> int | None:
        """The tag that ``wanted`` should precede, if it stands after it; None if it is not found."""
        before = 0
        try:
            for _ in range(_ELEMENT_LIMIT):
                if self._position >= len(self._data):
                    return None
                tag, vr, length = self._next()
                if tag in (_ITEM, _ITEM_END, _SEQUENCE_END):
                    self._nest(tag, length)
                    continue
                if len(self._implicit) == 1:
                    if tag == wanted:
                        return before or None
                    before = max(before, tag)
                if length == _UNDEFINED:
                    self._implicit.append(self._implicit[-1] or vr == b"UN")
                else:
                    self._position += length
        except (struct.error, UnreadableDicom):
            pass  # the rest of the dataset cannot be read, so the element cannot be found in it
        return None

    def _next(self) -> tuple[int, bytes, int]:
        group, element = self._tag.unpack_from(self._data, self._position)
        tag = group << 16 | element
        if self._implicit[-1] or group == 0xFFFE:
            (length,) = self._long.unpack_from(self._data, self._position + 4)
            self._position += 8
            return tag, b"", length
        vr = bytes(self._data[self._position + 4 : self._position + 6])
        if vr in _LONG_VRS:
            (length,) = self._long.unpack_from(self._data, self._position + 8)
            self._position += 12
        elif vr.isalpha() and vr.isupper():
            (length,) = self._short.unpack_from(self._data, self._position + 6)
            self._position += 8
        else:
            raise UnreadableDicom(f"no VR at ({group:04X},{element:04X}): not encoded as its transfer syntax says")
        return tag, vr, length

    def _nest(self, tag: int, length: int) -> None:
        if len(self._implicit) == 1:
            raise UnreadableDicom("an item outside a sequence")
        if tag != _ITEM:
            self._implicit.pop()
        elif length == _UNDEFINED:
            self._implicit.append(self._implicit[-1])
        else:
            self._position += length

    def _value(self, tag: int, length: int) -> bytes:
        if length > _UID_LIMIT_BYTES:
            raise UnreadableDicom(f"{_KEYWORDS[tag]} is {length} bytes long, a UID has at most 64")
        value = bytes(self._data[self._position : self._position + length])
        if len(value) < length:
            raise UnreadableDicom(f"the dataset ends in {_KEYWORDS[tag]}")
        return value


def part10_header(*, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, implementation: str) -> bytes:
    """The preamble and file meta information that precede a dataset in a file.

    References:
        PS3.10 7.1.
    """

    def short(tag: int, vr: bytes, value: bytes) -> bytes:
        value += (b"\0" if vr == b"UI" else b" ") * (len(value) % 2)
        return struct.pack("<HH2sH", 0x0002, tag, vr, len(value)) + value

    elements = b"".join(
        (
            struct.pack("<HH2sHL", 0x0002, 0x0001, b"OB", 0, 2) + b"\0\1",
            short(0x0002, b"UI", sop_class_uid.encode()),
            short(0x0003, b"UI", sop_instance_uid.encode()),
            short(0x0010, b"UI", transfer_syntax_uid.encode()),
            short(0x0012, b"UI", implementation.encode()),
            short(0x0013, b"SH", b"KAAPANA_ASSETS"),
        )
    )
    return b"\0" * 128 + b"DICM" + short(0x0000, b"UL", struct.pack("<L", len(elements))) + elements
