"""Detects files that are cut short: pydicom does not check that the last element is complete."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from kaapana_assets.errors import UnreadableDicom

_PIXEL_VRS = (b"OB", b"OD", b"OF", b"OW", b"UN")
_UNDEFINED_LENGTH = 0xFFFFFFFF


def check_not_truncated(header: Dataset, source: BinaryIO, *, path: Path) -> None:
    """Check that the file is as long as the lengths of its elements require.

    Args:
        header: read from ``source``, up to the pixel data.
        source: positioned at the pixel data element, or at the end of the file.
        path: named in the error.

    Raises:
        UnreadableDicom: the file is cut short.
    """
    at_pixels = source.tell()
    size = source.seek(0, 2)
    for element in header.values():
        if not isinstance(element, RawDataElement) or element.length == _UNDEFINED_LENGTH:
            continue
        if element.value_tell + element.length > size:
            missing = element.value_tell + element.length - size
            raise UnreadableDicom(
                f"{path}: cut short in {element.tag}: {missing} of {element.length} bytes are missing"
            )
    source.seek(at_pixels)
    start = source.read(8)
    if len(start) < 8:
        return
    # Some files claim explicit VR and are implicit. A length is even, a VR read as a length is odd.
    length_field = source.read(4) if start[4:6] in _PIXEL_VRS else start[4:]
    byte_order = ">" if header.original_encoding[1] is False else "<"
    (length,) = struct.unpack(byte_order + "L", length_field)
    if length == _UNDEFINED_LENGTH:
        _check_fragments(source, size=size, path=path)
    elif source.tell() + length > size:
        missing = source.tell() + length - size
        raise UnreadableDicom(f"{path}: cut short in the pixel data: {missing} of {length} bytes are missing")


def _check_fragments(source: BinaryIO, *, size: int, path: Path) -> None:
    """Check each fragment of encapsulated pixel data (PS3.5 A.4), which is always little endian."""
    while True:
        item = source.read(8)
        if not item:
            return  # some writers omit the delimiter; every fragment was complete
        if len(item) < 8:
            raise UnreadableDicom(f"{path}: cut short between two fragments of the pixel data")
        group, element, length = struct.unpack("<HHL", item)
        if (group, element) == (0xFFFE, 0xE0DD):
            return
        if (group, element) != (0xFFFE, 0xE000):
            raise UnreadableDicom(f"{path}: pixel data has ({group:04X},{element:04X}) where a fragment should begin")
        if source.seek(length, 1) > size:
            raise UnreadableDicom(
                f"{path}: cut short in the pixel data: a fragment of {length} bytes goes past the end"
            )
