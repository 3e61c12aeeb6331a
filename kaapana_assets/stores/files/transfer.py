"""Files given from one owner to another without either being able to change the other's."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from kaapana_assets.stores.files.durable import remove_tree

NO_LINK = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EACCES)
"""What ``os.link`` fails with where a copy has to do."""

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
    """Give ``target`` the content of ``source`` with its own blocks (shared until written, if possible).

    Returns:
        The size in bytes and ``sha256:<hex>`` of what was written.

    Raises:
        FileExistsError: there is a target already.
        OSError: ``source`` is a symbolic link, or reading or writing failed.
    """
    reader = os.open(source, os.O_RDONLY | os.O_NOFOLLOW)
    with open(reader, "rb", buffering=0), open(target, "xb", buffering=0) as write:  # noqa: PTH123
        return copy_open(reader, write.fileno())


def copy_open(reader: int, writer: int, *, at_most: int | None = None) -> tuple[int, str]:
    """Copy one open file to another, new one; see ``duplicate``. A sparse file keeps its holes.

    Args:
        reader: a descriptor, at the begin of the file.
        writer: a descriptor of an empty file.
        at_most: bytes after which it ends, at the first piece that goes over them.
    """
    if _clone(reader, writer):
        # What is written to the source from now on does not count.
        copy = os.open(f"/proc/self/fd/{writer}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return _copy_bytes(copy, None, at_most=at_most)
        finally:
            os.close(copy)
    return _copy_bytes(reader, writer, at_most=at_most)


def _copy_bytes(reader: int, writer: int | None, *, at_most: int | None) -> tuple[int, str]:
    digest = hashlib.sha256()
    size = 0
    status = os.fstat(reader)
    is_sparse = status.st_blocks * 512 < status.st_size
    while (at_most is None or size <= at_most) and (chunk := os.read(reader, _CHUNK_BYTES)):
        digest.update(chunk)
        size += len(chunk)
        if writer is None:
            continue
        if is_sparse and chunk == _HOLE:
            os.ftruncate(writer, size)
            os.lseek(writer, size, os.SEEK_SET)
            continue
        view = memoryview(chunk)
        while view:
            view = view[os.write(writer, view) :]
    return size, f"sha256:{digest.hexdigest()}"


def sync_file_system(folder: Path) -> None:
    """Wait until all that was written to the file system of ``folder`` is durable."""
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
    """Make the folder ``staged`` appear as ``target`` in one step, whether there is one already or not.

    Returns:
        Where the former content is now; None when there was none.
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
    """A new folder beside ``target`` that takes its place at the end; after an error it is removed."""
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
    """Put ``source`` also at ``target``, as a hard link where that can be and no writable copy is asked for.

    All users may read what is given, whatever the umask was when the source was made, and only this
    process' user can make it writable again: operators can be another user.
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
    """Whether the two folders changed places; False when ``other`` is gone."""
    if hasattr(_libc, "renameat2"):
        if _libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
            return True
        code = ctypes.get_errno()
        if code == errno.ENOENT:
            return False
        if code not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(code, os.strerror(code), str(other))
    # Without an exchange (NFS) there is a moment with neither: a reader then finds nothing and makes
    # it again, which costs time, but it never finds a mixture.
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
