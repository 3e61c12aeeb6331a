"""Reads and writes trees that operators can change: by descriptors, never through a symbolic link.

The kernel resolves a path anew at each use, and a process that can write one of its folders can put a link there in
between. So each folder is opened relative to its parent, and a link, a special file or an entry of the wrong kind
raises an error that names it. Only the first folder is given as a path: the folders above it belong to the platform.
Walks are iterative, so that a deep tree cannot exhaust the stack.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import secrets
import stat
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from kaapana_assets.errors import UnsafePath
from kaapana_assets.shown import shown
from kaapana_assets.tree_limits import Limits, Tally

DEEPEST = 256
"""The deepest walk, in folders: it holds a descriptor for each folder between the first and the current one."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a pipe without a writer would block.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_REMOVED_AT_DEPTH = 64
_NAMES_AT_ONCE = 10_000
_KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a folder",
}
SPECIAL_BITS = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX


class Found(NamedTuple):
    """A regular file: its name in its folder and its status when it was listed."""

    name: str
    status: os.stat_result


@dataclass(frozen=True)
class Folder:
    """An open folder, used within the ``with`` block that opened it.

    Attributes:
        fd: its descriptor.
        path: its path, for messages only.
    """

    fd: int
    path: Path

    @contextlib.contextmanager
    def below(self, *names: str, make: bool = False) -> Iterator[Folder]:
        """Open a folder below this one, following no link on the way.

        Raises:
            FileNotFoundError: a folder on the way does not exist, without ``make``.
            UnsafePath: an entry on the way is not a folder, or may not be read or made.
        """
        at, path = os.dup(self.fd), self.path
        try:
            for name in names:
                if make:
                    with _changing(path / name), contextlib.suppress(FileExistsError):
                        os.mkdir(name, dir_fd=at)
                inner = _open(at, path, name, _FOLDER)
                os.close(at)
                at, path = inner, path / name
            yield Folder(at, path)
        finally:
            os.close(at)

    def status(self, name: str) -> os.stat_result | None:
        """Return the status of an entry, of a link itself; None if there is no such entry.

        Raises:
            UnsafePath: this folder may not be searched.
        """
        try:
            return os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except PermissionError as exc:
            raise _unreadable(self.path / name, exc) from exc

    def has_folder(self, name: str) -> bool:
        """Whether there is a folder of that name.

        Raises:
            UnsafePath: an entry of that name is not a folder.
        """
        status = self.status(name)
        if status is not None and not stat.S_ISDIR(status.st_mode):
            raise _refusal(self.path / name, status, wanted="a folder")
        return status is not None

    def open_file(self, name: str, listed: os.stat_result | None = None) -> BinaryIO:
        """Open a regular file to read; the caller closes it.

        Args:
            name: its name.
            listed: its status when it was listed; a different file is refused.

        Raises:
            FileNotFoundError: it does not exist, and ``listed`` is not given.
            UnsafePath: it is not a regular file, is not the listed file, or may not be read.
        """
        descriptor = _open(self.fd, self.path, name, _FILE, is_listed=listed is not None)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or (listed is not None and not os.path.samestat(status, listed)):
            os.close(descriptor)
            raise _refusal(self.path / name, status, wanted="the file that was there before")
        return os.fdopen(descriptor, "rb")

    def read(self, name: str) -> bytes:
        """Return the content of a regular file; raises as ``open_file`` does."""
        with self.open_file(name) as file:
            return file.read()

    def create(self, name: str) -> BinaryIO:
        """Create a file and open it to write; the caller closes it.

        Raises:
            FileExistsError: there is an entry of that name, of any kind.
            UnsafePath: this folder may not be written to.
        """
        with _changing(self.path / name):
            return os.fdopen(os.open(name, _NEW, 0o666, dir_fd=self.fd), "wb")

    def write(self, name: str, content: bytes, *, durable: bool = False) -> None:
        """Write a file atomically; it replaces a file or a link of that name.

        Args:
            name: its name.
            content: its whole content.
            durable: sync it, so that it survives a power cut once this returns.

        Raises:
            UnsafePath: there is a folder of that name, or this folder may not be written to.
        """
        staged = f".{secrets.token_hex(8)}.partial"
        with self.create(staged) as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        try:
            os.replace(staged, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        except IsADirectoryError as exc:
            os.unlink(staged, dir_fd=self.fd)
            raise UnsafePath(f"{self.path / name} is a folder, where the platform writes a file: remove it") from exc
        if durable:
            os.fsync(self.fd)

    def rename(self, name: str, target: Folder, new_name: str) -> None:
        """Move an entry to another folder, as ``rename(2)`` does: it replaces a file, or an empty folder by a folder.

        Raises:
            FileNotFoundError: there is no such entry.
            UnsafePath: it may not be moved.
        """
        with _changing(self.path / name):
            os.rename(name, new_name, src_dir_fd=self.fd, dst_dir_fd=target.fd)

    def make_writable(self) -> None:
        """Give its owner all permissions on it, if this process runs as its owner.

        Raises:
            UnsafePath: the permissions cannot be changed.
        """
        status = os.fstat(self.fd)
        if status.st_uid == os.geteuid() and status.st_mode & 0o700 != 0o700:
            with _changing(self.path):
                os.fchmod(self.fd, stat.S_IMODE(status.st_mode) | 0o700)

    def link(self, found: Found, target: Folder) -> None:
        """Hard-link a listed file into another folder, which only the platform can write by now.

        Raises:
            OSError: as ``os.link``.
            UnsafePath: the file was replaced since it was listed.
        """
        name = found.name
        os.link(name, name, src_dir_fd=self.fd, dst_dir_fd=target.fd, follow_symlinks=False)
        status = os.stat(name, dir_fd=target.fd, follow_symlinks=False)
        if not os.path.samestat(status, found.status):
            os.unlink(name, dir_fd=target.fd)
            raise _refusal(self.path / name, status, wanted="the file that was there before")

    def walk(
        self, *, limits: Limits | None = None, without: Container[str | None] = (), strict: bool = True
    ) -> Iterator[tuple[str, Folder, list[Found]]]:
        """Yield each folder of the tree, this one first: its path relative to this one, the folder, its sorted files.

        A folder is closed when the next one is requested.

        Args:
            limits: the largest allowed tree.
            without: names to skip in this folder itself.
            strict: refuse an entry that is neither a regular file nor a folder; else skip it.

        Raises:
            UnsafePath: there is such an entry, the tree exceeds a limit or the deepest walk, or a folder may not
                be read.
        """
        allowed = DEEPEST if limits is None else min(limits.depth, DEEPEST)
        tally = Tally(self.path, limits)
        trail = [(os.dup(self.fd), "", [""])]  # an open folder, its path, names of folders to visit
        try:
            while trail:
                above, place, names = trail[-1]
                if not names:
                    os.close(trail.pop()[0])
                    continue
                name = names.pop()
                if len(trail) - 1 > allowed:
                    raise UnsafePath(f"{self.path} is nested deeper than {allowed} folders: {place[:200]}")
                descriptor = (
                    os.dup(above) if name == "" else _open(above, self.path / place, name, _FOLDER, is_listed=True)
                )
                inner = f"{place}/{name}" if place else name
                below: list[str] = []
                trail.append((descriptor, inner, below))
                folder = Folder(descriptor, self.path / inner if inner else self.path)
                files = folder._entries(
                    below, tally, place_length=len(inner), strict=strict, without=without if name == "" else ()
                )
                tally.add_size(sum(found.status.st_size for found in files))
                yield inner, folder, files
        finally:
            for descriptor, _, _ in trail:
                os.close(descriptor)

    def _entries(
        self, folders: list[str], tally: Tally, *, place_length: int, strict: bool, without: Container[str | None]
    ) -> list[Found]:
        """Return the sorted files of this folder; append the names of its folders to ``folders``, in reverse order."""
        files = []
        with os.scandir(self.fd) as entries:
            for entry in entries:
                if entry.name in without:
                    continue
                tally.add_entry(place_length + len(entry.name))
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                except PermissionError as exc:
                    raise _unreadable(self.path / entry.name, exc) from exc
                if stat.S_ISREG(status.st_mode):
                    files.append(Found(entry.name, status))
                elif stat.S_ISDIR(status.st_mode):
                    folders.append(entry.name)
                elif strict:
                    raise _refusal(self.path / entry.name, status, wanted="a plain file or folder")
        folders.sort(reverse=True)
        files.sort(key=lambda found: found.name)
        return files

    def remove(self, name: str) -> list[str]:
        """Remove an entry with all its content; return what cannot be removed, each with the reason."""
        return _Removal(self).remove(name)


@contextlib.contextmanager
def opened(folder: Path, *names: str, make: bool = False) -> Iterator[Folder]:
    """Open a folder of the platform, or a folder below it that operators can write; see ``Folder.below``.

    Args:
        folder: absolute or relative path; the folders above it belong to the platform.
        names: names of the folders below it, from the top.
        make: create missing folders.
    """
    if make:
        folder.mkdir(parents=True, exist_ok=True)
    descriptor = _open(None, folder.parent, str(folder), _FOLDER)
    try:
        with Folder(descriptor, folder).below(*names, make=make) as found:
            yield found
    finally:
        os.close(descriptor)


@dataclass
class _Emptied:
    """A folder that is being emptied.

    Attributes:
        name: its name in the folder above.
        names: names of the entries to remove next.
        left: names of the entries that cannot be removed.
    """

    folder: Folder
    name: str
    names: list[str]
    left: set[str]


class _Removal:
    """Removes a tree of any depth and width with few descriptors; entries that it cannot remove do not stop it."""

    def __init__(self, parent: Folder) -> None:
        self._parent = parent
        self._problems: list[str] = []
        self._trail: list[_Emptied] = []

    def remove(self, name: str) -> list[str]:
        try:
            self._attempt(self._remove_or_enter, self._parent, name, set())
            while self._trail:
                last = self._trail[-1]
                last.names = last.names or _some_names(last.folder.fd, last.left)
                if last.names:
                    self._attempt(self._remove_or_enter, last.folder, last.names.pop(), last.left)
                    continue
                os.close(self._trail.pop().folder.fd)
                above = self._trail[-1] if self._trail else None
                self._attempt(
                    lambda folder, name: os.rmdir(name, dir_fd=folder.fd),
                    self._parent if above is None else above.folder,
                    last.name,
                    set() if above is None else above.left,
                    is_told=bool(last.left),
                )
        finally:
            for each in self._trail:
                os.close(each.folder.fd)
        return self._problems

    def _attempt(
        self, act: Callable[[Folder, str], None], folder: Folder, name: str, left: set[str], *, is_told: bool = False
    ) -> None:
        try:
            act(folder, name)
        except FileNotFoundError:
            return
        except (OSError, UnsafePath) as exc:
            left.add(name)
            if not is_told:
                reason = exc.strerror if isinstance(exc, OSError) else str(exc)
                self._problems.append(shown(f"{folder.path / name}: {reason}"))

    def _remove_or_enter(self, folder: Folder, name: str) -> None:
        status = folder.status(name)
        if status is None:
            return
        if not stat.S_ISDIR(status.st_mode):
            os.unlink(name, dir_fd=folder.fd)
        elif len(self._trail) < _REMOVED_AT_DEPTH:
            self._trail.append(_Emptied(Folder(_open_own(name, folder.fd), folder.path / name), name, [], set()))
        else:  # moved up into the first folder, whose next listing finds it
            os.close(_open_own(name, folder.fd))
            first = self._trail[0].folder
            os.rename(name, f".deep-{secrets.token_hex(8)}", src_dir_fd=folder.fd, dst_dir_fd=first.fd)


def _open_own(name: str, parent: int) -> int:
    """Open a folder that is to be emptied, and make it writable if its owner made it read-only."""
    handle = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        status = os.fstat(handle)
        if status.st_uid == os.geteuid() and status.st_mode & 0o700 != 0o700:
            Path(f"/proc/self/fd/{handle}").chmod(0o700)  # the handle names this very folder, not a link
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=handle)
    finally:
        os.close(handle)


