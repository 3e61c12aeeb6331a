"""Files and names that survive a power cut: written aside, synced, put in place, their folder synced.

Every record that the platform must find again after a power cut is written by :func:`write_file`; which
those are is in docs/durability.md. Knows the file system only.
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
"""What a write fails with where the disk, or the share of the user, is full."""

_WRITE_BYTES = 1 << 20
_IOV_MAX = 512


@contextmanager
def full_disk_told(what: str) -> Iterator[None]:
    """Within it, a full disk is an error that says what to do, and that steps are repeated after.

    Args:
        what: was being done, as in "no room on the disk for …".

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
    """Within it, a full disk ends what is done, and nothing else."""
    try:
        yield
    except OSError as exc:
        if exc.errno not in NO_ROOM:
            raise


def no_room(error: OSError, what: str) -> str:
    """What to say of a full disk."""
    where = f" ({error.filename})" if error.filename else ""
    return f"no room on the disk for {what}{where}: {error.strerror}; make room, and try again"


def write_file(path: Path, content: bytes | str, *, mode: int = 0o666, replace: bool = True) -> None:
    """Put a file in place in one step, with its folder; both survive a power cut when this returns.

    A reader finds the former content or the new one, never a part.

    Args:
        path: the file; what is missing of its folders is made.
        content: text is written as UTF-8.
        mode: permissions of the file, less those that the umask takes.
        replace: whether it may take the place of a file.

    Raises:
        FileExistsError: there is a file, which stays as it is, and it may not be replaced.
        OSError: it cannot be written; the former file stays, and nothing is left beside it.
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
    """Write every byte of ``parts``, taken as they come and never joined in memory."""
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
    """Create ``folder`` and what is missing above it, each durable in its parent."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        sync_folder(each.parent)
