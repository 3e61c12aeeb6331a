"""Digests of objects and series: equal digests mean the same object, or the same instances."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from kaapana_assets.dicom.file_meta import skip_file_meta
from kaapana_assets.errors import UnreadableDicom

_CHUNK_BYTES = 1024 * 1024


def content_digest(path: Path) -> str:
    """Digest of the object in a file: ``sha256:`` and 64 hex digits.

    It covers the transfer syntax and every byte after the file meta information, pixel data
    included. Preamble and file meta information do not count, so the same object has the same
    digest when other software writes it or another AE receives it. If the file meta information
    cannot be read, the digest covers all bytes of the file.

    Raises:
        UnreadableDicom: the file cannot be read.

    References:
        PS3.10 7.1 (file meta information).
    """
    try:
        with path.open("rb") as file:
            meta = skip_file_meta(file)
            if meta is None:
                file.seek(0)
                return _formatted(hashlib.sha256(), file)
            return _formatted(_dataset_hash(meta), file)
    except OSError as exc:
        raise UnreadableDicom(f"{path}: cannot be read ({exc.strerror})") from exc


def series_digest(instances: Mapping[str, str]) -> str:
    """Digest of a series from SOPInstanceUID -> content digest, in any order."""
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