def _some_names(folder: int, left: Container[str]) -> list[str]:
    with os.scandir(folder) as entries:
        return list(itertools.islice((entry.name for entry in entries if entry.name not in left), _NAMES_AT_ONCE))


@contextlib.contextmanager
def _changing(path: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as exc:
        raise UnsafePath(f"{path} cannot be made, changed or moved: {exc.strerror}") from exc


def _open(parent: int | None, place: Path, name: str, flags: int, *, is_listed: bool = False) -> int:
    try:
        return os.open(name, flags, dir_fd=parent)
    except OSError as exc:
        wanted = "a folder" if flags & os.O_DIRECTORY else "a plain file"
        if exc.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO):
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=parent, follow_symlinks=False)
                raise _refusal(place / name, status, wanted=wanted) from exc
        if exc.errno in (errno.EACCES, errno.EPERM):
            raise _unreadable(place / name, exc) from exc
        if exc.errno == errno.ENOENT and is_listed:
            raise UnsafePath(f"{place / name} was removed while the platform read what is beside it") from exc
        raise


def _unreadable(path: Path, exc: OSError) -> UnsafePath:
    return UnsafePath(f"{path} cannot be read: {exc.strerror}")


def _refusal(path: Path, status: os.stat_result, *, wanted: str) -> UnsafePath:
    kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something unknown")
    return UnsafePath(f"{path} is {kind}, not {wanted}: the platform takes no links and special files from operators")
