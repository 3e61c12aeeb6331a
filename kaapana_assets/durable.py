"""Writes files that survive a power cut: staged, synced, renamed into place, then their folder synced.

:func:`write_file` writes every record that the platform must find again after a power cut; docs/durability.md
lists them. Knows the file system only.
"""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from kaapana_assets.errors import StoreUnavailable

Buffer: TypeAlias = "bytes | bytearray | memoryview"

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
"""The error numbers of a write when the disk is full or the user's quota is used up."""

_WRITE_BYTES = 1 << 20
_IOV_MAX = 512


@contextmanager
def full_disk_told(what: str) -> Iterator[None]:
    """Turn a full disk within the block into a temporary error, after which Dagster retries the step.

    Args:
        what: names what is written, as in "no room on the disk for …".

    Raises:
        StoreUnavailable: the disk is full.
    """
    try:
        yield
    except OSError as exc:
        if exc.errno not in NO_ROOM:
            raise
        raise StoreUnavailable(no_room(exc, what)) from exc


@contextmanager
def suppress_no_room() -> Iterator[None]:
    """Leave the block silently when the disk is full."""
    try:
        yield
    except OSError as exc:
        if exc.errno not in NO_ROOM:
            raise


def no_room(error: OSError, what: str) -> str:
    """Return the message for a full disk."""
    where = f" ({error.filename})" if error.filename else ""
    return f"no room on the disk for {what}{where}: {error.strerror}; make room, and try again"


def write_file(path: Path, content: bytes | str, *, mode: int = 0o666, replace: bool = True) -> None:
    """Write a file atomically; it and its folder survive a power cut once this returns.

    A reader finds the old content or the new content, never a part.

    Args:
        path: the file; missing folders are created.
        content: text is written as UTF-8.
        mode: permissions of the file, before the umask.
        replace: whether it may replace an existing file.

    Raises:
        FileExistsError: the file exists and may not be replaced; it stays as it is.
        OSError: it cannot be written; the old file stays, and no staged file is left beside it.
    """
    make_folder(path.parent)
    staged = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}")
    try:
        fd = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        try:
            write_all(fd, (content.encode() if isinstance(content, str) else content,))
            os.fsync(fd)
        finally:
            os.close(fd)
        if replace:
            staged.replace(path)
        else:
            os.link(staged, path)
    finally:
        staged.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_all(fd: int, parts: Iterable[Buffer]) -> None:
    """Write every byte of ``parts`` as they come, without joining them in memory."""
    pending: list[memoryview] = []
    size = 0
    for part in parts:
        if len(part):
            pending.append(memoryview(part).cast("B"))
            size += len(part)
        if size >= _WRITE_BYTES or len(pending) == _IOV_MAX:
            _write_pending(fd, pending)
            size = 0
    _write_pending(fd, pending)


def _write_pending(fd: int, pending: list[memoryview]) -> None:
    while pending:
        written = os.writev(fd, pending)
        while pending and written >= len(pending[0]):
            written -= len(pending.pop(0))
        if written:
            pending[0] = pending[0][written:]


def sync_file(path: Path) -> None:
    """Make the bytes of a file survive a power cut."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` survive a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_folder(folder: Path) -> None:
    """Create ``folder`` and its missing parents, each durable in its own parent."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        sync_folder(each.parent)
