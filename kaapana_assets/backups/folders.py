"""Folders that are read and written by descriptors, so that no link placed in them leads elsewhere."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A FIFO that took the place of a file must not hold the reader.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PIECE = 1 << 20
_ZEROS = bytes(_PIECE)
_BLOCK = 512  # of st_blocks, whatever the file system's own are
_DEEPEST = 200


@dataclass(frozen=True)
class Found:
    """What a walk found: a file, an empty folder, or something that is neither.

    Attributes:
        path: from where the walk began, with ``/``.
        folder: descriptor of the folder that holds it, open until the walk goes on.
        status: of itself, no link followed.
        too_deep: it is a folder that was not looked into.
    """

    path: str
    folder: int
    name: str
    status: os.stat_result
    too_deep: bool = False

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.status.st_mode)

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder with nothing in it."""
        return stat.S_ISDIR(self.status.st_mode) and not self.too_deep


def names_in(folder: int) -> list[str]:
    """What is in a folder that is open, sorted; nothing if it was removed meanwhile, as by a nightly clean."""
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


@contextmanager
def opened(path: str | Path, *, within: int | None = None) -> Iterator[int]:
    """A folder, open as long as the context."""
    descriptor = os.open(path, FOLDER, dir_fd=within)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_tree(home: int, name: str) -> int | None:
    """A folder at the top of a home, None where there is none.

    Such a folder can lie on another disk: a link there is followed if the platform's user or root
    made it. Links below are not.
    """
    try:
        status = os.stat(name, dir_fd=home, follow_symlinks=False)
        own_link = stat.S_ISLNK(status.st_mode) and status.st_uid in (0, os.geteuid())
        return os.open(name, FOLDER & ~os.O_NOFOLLOW if own_link else FOLDER, dir_fd=home)
    except (FileNotFoundError, NotADirectoryError):
        return None


def walk(folder: int, prefix: str, kept: Callable[[str], bool]) -> Iterator[Found]:
    """Everything below a folder but for what is not ``kept``, in the order of names, without recursion.

    What disappears meanwhile is passed over. A folder below 200 others is not looked into: each that is open
    takes a descriptor.

    Args:
        folder: its descriptor.
        prefix: its path with a ``/`` at the end, put before all names; empty at the top.
        kept: says of a path whether it is looked at.
    """
    stack = [(os.dup(folder), iter(names_in(folder)), prefix)]
    try:
        while stack:
            here, names, above = stack[-1]
            name = next(names, None)
            if name is None:
                os.close(stack.pop()[0])
                continue
            path = above + name
            if not kept(path):
                continue
            try:
                status = os.stat(name, dir_fd=here, follow_symlinks=False)
                is_folder = stat.S_ISDIR(status.st_mode)
                if not is_folder or len(stack) == _DEEPEST:
                    yield Found(path, here, name, status, too_deep=is_folder)
                    continue
                below = os.open(name, FOLDER, dir_fd=here)
            except (FileNotFoundError, NotADirectoryError):
                continue
            inside = names_in(below)
            stack.append((below, iter(inside), f"{path}/"))
            if not inside:
                yield Found(path, here, name, status)
    finally:
        for descriptor, _, _ in stack:
            os.close(descriptor)


def open_file(name: str, folder: int) -> int:
    """A regular file, to be read.

    Raises:
        OSError: it is not there, or it is a link, a device or anything else.
    """
    descriptor = os.open(name, _FILE, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(0, "it is no regular file")
    return descriptor


def copied(source: int, target: int | None, advance: Callable[[int], object]) -> tuple[int, str]:
    """Copy what is left of a file, or only read it; its size and SHA-256 in hex.

    Pieces without any byte but zeros become holes, so that a sparse file does not grow to its size.

    Args:
        source: descriptor of the file.
        target: where it is written to, if anywhere.
        advance: told of each piece how many bytes it has.
    """
    digest = hashlib.sha256()
    size = 0
    while piece := os.read(source, _PIECE):
        digest.update(piece)
        size += len(piece)
        if target is not None and piece == _ZEROS[: len(piece)]:
            os.lseek(target, len(piece), os.SEEK_CUR)
        elif target is not None:
            view = memoryview(piece)
            while view:
                view = view[os.write(target, view) :]
        advance(len(piece))
    if target is not None:
        os.ftruncate(target, size)
    return size, digest.hexdigest()


def bytes_on_disk(status: os.stat_result) -> int:
    """What a file takes on a disk: less than its size where it has holes."""
    return min(status.st_size, status.st_blocks * _BLOCK)
