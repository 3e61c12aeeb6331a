"""Lock files: advisory locks (``flock``) that only the platform's own user can hold.

Whoever can open a file, even to read, can lock it and keep the platform waiting. So lock files are for their
owner alone (0600), also those of earlier versions, and a link in the place of one is refused.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO in its place must not hang us
_OWNER_ONLY = 0o600


def open_lock(path: Path) -> BinaryIO:
    """A lock file, not yet locked; made if it is not there. The lock ends when it is closed.

    Raises:
        OSError: it cannot be made, is no file of its own (a link), or belongs to another user.
    """
    return _checked(path, os.open(path, _FLAGS | os.O_CREAT, _OWNER_ONLY))


def find_lock(path: Path) -> BinaryIO:
    """The same, of a file that has to be there.

    Raises:
        FileNotFoundError: it is not there.
        OSError: as ``open_lock``.
    """
    return _checked(path, os.open(path, _FLAGS))


@contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Wait for a lock and hold it.

    Args:
        path: the lock file.
        shared: others may hold it as well, if they share it, too.

    Raises:
        OSError: as ``open_lock``.
    """
    with open_lock(path) as lock:
        fcntl.flock(lock, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield


def is_locked(path: Path, *, shared_counts: bool = False) -> bool:
    """Whether somebody holds a lock now; does not wait, and makes no file.

    Args:
        path: the lock file.
        shared_counts: holders that share it count as well; else two who ask at once do not see each other.

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
