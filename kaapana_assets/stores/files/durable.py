"""Writes files that are either whole or absent, and replaces none: a file is synced before it gets its name.

This module knows only the file system, nothing of DICOM, the spool or the PACS.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Protocol

from kaapana_assets.durable import write_all

_COPY_BYTES = 1 << 20


class ReadableStream(Protocol):
    """A stream that :func:`copy_stream` can read."""

    def read(self, size: int, /) -> bytes:
        """Read at most ``size`` bytes; returns no bytes at the end."""


def copy_stream(source: ReadableStream, fd: int) -> None:
    """Write the rest of ``source`` to a file descriptor, one MiB at a time."""
    while chunk := source.read(_COPY_BYTES):
        write_all(fd, (chunk,))


def copy_into(source: Path, target: Path) -> None:
    """Copy ``source`` to the new file ``target`` and sync the file, but not its folder."""
    with source.open("rb") as reader:
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            copy_stream(reader, fd)
            os.fsync(fd)
        finally:
            os.close(fd)


def link_or_copy(source: Path, target: Path, *, aside: Path) -> None:
    """Hard-link ``source`` to ``target``, or make a synced copy where the file system allows no link.

    Args:
        source: a file that is already synced.
        target: must not exist.
        aside: temporary path on the file system of ``target``, which a copy is written to first.

    Raises:
        FileExistsError: ``target`` exists; it is not changed.
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


def free_bytes(folder: Path) -> int:
    """The bytes that an unprivileged process can still write to the file system of ``folder``."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def remove_tree(folder: Path) -> None:
    """Remove ``folder`` and its contents; what cannot be removed stays."""
    shutil.rmtree(folder, ignore_errors=True)


def remove_if_empty(folder: Path) -> None:
    """Remove ``folder`` if it is empty; a file that another process adds at this moment is kept."""
    try:
        folder.rmdir()
    except FileNotFoundError:
        return
    except OSError as exc:
        if exc.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
