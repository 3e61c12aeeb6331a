"""Files that are whole or absent: written aside, synced, put in place without replacing anything.

Knows the file system only, nothing of DICOM, the spool or the PACS.
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
    """What :func:`copy_stream` reads from."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes; none at the end."""


def copy_stream(source: ReadableStream, fd: int) -> None:
    """Write what is left of ``source``, a MiB at a time."""
    while chunk := source.read(_COPY_BYTES):
        write_all(fd, (chunk,))


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


def free_bytes(folder: Path) -> int:
    """Bytes that an unprivileged process could still write to the file system of ``folder``."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def remove_tree(folder: Path) -> None:
    """Remove ``folder`` with all in it; what cannot be removed stays."""
    shutil.rmtree(folder, ignore_errors=True)


def remove_if_empty(folder: Path) -> None:
    """Remove ``folder`` unless something is in it, also when that came at this moment."""
    try:
        folder.rmdir()
    except FileNotFoundError:
        return
    except OSError as exc:
        if exc.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
