"""Locates the end of the file meta information and reads its transfer syntax, byte by byte.

References:
    PS3.10 7.1.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

_PREAMBLE_BYTES = 128
_VALUE_LIMIT_BYTES = 1024 * 1024
_LONG_VRS = frozenset((b"OB", b"OW", b"SQ", b"UN", b"UT", b"UC", b"UR"))


def skip_file_meta(file: BinaryIO) -> str | None:
    """Position the file after group 0002 and return the transfer syntax UID, or None without one.

    Reads element by element, because the group length is wrong in some files.

    Args:
        file: positioned at the start of a DICOM file.
    """
    if file.read(_PREAMBLE_BYTES + 4)[_PREAMBLE_BYTES:] != b"DICM":
        return None
    return skip_group_2(file)


def dataset_offset(path: Path) -> int | None:
    """Offset of the dataset in a file with incomplete file meta information; None if it is complete.

    It is incomplete without preamble, without group 0002, or without a transfer syntax in it.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        has_preamble = file.read(_PREAMBLE_BYTES + 4)[_PREAMBLE_BYTES:] == b"DICM"
        start = _PREAMBLE_BYTES + 4 if has_preamble else 0
        file.seek(start)
        syntax = skip_group_2(file)
        if has_preamble and syntax:
            return None
        file.seek(start)
        return _end_of_group_2(file)


def _end_of_group_2(file: BinaryIO) -> int:
    while True:
        position = file.tell()
        head = file.read(8)
        if len(head) < 8 or head[:2] != b"\2\0":
            return position
        vr, length = struct.unpack("<2sH", head[4:])
        if vr in _LONG_VRS:
            length = int.from_bytes(file.read(4), "little")
        if length > _VALUE_LIMIT_BYTES:
            return position
        file.seek(length, 1)


def skip_group_2(file: BinaryIO) -> str | None:
    """Like ``skip_file_meta``, for a file positioned at the first element of group 0002."""
    transfer_syntax_uid = None
    while True:
        head = file.read(8)
        if len(head) < 8:
            return None
        group, element, vr, length = struct.unpack("<HH2sH", head)
        if group != 0x0002:
            file.seek(-8, 1)
            return transfer_syntax_uid
        if vr in _LONG_VRS:
            extended = file.read(4)
            if len(extended) < 4:
                return None
            (length,) = struct.unpack("<L", extended)
        if not vr.isalpha() or length > _VALUE_LIMIT_BYTES:
            return None
        value = file.read(length)
        if element == 0x0010:
            transfer_syntax_uid = value.decode("ascii", "replace").rstrip("\0 ")
