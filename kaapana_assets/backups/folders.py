"""Reads and writes folders by descriptor, so that no link in them leads elsewhere."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A FIFO that replaced a file must not block the reader.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_BLOCK = 512  # the unit of st_blocks, on every file system
_DEEPEST = 200


@dataclass(frozen=True)
class FolderEntry:
    """One entry that a walk found: a file, an empty folder, or a special file.

    Attributes:
        path: path below the start of the walk, with ``/``.
        folder: descriptor of its parent folder, open until the walk continues.
        name: name in the parent folder.
        status: status of the entry itself; links are not followed.
        too_deep: whether it is a folder that the walk did not enter, because it is nested too deep.
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
        """Whether it is an empty folder."""
        return stat.S_ISDIR(self.status.st_mode) and not self.too_deep


def names_in(folder: int) -> list[str]:
    """The names of the entries of an open folder, sorted; none if it was removed meanwhile, as by a nightly clean."""
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


@contextmanager
def opened(path: str | Path, *, within: int | None = None) -> Iterator[int]:
    """Open a folder for the duration of the context; yields its descriptor."""
    descriptor = os.open(path, FOLDER, dir_fd=within)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_tree(home: int, name: str) -> int | None:
    """Open a top-level folder of a home; None if there is none.

    Such a folder can be on another disk: a link to it is followed if it belongs to the platform's user or to
    root. Links below are never followed.
    """
    try:
        status = os.stat(name, dir_fd=home, follow_symlinks=False)
        own_link = stat.S_ISLNK(status.st_mode) and status.st_uid in (0, os.geteuid())
        return os.open(name, FOLDER & ~os.O_NOFOLLOW if own_link else FOLDER, dir_fd=home)
    except (FileNotFoundError, NotADirectoryError):
        return None


def walk(folder: int, prefix: str, kept: Callable[[str], bool]) -> Iterator[FolderEntry]:
    """Walk a folder, sorted by name: yields files, special files and empty folders.

    Entries that disappear meanwhile are skipped. Folders nested more than 200 deep are not entered, because
    each open folder takes a descriptor.

    Args:
        folder: descriptor of the folder.
        prefix: path of the folder with a ``/`` at the end, prepended to all paths; empty at the top.
        kept: whether a path is included; an excluded folder is not entered.
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
                    yield FolderEntry(path, here, name, status, too_deep=is_folder)
                    continue
                below = os.open(name, FOLDER, dir_fd=here)
            except (FileNotFoundError, NotADirectoryError):
                continue
            inside = names_in(below)
            stack.append((below, iter(inside), f"{path}/"))
            if not inside:
                yield FolderEntry(path, here, name, status)
    finally:
        for descriptor, _, _ in stack:
            os.close(descriptor)


def open_file(name: str, folder: int) -> int:
    """Open a regular file for reading; returns its descriptor.

    Raises:
        OSError: the file does not exist, or is a link or a special file.
    """
    descriptor = os.open(name, _FILE, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(0, "it is no regular file")
    return descriptor


def bytes_on_disk(status: os.stat_result) -> int:
    """The bytes that a file takes on disk: fewer than its size if it has holes."""
    return min(status.st_size, status.st_blocks * _BLOCK)
