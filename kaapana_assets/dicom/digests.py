"""Digests that tell whether two files hold the same object, and two series the same instances."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

from kaapana_assets.errors import UnreadableDicom

_CHUNK_BYTES = 1024 * 1024
_META_VALUE_LIMIT_BYTES = 1024 * 1024
_LONG_VRS = frozenset((b"OB", b"OW", b"SQ", b"UN", b"UT", b"UC", b"UR"))


def content_digest(path: Path) -> str:
    """Digest of the object in a file, ``sha256:`` and 64 hex digits.

    It covers the transfer syntax and every byte after the file meta information, pixel data
    included, and nothing of preamble or file meta information: the same object written by other
    software, or received under another AE title, has the same digest. A file without readable
    file meta information has the digest of all its bytes.

    Raises:
        UnreadableDicom: the file cannot be read.

    References:
        PS3.10 7.1 (file meta information).
    """
    try:
        with path.open("rb") as file:
            meta = _skip_file_meta(file)
            if meta is None:
                file.seek(0)
                return _formatted(hashlib.sha256(), file)
            return _formatted(_dataset_hash(meta), file)
    except OSError as exc:
        raise UnreadableDicom(f"{path}: cannot be read ({exc.strerror})") from exc


def dataset_digest(transfer_syntax_uid: str, chunks: Iterable[bytes]) -> str:
    """What ``content_digest`` gives for a file with this transfer syntax and encoded dataset."""
    digest = _dataset_hash(transfer_syntax_uid)
    for chunk in chunks:
        digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"


def series_digest(instances: Mapping[str, str]) -> str:
    """Digest of a series from SOPInstanceUID -> content digest, whatever their order."""
    digest = hashlib.sha256()
    for sop_instance_uid, instance_digest in sorted(instances.items()):
        digest.update(f"{sop_instance_uid} {instance_digest}\n".encode())
    return f"sha256:{digest.hexdigest()}"


def _dataset_hash(transfer_syntax_uid: str) -> hashlib._Hash:
    return hashlib.sha256(transfer_syntax_uid.rstrip("\0 ").encode() + b"\0")


def _formatted(digest: hashlib._Hash, file: BinaryIO) -> str:
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"


def _skip_file_meta(file: BinaryIO) -> str | None:
    """The transfer syntax, with the file positioned after group 0002; None where there is none.

    Goes from element to element, because the group length is wrong in some files.
    """
    if file.read(132)[128:] != b"DICM":
        return None
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
        if not vr.isalpha() or length > _META_VALUE_LIMIT_BYTES:
            return None
        value = file.read(length)
        if element == 0x0010:
            transfer_syntax_uid = value.decode("ascii", "replace")
