"""Checksums of files that are sent to an S3 server, computed in the same way as on the server."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import BinaryIO, Protocol

_PIECE = 1 << 20


class Readable(Protocol):
    """A file, or the body of a response."""

    def read(self, size: int = -1, /) -> bytes:
        """Read at most ``size`` bytes; returns no bytes at the end."""


@dataclass(frozen=True)
class Checksums:
    """The size and the checksums of a file.

    Attributes:
        size_bytes: its length.
        sha256: hexadecimal.
        etag: the S3 entity tag of the file when it is uploaded in parts of one size without encryption:
            its MD5; for several parts, the MD5 of their MD5s, then ``-`` and the number of parts.
    """

    size_bytes: int
    sha256: str
    etag: str

    @staticmethod
    def of(source: BinaryIO, *, part_bytes: int) -> Checksums:
        """The size and the checksums of a file, which is read from its beginning."""
        source.seek(0)
        sha256, parts, size = hashlib.sha256(), [hashlib.md5(usedforsecurity=False)], 0
        while piece := source.read(min(_PIECE, part_bytes)):
            if size and size % part_bytes == 0:
                parts.append(hashlib.md5(usedforsecurity=False))
            # A piece must not reach beyond the end of a part.
            room = part_bytes - size % part_bytes
            if len(piece) > room:
                source.seek(room - len(piece), 1)
                piece = piece[:room]
            sha256.update(piece)
            parts[-1].update(piece)
            size += len(piece)
        if len(parts) == 1:
            return Checksums(size, sha256.hexdigest(), parts[0].hexdigest())
        of_parts = hashlib.md5(b"".join(part.digest() for part in parts), usedforsecurity=False).hexdigest()
        return Checksums(size, sha256.hexdigest(), f"{of_parts}-{len(parts)}")


class HashingReader:
    """Passes on the bytes that it reads, and computes their SHA-256."""

    def __init__(self, source: Readable) -> None:
        self._source = source
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    def read(self, size: int = -1, /) -> bytes:
        """Read from the source, as its own ``read`` does."""
        piece = self._source.read(size)
        self._digest.update(piece)
        self.size_bytes += len(piece)
        return piece

    @property
    def sha256(self) -> str:
        """SHA-256 of all bytes read so far, hexadecimal."""
        return self._digest.hexdigest()
