"""The backup folder: a manifest for each backup, and each file content once, under its digest.

    kaapana-backup             marks the folder as a backup folder
    manifests/<time>.jsonl     one complete backup: see manifest.py
    files/<2 digits>/<sha256>  file contents, shared by all backups
    known.sqlite               the digests of files of the home, so that unchanged files are not read again
    tmp/                       partly written files

The folder belongs to one user alone. It is opened once, without following a link; everything in it is
opened relative to that descriptor.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from kaapana_assets.backups.folders import bytes_on_disk, names_in, open_file, opened
from kaapana_assets.backups.manifest import Reader
from kaapana_assets.backups.names import in_order, is_given_by_time
from kaapana_assets.backups.places import BACKUPS as MARKER
from kaapana_assets.errors import ConfigurationError, DamagedBackup, NotFound, StoreUnavailable, TemporaryError
from kaapana_assets.shown import shown
from kaapana_assets.stores.files.durable import free_bytes
from kaapana_assets.stores.files.transfer import copy_bytes, sync_file_system

_MANIFESTS, _FILES, _TEMPORARY, _KNOWN = "manifests", "files", "tmp", "known.sqlite"
_FOLDERS = (_MANIFESTS, _FILES, _TEMPORARY)
_SYNC_AFTER_BYTES = 256 * 1024**2
_SYNC_AFTER_FILES = 2000
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OTHERS = 0o077


class BackupFolder:
    """An open backup folder; see ``open_to_write`` and ``open_to_read``."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._fd = descriptor
        self._known: sqlite3.Connection | None = None
        self._unsynced_files = self._unsynced_bytes = 0

    def free_bytes(self) -> int:
        """Free space of its file system, in bytes."""
        return free_bytes(self._reachable)

    # Contents.

    def known(self, path: str, status: os.stat_result) -> str | None:
        """The digest of a file that was copied before and has not changed since, by its status; else None."""
        row = self._database.execute(
            "SELECT sha256 FROM known WHERE path = ? AND size = ? AND mtime_ns = ? AND inode = ?", _key(path, status)
        ).fetchone()
        kept = self._status_of(row[0]) if row else None
        return row[0] if kept is not None and kept.st_size == status.st_size else None

    def take(self, source: int, advance: Callable[[int], object]) -> tuple[int, str]:
        """Store the rest of an open file; returns its size and digest."""
        name = self._temporary_name()
        with self._writing(name):
            target = os.open(f"{_TEMPORARY}/{name}", _NEW, 0o600, dir_fd=self._fd)
            try:
                size, digest = copy_bytes(source, target, with_holes=True, advance=advance)
            finally:
                os.close(target)
            self._keep(name, size, digest)
        return size, digest

    def take_made(self, make: Callable[[Path], object]) -> tuple[int, str]:
        """Store a file that ``make`` writes to the path it is called with; returns its size and digest."""
        name = self._temporary_name()
        with self._writing(name):
            make(self._reachable / _TEMPORARY / name)
            made = open_file(f"{_TEMPORARY}/{name}", self._fd)
            try:
                os.fchmod(made, 0o600)
                size, digest = copy_bytes(made, None)
            finally:
                os.close(made)
            self._keep(name, size, digest)
        return size, digest

    def note(self, path: str, status: os.stat_result, digest: str) -> None:
        """Record the digest of a stored file; ``sync`` commits it after the content is durable."""
        self._database.execute("INSERT OR REPLACE INTO known VALUES (?, ?, ?, ?, ?)", (*_key(path, status), digest))
        if self._unsynced_files >= _SYNC_AFTER_FILES or self._unsynced_bytes >= _SYNC_AFTER_BYTES:
            self.sync()

    def sync(self) -> None:
        """Make stored contents durable, then their recorded digests."""
        sync_file_system(self._reachable)
        self._database.commit()
        self._unsynced_files = self._unsynced_bytes = 0

    def forget(self, digest: str) -> None:
        """Forget a damaged content, so that the next backup copies it from the home again."""
        self._database.execute("DELETE FROM known WHERE sha256 = ?", (digest,))
        self._database.commit()

    def path_of(self, digest: str) -> Path:
        """The path of a content, for libraries that open by path; valid while this folder is open."""
        return self._reachable / _place(digest)

    def check(self, digest: str, size: int, path: str) -> int:
        """Check that a content exists and has its size, without reading it; returns the bytes it takes on disk.

        Raises:
            DamagedBackup: the content is missing or has another size.
        """
        status = self._status_of(digest)
        if status is None or status.st_size != size:
            raise DamagedBackup(
                f"the backup {self.path} is damaged: {_place(digest)}, the content of {path}, is not there or has "
                "another size; look at its other backups with `kaapana-assets backup --verify`"
            )
        return bytes_on_disk(status)

    @contextmanager
    def content(self, digest: str, path: str) -> Iterator[int]:
        """Open a content for reading; yields its descriptor.

        Args:
            digest: SHA-256 of the content in hex.
            path: path of the file in the home, for messages.

        Raises:
            DamagedBackup: the content is missing, or is a link, a folder or a device.
        """
        where = _place(digest)
        try:
            with opened(_FILES, within=self._fd) as files, opened(digest[:2], within=files) as folder:
                descriptor = open_file(digest, folder)
        except OSError as exc:
            raise DamagedBackup(
                f"the backup {self.path} is damaged: {where}, the content of {path}, cannot be read: "
                f"{exc.strerror or exc}"
            ) from exc
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    # Manifests.

    def names(self) -> list[str]:
        """The names of all complete backups, oldest first."""
        with opened(_MANIFESTS, within=self._fd) as folder:
            return in_order(name.removesuffix(".jsonl") for name in names_in(folder) if name.endswith(".jsonl"))

    @contextmanager
    def manifest(self, name: str = "") -> Iterator[Reader]:
        """Open the manifest of a backup; without a name, of the newest.

        Raises:
            NotFound: there is no such backup.
            DamagedBackup: the manifest cannot be read.
        """
        names = self.names()
        if not names:
            raise NotFound(
                f"{self.path} has no whole backup: one that was begun is finished by the same `kaapana-assets backup`"
            )
        if name and name not in names:
            raise NotFound(f"{self.path} has no backup {name}, but {', '.join(names)}")
        file = f"{name or names[-1]}.jsonl"
        try:
            with opened(_MANIFESTS, within=self._fd) as folder:
                descriptor = open_file(file, folder)
        except OSError as exc:
            raise DamagedBackup(f"{self.path}/{_MANIFESTS}/{file} cannot be read: {exc.strerror or exc}") from exc
        with os.fdopen(descriptor, "rb") as open_manifest:
            yield Reader(open_manifest, f"{self.path}/{_MANIFESTS}/{file}")

    @contextmanager
    def new_manifest(self, name: str) -> Iterator[IO[bytes]]:
        """Open a new manifest for writing; it is published, durably, when the context ends without an error."""
        temporary = self._temporary_name()
        with self._writing(temporary):
            descriptor = os.open(f"{_TEMPORARY}/{temporary}", _NEW, 0o600, dir_fd=self._fd)
            with os.fdopen(descriptor, "wb") as file:
                yield file
                self.sync()
                file.flush()
                os.fsync(descriptor)
            target = f"{_MANIFESTS}/{name}.jsonl"
            os.rename(f"{_TEMPORARY}/{temporary}", target, src_dir_fd=self._fd, dst_dir_fd=self._fd)
            with opened(_MANIFESTS, within=self._fd) as folder:
                os.fsync(folder)

    def remove_but(self, keep: int) -> int:
        """Remove all backups but the newest ``keep`` and renamed ones, and the contents that none needs any more.

        Returns:
            The number of removed contents.

        Raises:
            DamagedBackup: a manifest that stays cannot be read; then nothing is removed.
        """
        names = self.names()
        old = [name for name in names if is_given_by_time(name)][:-keep]
        used: set[str] = set()
        for name in (name for name in names if name not in old):
            with self.manifest(name) as reader:
                used.update(entry.sha256 for entry in reader.entries())
        for name in old:
            os.unlink(f"{_MANIFESTS}/{name}.jsonl", dir_fd=self._fd)
        removed = 0
        with opened(_FILES, within=self._fd) as files:
            for two in names_in(files):
                with opened(two, within=files) as folder:
                    for digest in names_in(folder):
                        if digest not in used:
                            os.unlink(digest, dir_fd=folder)
                            removed += 1
        return removed

    # What a backup folder consists of.

    def prepare(self) -> None:
        """Create its files and folders, and remove the partly written files of a killed backup."""
        for name in (MARKER, _KNOWN):
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=self._fd))
        for name in _FOLDERS:
            with suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=self._fd)
        with opened(_TEMPORARY, within=self._fd) as folder:
            for name in names_in(folder):
                os.unlink(name, dir_fd=folder)

    def close(self) -> None:
        """Close the folder and its database."""
        if self._known is not None:
            self._known.close()
        os.close(self._fd)

    @property
    def _reachable(self) -> Path:
        # For libraries and programs that open by path; it leads to this folder even after a rename.
        return Path(f"/proc/{os.getpid()}/fd/{self._fd}")

    @property
    def _database(self) -> sqlite3.Connection:
        if self._known is None:
            self._known = sqlite3.connect(self._reachable / _KNOWN)
            self._known.execute(
                "CREATE TABLE IF NOT EXISTS known (path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, "
                "inode INTEGER, sha256 TEXT) WITHOUT ROWID"
            )
            self._known.execute("CREATE INDEX IF NOT EXISTS by_content ON known (sha256)")
        return self._known

    def _keep(self, temporary: str, size: int, digest: str) -> None:
        target = _place(digest)
        with suppress(FileExistsError):
            os.mkdir(target.rpartition("/")[0], 0o700, dir_fd=self._fd)
        # Also replaces an existing file: its writer may have been killed before the content was durable.
        os.replace(f"{_TEMPORARY}/{temporary}", target, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        self._unsynced_files += 1
        self._unsynced_bytes += size

    def _status_of(self, digest: str) -> os.stat_result | None:
        try:
            status = os.stat(_place(digest), dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return None
        return status if stat.S_ISREG(status.st_mode) else None

    def _temporary_name(self) -> str:
        return uuid.uuid4().hex

    @contextmanager
    def _writing(self, temporary: str) -> Iterator[None]:
        try:
            yield
        finally:
            with suppress(FileNotFoundError):
                os.unlink(f"{_TEMPORARY}/{temporary}", dir_fd=self._fd)


@contextmanager
def open_to_write(path: Path, *, make: bool = True) -> Iterator[BackupFolder]:
    """Open a backup folder for writing; only one process can at a time.

    Args:
        path: path of the folder.
        make: whether a missing folder is created.

    Raises:
        NotFound: there is no backup folder, and ``make`` is false.
        ConfigurationError: the folder belongs to another user, is open to others, is a link, or holds other files.
        TemporaryError: another process writes to the folder.
        StoreUnavailable: the folder is not writable, or its disk is full.
    """
    with ExitStack() as stack, translated(path):
        if make:
            with suppress(FileExistsError):
                path.mkdir(mode=0o700, parents=True)
        folder = stack.enter_context(_open(path))
        names = set(names_in(folder._fd))
        if not make and MARKER not in names:
            raise NotFound(f"{path} is no folder of backups: it has no file {MARKER}")
        if names - {"lost+found"} and MARKER not in names:
            raise ConfigurationError(f"{path} is not empty and no folder of backups: name an empty or a new folder")
        try:
            fcntl.flock(folder._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise TemporaryError(f"another process works on the backup {path}: wait for its end") from exc
        folder.prepare()
        try:
            yield folder
        except sqlite3.Error as exc:
            raise StoreUnavailable(
                f"{path / _KNOWN} cannot be used ({exc}): delete it, then all files are read once again"
            ) from exc


@contextmanager
def open_to_read(path: Path) -> Iterator[BackupFolder]:
    """Open a backup folder for reading.

    Raises:
        NotFound: there is no backup folder.
        ConfigurationError: the folder belongs to another user, is open to others, or is a link.
    """
    with translated(path), _open(path) as folder:
        if MARKER not in names_in(folder._fd):
            raise NotFound(f"{path} is no folder of backups: it has no file {MARKER}")
        yield folder


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Translate an ``OSError`` about a path.

    Raises:
        NotFound: a file or folder does not exist.
        StoreUnavailable: any other error.
    """
    try:
        yield
    except FileNotFoundError as exc:
        raise NotFound(f"{path}: {exc.filename or 'a file'} is not there") from exc
    except OSError as exc:
        hint = ""
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = ": make room; the same command then goes on where it was"
        what = f" ({shown(str(exc.filename))})" if exc.filename else ""
        raise StoreUnavailable(f"{path} cannot be used: {exc.strerror or exc}{what}{hint}") from exc


@contextmanager
def _open(path: Path) -> Iterator[BackupFolder]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as exc:
        if exc.errno in (errno.ELOOP, errno.ENOTDIR):
            raise ConfigurationError(f"{path} is a link or no folder: name the folder of backups itself") from exc
        raise
    folder = BackupFolder(path, descriptor)
    try:
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid():
            raise ConfigurationError(
                f"the folder of backups {path} belongs to user {status.st_uid}, who could change what is restored: "
                f"look at where it is from, then chown -R {os.geteuid()} {path}"
            )
        if status.st_mode & _OTHERS:
            raise ConfigurationError(
                f"the folder of backups {path} holds patients' data and others can reach it: chmod 700 {path}"
            )
        yield folder
    finally:
        folder.close()


def _key(path: str, status: os.stat_result) -> tuple[str, int, int, int]:
    """The key of a file in ``known``. SQLite stores neither non-UTF-8 text nor integers over 64 bits."""
    text = path.encode(errors="backslashreplace").decode()
    return text, status.st_size, _signed(status.st_mtime_ns), _signed(status.st_ino)


def _signed(number: int) -> int:
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


def _place(digest: str) -> str:
    return f"{_FILES}/{digest[:2]}/{digest}"
