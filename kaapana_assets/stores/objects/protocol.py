"""The object store as every implementation offers it: files in buckets, under names.

The names follow S3, so that a name good here is good there. Implementations are modules of their
own (``folder_objects``) and are held by the same tests.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from kaapana_assets.errors import InvalidIdentifier, NotFound
from kaapana_assets.stores.checks import StoreReport

_BUCKET = re.compile(r"[a-z0-9]([a-z0-9.-]{1,61})[a-z0-9]")
_LONGEST_LINK_S = 604800


@dataclass(frozen=True, kw_only=True)
class StoredObject:
    """What a store holds under a name.

    Attributes:
        bucket: its bucket.
        name: its name in the bucket, with ``/`` between parts.
        size_bytes: length of its content.
        digest: ``sha256:`` and the hexadecimal SHA-256 of its content.
    """

    bucket: str
    name: str
    size_bytes: int
    digest: str


class ObjectStore(Protocol):
    """Files in buckets; a bucket comes into being with its first object.

    Every method raises InvalidIdentifier for a bucket or name that is not allowed and
    StoreUnavailable when the store does not answer.
    """

    def put_file(self, bucket: str, name: str, path: Path | BinaryIO) -> StoredObject:
        """Store the content of a file; an object of that name is replaced, in one step.

        When this returns, the object is durable.

        Args:
            bucket: its bucket.
            name: its name.
            path: the file, or what reads it, at its begin, which is closed then.
        """
        ...

    def get_file(self, bucket: str, name: str, into: Path) -> StoredObject:
        """Write an object to the file ``into``, whole or not at all; its folder is made.

        Raises:
            NotFound: no such object.
        """
        ...

    def open_read(self, bucket: str, name: str) -> BinaryIO:
        """The content of an object as it is now, to be closed by the caller.

        Raises:
            NotFound: no such object.
        """
        ...

    def list(self, bucket: str, prefix: str = "") -> Iterator[StoredObject]:
        """The objects whose names begin with ``prefix``, in the order of their names.

        Raises:
            NotFound: no such bucket.
        """
        ...

    def buckets(self) -> tuple[str, ...]:
        """The names of all buckets, in order."""
        ...

    def delete(self, bucket: str, name: str) -> None:
        """Remove an object.

        Raises:
            NotFound: no such object.
        """
        ...

    def exists(self, bucket: str, name: str) -> bool:
        """Whether there is such an object."""
        ...

    def download_link(self, bucket: str, name: str, *, expires_s: int) -> str:
        """An address that gives the object to whoever has it, without a password.

        Args:
            bucket: its bucket.
            name: its name.
            expires_s: seconds that it is good for, 1 to 604800 (a week). That of a folder is a
                ``file:`` address, which does not expire.

        Raises:
            NotFound: no such object.
        """
        ...

    def check(self) -> StoreReport:
        """Whether it works, in a moment.

        Raises:
            ConfigurationError: what answers is no such store or refuses the credentials; names the setting.
        """
        ...


def checked_bucket(value: str) -> str:
    """A bucket name that S3 allows.

    Raises:
        InvalidIdentifier: not 3 to 63 lowercase letters, digits, ``-`` and ``.``, beginning and
            ending with a letter or digit, without ``..``, and no IP address.
    """
    if not _BUCKET.fullmatch(value) or ".." in value or _is_address(value):
        raise InvalidIdentifier(
            f"bucket {value[:80]!r} is not a valid name: 3 to 63 lowercase letters, digits, '-' or '.', beginning and "
            "ending with a letter or digit, and no IP address"
        )
    return value


def checked_object_name(value: str) -> str:
    """An object name that is also a safe relative path.

    Raises:
        InvalidIdentifier: longer than 1024 bytes, a part that is empty, ``.``, ``..`` or longer
            than 255 bytes, or one with a backslash or a control character.
    """
    parts = value.split("/")
    try:
        sizes = [len(part.encode()) for part in parts]
    except UnicodeEncodeError:
        sizes = [0]
    bad = any(ord(character) < 32 or character in "\\\x7f" for character in value)
    if bad or min(sizes) == 0 or max(sizes) > 255 or sum(sizes) + len(parts) - 1 > 1024 or {".", ".."} & {*parts}:
        raise InvalidIdentifier(
            f"object name {value[:80]!r} is not valid: at most 1024 bytes of parts joined by '/', each of 1 to 255 "
            "bytes, none '.' or '..', without backslashes and control characters"
        )
    return value


def opened_source(bucket: str, name: str, path: Path | BinaryIO) -> BinaryIO:
    """What reads the file that an object is made of.

    Raises:
        NotFound: it cannot be read.
    """
    if not isinstance(path, Path):
        return path
    try:
        return path.open("rb")
    except OSError as exc:
        raise NotFound(f"object {bucket}/{name} cannot be stored: {path} cannot be read ({exc.strerror})") from exc


def checked_expiry(seconds: int) -> int:
    """How long a link may be good for.

    Raises:
        InvalidIdentifier: not 1 to 604800 seconds, which is what S3 allows.
    """
    if not 1 <= seconds <= _LONGEST_LINK_S:
        raise InvalidIdentifier(f"a link cannot be good for {seconds} seconds: 1 to {_LONGEST_LINK_S} can be asked for")
    return seconds


def _is_address(value: str) -> bool:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True
