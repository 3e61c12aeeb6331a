"""Files that are whole or absent: written aside, synced, put in place without replacing anything.

Knows the file system only, nothing of DICOM, the spool or the PACS.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, TypeAlias

Buffer: TypeAlias = "bytes | bytearray | memoryview"

_COPY_BYTES = 1 << 20
_IOV_MAX = 512


class ReadableStream(Protocol):
    """What :func:`copy_stream` reads from."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes; none at the end."""


def write_all(fd: int, parts: Iterable[Buffer]) -> None:
    """Write every byte of ``parts``, taken as they come and never joined in memory."""
    pending: list[memoryview] = []
    size = 0
    for part in parts:
        if len(part):
            pending.append(memoryview(part).cast("B"))
            size += len(part)
        if size >= _COPY_BYTES or len(pending) == _IOV_MAX:
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


def copy_stream(source: ReadableStream, fd: int) -> None:
    """Write what is left of ``source``, a MiB at a time."""
    while chunk := source.read(_COPY_BYTES):
        write_all(fd, (chunk,))


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


def copy_into(source: Path, target: Path) -> None:
    """A synced copy of ``source`` as the new file ``target``; its folder is not synced."""
    with source.open("rb") as reader:
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            copy_stream(reader, fd)
            os.fsync(fd)
        finally:
            os.close(fd)


def link_or_copy(source: Path, target: Path, *, aside: Path) -> None:
    """Put ``source`` also at ``target``: as a hard link where the file system lets, else a synced copy.

    Args:
        source: a file that is already synced.
        target: must not exist.
        aside: a file name on the file system of ``target`` to write a copy to before it is put in place.

    Raises:
        FileExistsError: ``target`` exists; it is left as it is.
    """
    try:
        os.link(source, target)
    except OSError as exc:
        if exc.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        copy_into(source, aside)
        try:
            os.link(aside, target)
        finally:
            aside.unlink()


def make_folder(folder: Path) -> None:
    """Create ``folder`` and what is missing above it, each durable in its parent."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        sync_folder(each.parent)


def free_bytes(folder: Path) -> int:
    """Bytes that an unprivileged process could still write to the file system of ``folder``."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def remove_tree(folder: Path) -> None:
    """Remove ``folder`` with all in it; what cannot be removed stays."""
    shutil.rmtree(folder, ignore_errors=True)
