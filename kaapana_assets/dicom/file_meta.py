"""File meta information as bytes: where it ends, and which transfer syntax it names.

References:
    PS3.10 7.1.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

_PREAMBLE_BYTES = 128
_VALUE_LIMIT_BYTES = 1024 * 1024
_LONG_VRS = frozenset((b"OB", b"OW", b"SQ", b"UN", b"UT", b"UC", b"UR"))


def skip_file_meta(file: BinaryIO) -> str | None:
    """The transfer syntax, with the file positioned after group 0002; None where there is none.

    Goes from element to element, because the group length is wrong in some files.

    Args:
        file: at the begin of a DICOM file.
    """
    if file.read(_PREAMBLE_BYTES + 4)[_PREAMBLE_BYTES:] != b"DICM":
        return None
    return skip_group_2(file)


def skip_group_2(file: BinaryIO) -> str | None:
    """The same for a file positioned at the first element of group 0002."""
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
