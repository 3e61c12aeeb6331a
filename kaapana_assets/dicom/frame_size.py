"""Computes the decoded size of a frame from the compressed frame itself, without decoding it.

Decoders trust the header inside the compressed frame, which may contradict the DICOM header.
"""

from __future__ import annotations

import struct

from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    RLELossless,
)

_J2K = frozenset((JPEG2000, JPEG2000Lossless, HTJ2K, HTJ2KLossless, HTJ2KLosslessRPCL))
_J2K_START = b"\xff\x4f\xff\x51"
_START_OF_IMAGE = b"\xff\xd8"
# SOF0 to SOF15, without DHT, JPG and DAC in between, and SOF55 of JPEG-LS.
_START_OF_FRAME = frozenset((*range(0xC0, 0xD0), 0xF7)) - {0xC4, 0xC8, 0xCC}
_ALONE = frozenset((0x01, *range(0xD0, 0xD8)))
_RLE_HEADER_BYTES = 64


def decoded_size_bytes(frame: bytes, transfer_syntax_uid: UID, *, limit: int) -> int:
    """Size of the decoded frame in bytes; counting stops above ``limit``.

    Raises:
        ValueError: the frame does not start as its transfer syntax requires, or does not state its size.
    """
    if transfer_syntax_uid == RLELossless:
        return _rle_size_bytes(frame, limit)
    return _jpeg_2000_size_bytes(frame) if transfer_syntax_uid in _J2K else _jpeg_size_bytes(frame)


def _rle_size_bytes(frame: bytes, limit: int) -> int:
    """Count all segments as one run of packets (PS3.5 G.3.1)."""
    position, size = _RLE_HEADER_BYTES, 0
    while position < len(frame) and size <= limit:
        control = frame[position]
        if control < 128:
            size += control + 1
            position += control + 2
        else:
            size += 257 - control if control > 128 else 0
            position += 2 if control > 128 else 1
    return size


def _jpeg_size_bytes(frame: bytes) -> int:
    """Read the frame header of JPEG or JPEG-LS (ISO 10918-1 B.2.2, ISO 14495-1 C.2.2)."""
    if not frame.startswith(_START_OF_IMAGE):
        raise ValueError("a JPEG frame without start of image marker")
    position = 2
    while position + 4 <= len(frame):
        if frame[position] != 0xFF:
            raise ValueError("a JPEG frame without a frame header")
        marker = frame[position + 1]
        if marker == 0xFF or marker in _ALONE:
            position += 1 if marker == 0xFF else 2
            continue
        if marker in _START_OF_FRAME:
            precision, rows, columns, components = struct.unpack_from(">BHHB", frame, position + 4)
            if not rows or not columns:
                raise ValueError("a JPEG frame whose frame header has no size")
            return int(rows * columns * components * -(-precision // 8))
        position += 2 + int(struct.unpack_from(">H", frame, position + 2)[0])
    raise ValueError("a JPEG frame without a frame header")


def _jpeg_2000_size_bytes(frame: bytes) -> int:
    """Read the SIZ marker (ISO 15444-1 A.5.1); the largest, as boxes may hold further codestreams."""
    sizes: list[int] = []
    at = frame.find(_J2K_START)
    while at >= 0:
        x1, y1, x0, y0 = struct.unpack_from(">4L", frame, at + 8)
        (components,) = struct.unpack_from(">H", frame, at + 40)
        depths = frame[at + 42 : at + 42 + 3 * components : 3]
        sample_bytes = sum(-(-((depth & 0x7F) + 1) // 8) for depth in depths)
        sizes.append(int(max(0, x1 - x0) * max(0, y1 - y0) * max(sample_bytes, components)))
        at = frame.find(_J2K_START, at + 4)
    if not sizes:
        raise ValueError("a JPEG 2000 frame without SIZ marker")
    return max(sizes)
