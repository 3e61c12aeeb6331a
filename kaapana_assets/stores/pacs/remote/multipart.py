"""``multipart/related`` bodies of DICOM files, streamed from and to disk.

References: PS3.18 8.6.1.2 (multipart media types), RFC 2046 5.1.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from email.message import Message
from pathlib import Path
from typing import BinaryIO

_PIECE = 1 << 20
_HEADERS_LIMIT = 64 * 1024


class MultipartFiles:
    """The body of a STOW request: unchanged files that are read while they are sent."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files
        self._boundary = uuid.uuid4().hex
        self._start = f"--{self._boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        self._end = f"--{self._boundary}--\r\n".encode()
        self._sizes = [file.stat().st_size for file in files]

    @property
    def content_type(self) -> str:
        """The request's ``Content-Type``."""
        return f'multipart/related; type="application/dicom"; boundary={self._boundary}'

    def __len__(self) -> int:
        return sum(self._sizes) + len(self._files) * (len(self._start) + 2) + len(self._end)

    def __iter__(self) -> Iterator[bytes]:
        for path in self._files:
            yield self._start
            with path.open("rb") as file:
                while piece := file.read(_PIECE):
                    yield piece
            yield b"\r\n"
        yield self._end


def boundary_of(content_type: str) -> bytes | None:
    """The boundary that a ``Content-Type`` names; None if it is no multipart type."""
    message = Message()
    message["Content-Type"] = content_type
    boundary = message.get_boundary()
    return boundary.encode() if boundary and message.get_content_maintype() == "multipart" else None


def write_parts(chunks: Iterable[bytes], boundary: bytes, folder: Path) -> list[Path]:
    """Write each part of a body to its own file while it arrives, with one chunk in memory at a time.

    Raises:
        ValueError: the body ends before its last part does, or the headers of a part have no end.
    """
    reader = _Reader(chunks, b"\r\n--" + boundary)
    reader.copy_to_delimiter(None)
    files: list[Path] = []
    while reader.begins_part():
        path = folder / f"part-{len(files):06}"
        with path.open("xb") as file:
            reader.copy_to_delimiter(file)
        files.append(path)
    return files


class _Reader:
    def __init__(self, chunks: Iterable[bytes], delimiter: bytes) -> None:
        self._chunks = iter(chunks)
        self._delimiter = delimiter
        self._held = bytearray(b"\r\n")  # so that the first delimiter is like the others

    def copy_to_delimiter(self, file: BinaryIO | None) -> None:
        while (at := self._held.find(self._delimiter)) < 0:
            # Keep the bytes that may be the beginning of a delimiter.
            self._pass(max(0, len(self._held) - len(self._delimiter) + 1), file)
            self._more()
        self._pass(at, file)
        del self._held[: len(self._delimiter)]

    def begins_part(self) -> bool:
        """Whether a part follows the delimiter; skips its headers."""
        while len(self._held) < 2:
            self._more()
        if self._held.startswith(b"--"):
            return False
        while (at := self._held.find(b"\r\n\r\n")) < 0:
            if len(self._held) > _HEADERS_LIMIT:
                raise ValueError("a part of the answer has no end of its headers")
            self._more()
        del self._held[: at + 4]
        return True

    def _pass(self, count: int, file: BinaryIO | None) -> None:
        if file is not None:
            with memoryview(self._held) as held, held[:count] as piece:
                file.write(piece)
        del self._held[:count]

    def _more(self) -> None:
        chunk = next(self._chunks, None)
        if chunk is None:
            raise ValueError("the answer ends before its last part does")
        self._held += chunk
