"""The files of an image folder, read so that nothing outside the folder can be reached.

Folders are opened by descriptor and no symbolic link is followed, neither when files are listed nor when
they are read: a link that is set in between is refused as well. Links, pipes, sockets and devices are
refused when the files are listed, before any is read, unless .dockerignore excludes them.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from kaapana_assets.errors import ConfigurationError

MAX_DEPTH = 64
"""The deepest nesting of folders; more is a mount loop or a mistake."""

_NOT_CONTENT = {"__pycache__", ".git", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
_IGNORE_FILES = ("Dockerfile.dockerignore", ".dockerignore")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # opening a pipe without a writer must not block
_NO_FOLDER_OR_LINK = (errno.ELOOP, errno.ENOTDIR, errno.EMLINK)


@dataclass(frozen=True)
class ImageFile:
    """A regular file of an image folder.

    Attributes:
        folder: the image folder.
        name: path below the folder, with slashes.
        status: file status when the files were listed.
    """

    folder: Path
    name: str
    status: os.stat_result

    @property
    def path(self) -> Path:
        """Path on this machine, to show and to compare; read the file by ``open``."""
        return self.folder / self.name

    @property
    def is_executable(self) -> bool:
        """Whether the owner may execute the file."""
        return bool(self.status.st_mode & stat.S_IXUSR)

    def open(self) -> BinaryIO:
        """Open the file for reading.

        Raises:
            ConfigurationError: the file is gone or no longer a regular file, or its path now has a link.
        """
        return _open_file(self.folder, self.name)

    def read_text(self) -> str:
        """The content as text; bytes that are not UTF-8 are replaced.

        Raises:
            ConfigurationError: as ``open`` raises it.
        """
        with self.open() as file:
            return file.read().decode("utf-8", "replace")


def image_files(folder: Path) -> tuple[ImageFile, ...]:
    """The files of an image folder, sorted by path, without bytecode, caches and ``.git``.

    Raises:
        ConfigurationError: the folder holds a link or a special file, is nested too deep, or is not readable.
    """
    ignored = _ignored(folder)
    found: list[ImageFile] = []
    pending = [PurePosixPath()]
    while pending:
        below = pending.pop()
        if len(below.parts) > MAX_DEPTH:
            raise ConfigurationError(
                f"image {folder.name}: {folder / below} is more than {MAX_DEPTH} folders deep: is a folder mounted "
                "inside itself? Move it out of the image folder"
            )
        for name, status in _entries(folder, below):
            path = below / name
            if name in _NOT_CONTENT or name.endswith(".pyc"):
                continue
            if stat.S_ISDIR(status.st_mode):
                pending.append(path)
            elif stat.S_ISREG(status.st_mode):
                found.append(ImageFile(folder, str(path), status))
            elif not ignored(str(path)):
                raise _refused(folder, path, status.st_mode)
    return tuple(sorted(found, key=lambda file: file.name.split("/")))


def context_files(folder: Path) -> tuple[ImageFile, ...]:
    """The files of the build context: ``image_files`` without those that .dockerignore excludes.

    Raises:
        ConfigurationError: as ``image_files`` raises it.
    """
    ignored = _ignored(folder)
    return tuple(file for file in image_files(folder) if not ignored(file.name))


def find_text(folder: Path, name: str) -> str | None:
    """The text of a file of an image folder, None if there is none; bytes that are not UTF-8 are replaced.

    Raises:
        ConfigurationError: the file is a link or a special file, or is not readable.
    """
    try:
        with _open_file(folder, name) as file:
            return file.read().decode("utf-8", "replace")
    except _Absent:
        return None


class _Absent(ConfigurationError):
    """There is no file of that name."""


def _open_folder(folder: Path, below: PurePosixPath) -> int:
    """The descriptor of a folder; the caller closes it."""
    descriptor = os.open(folder, _FOLDER)
    for part in below.parts:
        try:
            inner = os.open(part, _FOLDER, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        descriptor = inner
    return descriptor


def _entries(folder: Path, below: PurePosixPath) -> list[tuple[str, os.stat_result]]:
    try:
        descriptor = _open_folder(folder, below)
        try:
            with os.scandir(descriptor) as entries:
                return [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
        finally:
            os.close(descriptor)
    except OSError as exc:
        raise _translated(folder, below, exc) from exc


def _open_file(folder: Path, name: str) -> BinaryIO:
    path = PurePosixPath(name)
    try:
        descriptor = _open_folder(folder, path.parent)
        try:
            file = os.open(path.name, _FILE, dir_fd=descriptor)
        finally:
            os.close(descriptor)
    except OSError as exc:
        raise _translated(folder, path, exc) from exc
    mode = os.fstat(file).st_mode
    if not stat.S_ISREG(mode):
        os.close(file)
        raise _refused(folder, path, mode)
    return os.fdopen(file, "rb")


def _translated(folder: Path, path: PurePosixPath, exc: OSError) -> ConfigurationError:
    if exc.errno in _NO_FOLDER_OR_LINK:
        return _refused(folder, path, stat.S_IFLNK)
    if exc.errno == errno.ENXIO:  # raised when a socket is opened
        return _refused(folder, path, stat.S_IFSOCK)
    error = _Absent if exc.errno == errno.ENOENT else ConfigurationError
    return error(f"image {folder.name}: {folder / path} cannot be read: {exc.strerror}")


def _refused(folder: Path, path: PurePosixPath, mode: int) -> ConfigurationError:
    kinds = {stat.S_IFLNK: "a link", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder"}
    kind = kinds.get(stat.S_IFMT(mode), "a device")
    return ConfigurationError(
        f"image {folder.name}: {folder / path} is {kind} or leads through one; an image is made only of the regular "
        "files of its folder: put a copy of the file there, or exclude it by .dockerignore"
    )


def _ignored(folder: Path) -> Callable[[str], bool]:
    """A function that says whether .dockerignore excludes a path."""
    texts = (find_text(folder, name) for name in _IGNORE_FILES)
    text = next((each for each in texts if each is not None), None)
    if text is None:
        return lambda _: False
    from docker.utils.build import PatternMatcher  # Docker's own rules; slow to import

    patterns = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    matcher = PatternMatcher([*patterns, "!Dockerfile"])
    return lambda path: bool(matcher.matches(path))  # type: ignore[arg-type]  # its stub is wrong: names are str
