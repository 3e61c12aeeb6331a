"""Lock files: advisory locks (``flock``) that only the platform's own user can hold.

Any user who can open a file, even only to read it, can lock it and block the platform. So only their owner may open
lock files (mode 0600); those of earlier versions are corrected. A symbolic link instead of a lock file is refused.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO instead of the file must not block
_OWNER_ONLY = 0o600


def open_lock(path: Path) -> BinaryIO:
    """Open a lock file, creating it if needed, without locking it; closing it releases a lock.

    Raises:
        OSError: it cannot be created, is not a regular file, or belongs to another user.
    """
    return _checked(path, os.open(path, _FLAGS | os.O_CREAT, _OWNER_ONLY))


def find_lock(path: Path) -> BinaryIO:
    """Open an existing lock file, without locking it.

    Raises:
        FileNotFoundError: it does not exist.
        OSError: as ``open_lock``.
    """
    return _checked(path, os.open(path, _FLAGS))


@contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Wait for a lock and hold it within the block.

    Args:
        path: the lock file.
        shared: take a shared lock, which others can hold at the same time.

    Raises:
        OSError: as ``open_lock``.
    """
    with open_lock(path) as lock:
        fcntl.flock(lock, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield


def is_locked(path: Path, *, shared_counts: bool = False) -> bool:
    """Whether a process holds a lock now; does not wait, and creates no file.

    Args:
        path: the lock file.
        shared_counts: count shared locks too. Without it, two calls at the same time do not see each other's lock.

    Raises:
        OSError: as ``open_lock``.
    """
    try:
        with find_lock(path) as lock:
            fcntl.flock(lock, (fcntl.LOCK_EX if shared_counts else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def _checked(path: Path, descriptor: int) -> BinaryIO:
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"the lock {path} is no regular file: remove it")
        if stat.S_IMODE(status.st_mode) != _OWNER_ONLY and status.st_uid == os.geteuid():
            os.fchmod(descriptor, _OWNER_ONLY)
        return os.fdopen(descriptor, "r+b", buffering=0)
    except OSError:
        os.close(descriptor)
        raise
