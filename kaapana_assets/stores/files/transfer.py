"""Passes files from one owner to another so that neither can change the file of the other."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from kaapana_assets.stores.files.durable import remove_tree

NO_LINK = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EACCES)
"""The errors of ``os.link`` after which a file is copied instead."""

_ALL_READ = 0o444
_FICLONE = 0x40049409  # ioctl number of linux/fs.h
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_CHUNK_BYTES = 1 << 20
_HOLE = bytes(_CHUNK_BYTES)
_NO_CLONE = {errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS}
_devices_without_clone: set[int] = set()
_libc = ctypes.CDLL(None, use_errno=True)


def duplicate(source: Path, target: Path) -> tuple[int, str]:
    """Copy ``source`` to ``target`` with blocks of its own (copy-on-write where the file system has it).

    Returns:
        The size in bytes and ``sha256:<hex>`` of what was written.

    Raises:
        FileExistsError: ``target`` exists already.
        OSError: ``source`` is a symbolic link, or reading or writing failed.
    """
    reader = os.open(source, os.O_RDONLY | os.O_NOFOLLOW)
    with open(reader, "rb", buffering=0), open(target, "xb", buffering=0) as write:  # noqa: PTH123
        return copy_open(reader, write.fileno())


def copy_open(reader: int, writer: int, *, at_most: int | None = None) -> tuple[int, str]:
    """Copy an open file to an empty one; see ``duplicate``. A sparse file keeps its holes.

    Args:
        reader: a descriptor, at the beginning of the file.
        writer: a descriptor of an empty file.
        at_most: limit in bytes; reading stops after the first piece that exceeds it.
    """
    if _clone(reader, writer):
        # The clone is read instead of the source, which others may write to from now on.
        copy = os.open(f"/proc/self/fd/{writer}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            size, digest = copy_bytes(copy, None, at_most=at_most)
        finally:
            os.close(copy)
    else:
        status = os.fstat(reader)
        is_sparse = status.st_blocks * 512 < status.st_size
        size, digest = copy_bytes(reader, writer, at_most=at_most, with_holes=is_sparse)
    return size, f"sha256:{digest}"


def copy_bytes(
    reader: int,
    writer: int | None,
    *,
    at_most: int | None = None,
    with_holes: bool = False,
    advance: Callable[[int], object] | None = None,
) -> tuple[int, str]:
    """Copy the rest of an open file, or only read it; returns its size and its SHA-256 in hex.

    Args:
        reader: descriptor of the file.
        writer: descriptor of an empty file; None only reads.
        at_most: limit in bytes; reading stops after the first piece that exceeds it.
        with_holes: whether pieces of zeros become holes.
        advance: called with the size of each piece in bytes.
    """
    digest = hashlib.sha256()
    size = 0
    while (at_most is None or size <= at_most) and (chunk := os.read(reader, _CHUNK_BYTES)):
        digest.update(chunk)
        size += len(chunk)
        if writer is not None and with_holes and chunk == _HOLE[: len(chunk)]:
            os.lseek(writer, len(chunk), os.SEEK_CUR)
        elif writer is not None:
            view = memoryview(chunk)
            while view:
                view = view[os.write(writer, view) :]
        if advance is not None:
            advance(len(chunk))
    if writer is not None and with_holes:
        os.ftruncate(writer, size)
    return size, digest.hexdigest()


def sync_file_system(folder: Path) -> None:
    """Wait until everything that was written to the file system of ``folder`` is durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if not hasattr(_libc, "syncfs"):
            os.sync()
        elif _libc.syncfs(descriptor) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(folder))
    finally:
        os.close(descriptor)


def put_in_place(staged: Path, target: Path) -> Path | None:
    """Move the folder ``staged`` to ``target`` in one step; a folder that exists there is replaced.

    Returns:
        The path at which the replaced folder is now; None if there was none.
    """
    while True:
        if not target.exists():
            try:
                staged.rename(target)
            except OSError as exc:
                if exc.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            else:
                return None
        if _exchange(staged, target):
            return staged


@contextlib.contextmanager
def staged_folder(target: Path) -> Iterator[Path]:
    """A new folder beside ``target`` that replaces it at the end; after an error it is removed."""
    staged = target.parent / f".{target.name}.{uuid.uuid4().hex}"
    staged.mkdir(parents=True)
    try:
        yield staged
        former = put_in_place(staged, target)
        if former is not None:
            remove_tree(former)
    except BaseException:
        remove_tree(staged)
        raise


def give(source: Path, target: Path, *, writable_copy: bool) -> None:
    """Hard-link ``source`` to ``target``, or copy it if no link is possible or a writable copy is requested.

    All users can read the target, whatever umask the source was made with, because operators may run as
    another user. Only the user of this process can make it writable again.
    """
    status = source.stat()
    if not writable_copy and status.st_mode & _ALL_READ == _ALL_READ and status.st_uid == os.geteuid():
        try:
            os.link(source, target)
        except OSError as exc:
            if exc.errno not in NO_LINK:
                raise
        else:
            return
    duplicate(source, target)
    target.chmod(0o644 if writable_copy else 0o444)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders. Returns False if ``other`` does not exist any more."""
    if hasattr(_libc, "renameat2"):
        if _libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
            return True
        code = ctypes.get_errno()
        if code == errno.ENOENT:
            return False
        if code not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(code, os.strerror(code), str(other))
    # Without an atomic exchange (NFS) there is a moment in which ``other`` does not exist: a reader then
    # finds nothing and makes it again, which costs time, but it never finds a mixture.
    aside = one.with_name(one.name + ".old")
    with contextlib.suppress(FileNotFoundError):
        other.rename(aside)
    one.rename(other)
    if aside.exists():
        aside.rename(one)
    return True


def _clone(reader: int, writer: int) -> bool:
    device = os.fstat(writer).st_dev
    if device in _devices_without_clone:
        return False
    try:
        fcntl.ioctl(writer, _FICLONE, reader)
    except OSError as exc:
        if exc.errno not in _NO_CLONE:
            raise
        _devices_without_clone.add(device)
        return False
    return True
