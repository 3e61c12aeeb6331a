"""The protocol of the object store: files in buckets, under names.

Names follow the rules of S3, so that every valid name is also valid on an S3 server. The
implementations (``folder``, ``s3``) pass the same tests.
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
    """One object in a store.

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
    """Files in buckets; a bucket is made with its first object.

    Every method raises InvalidIdentifier for a bucket or name that is not allowed and
    StoreUnavailable when the store does not answer.
    """

    def put_file(self, bucket: str, name: str, path: Path | BinaryIO) -> StoredObject:
        """Store the content of a file; an object of that name is replaced in one step.

        The object is durable on return.

        Args:
            bucket: its bucket.
            name: its name.
            path: the file, or an open reader at its beginning, which is closed afterwards.
        """
        ...

    def get_file(self, bucket: str, name: str, into: Path) -> StoredObject:
        """Write an object to the file ``into``, whole or not at all; its folder is made if it is missing.

        Raises:
            NotFound: no such object.
        """
        ...

    def open_read(self, bucket: str, name: str) -> BinaryIO:
        """Open the content of an object as it is now; the caller closes it.

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
        """Whether the object exists."""
        ...

    def download_link(self, bucket: str, name: str, *, expires_s: int) -> str:
        """An address at which whoever has it can download the object without a password.

        Args:
            bucket: its bucket.
            name: its name.
            expires_s: seconds for which the address is valid, 1 to 604800 (a week). A store in a folder gives
                a ``file:`` address, which does not expire.

        Raises:
            NotFound: no such object.
        """
        ...

    def check(self) -> StoreReport:
        """Check quickly that the store works.

        Raises:
            ConfigurationError: the server is no such store or refuses the credentials; the message names the setting.
        """
        ...


def checked_bucket(value: str) -> str:
    """Return a bucket name if S3 allows it.

    Raises:
        InvalidIdentifier: the name is not 3 to 63 lowercase letters, digits, ``-`` and ``.``, does not begin
            and end with a letter or digit, contains ``..``, or is an IP address.
    """
    if not _BUCKET.fullmatch(value) or ".." in value or _is_address(value):
        raise InvalidIdentifier(
            f"bucket {value[:80]!r} is not a valid name: 3 to 63 lowercase letters, digits, '-' or '.', beginning and "
            "ending with a letter or digit, and no IP address"
        )
    return value


def checked_object_name(value: str) -> str:
    """Return an object name if it is also a safe relative path.

    Raises:
        InvalidIdentifier: the name is longer than 1024 bytes, has a part that is empty, ``.``, ``..`` or
            longer than 255 bytes, or has a backslash or a control character.
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
    """Open the file whose content is to be stored; an open reader is returned as it is.

    Raises:
        NotFound: the file cannot be read.
    """
    if not isinstance(path, Path):
        return path
    try:
        return path.open("rb")
    except OSError as exc:
        raise NotFound(f"object {bucket}/{name} cannot be stored: {path} cannot be read ({exc.strerror})") from exc


def checked_expiry(seconds: int) -> int:
    """Return the seconds for which a link is valid, if S3 allows that many.

    Raises:
        InvalidIdentifier: they are not 1 to 604800.
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
