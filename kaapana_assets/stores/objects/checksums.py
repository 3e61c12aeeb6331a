"""Checksums of what is sent to an S3 server, computed as the server does."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import BinaryIO, Protocol

_PIECE = 1 << 20


class Readable(Protocol):
    """A file, or the body of an answer."""

    def read(self, size: int = -1, /) -> bytes:
        """At most ``size`` bytes; none at the end."""


@dataclass(frozen=True)
class Fingerprint:
    """What a file holds.

    Attributes:
        size_bytes: its length.
        sha256: hexadecimal.
        etag: what S3 calls its entity tag when it is sent in parts of one size without encryption:
            the MD5, of several parts that of their MD5s and ``-`` with how many they are.
    """

    size_bytes: int
    sha256: str
    etag: str

    @staticmethod
    def of(source: BinaryIO, *, part_bytes: int) -> Fingerprint:
        """That of the content of a file, from its begin."""
        source.seek(0)
        sha256, parts, size = hashlib.sha256(), [hashlib.md5(usedforsecurity=False)], 0
        while piece := source.read(min(_PIECE, part_bytes)):
            if size and size % part_bytes == 0:
                parts.append(hashlib.md5(usedforsecurity=False))
            # A piece ends where a part does: never read across it.
            room = part_bytes - size % part_bytes
            if len(piece) > room:
                source.seek(room - len(piece), 1)
                piece = piece[:room]
            sha256.update(piece)
            parts[-1].update(piece)
            size += len(piece)
        if len(parts) == 1:
            return Fingerprint(size, sha256.hexdigest(), parts[0].hexdigest())
        of_parts = hashlib.md5(b"".join(part.digest() for part in parts), usedforsecurity=False).hexdigest()
        return Fingerprint(size, sha256.hexdigest(), f"{of_parts}-{len(parts)}")


class HashingReader:
    """Passes on what it reads, and knows its SHA-256 afterwards."""

    def __init__(self, source: Readable) -> None:
        self._source = source
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    def read(self, size: int = -1, /) -> bytes:
        """As the source does."""
        piece = self._source.read(size)
        self._digest.update(piece)
        self.size_bytes += len(piece)
        return piece

    @property
    def sha256(self) -> str:
        """Of all that was read so far, hexadecimal."""
        return self._digest.hexdigest()
