"""Verifies backups, and restores homes from them.

A backup is not trusted: paths come from the manifest only and must be valid in a home; files are written by
descriptor from the home downwards, never through a link, and never replace a file. Code in a backup (workflow
files) is not executed by a restore; the platform executes it later.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from kaapana_assets.backups.backup_folder import BackupFolder, translated
from kaapana_assets.backups.databases import free_of, load, served
from kaapana_assets.backups.folders import FOLDER, names_in, open_file
from kaapana_assets.backups.manifest import Entry, Header
from kaapana_assets.backups.places import check_new_home
from kaapana_assets.errors import ConfigurationError, DamagedBackup, StoreUnavailable, TemporaryError
from kaapana_assets.home import RESTORING, make_home
from kaapana_assets.home_paths import HomePaths
from kaapana_assets.shown import shown
from kaapana_assets.stores.files.transfer import copy_bytes, sync_file_system

_MARK = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NOT_WRITABLE_BY_OTHERS = 0o755
_EMPTY = {"lost+found"}


def verify(folder: BackupFolder, advance: Callable[[int], object]) -> dict[str, str]:
    """Read every file of every backup in a folder and compare it with its digest.

    Returns:
        The reason by path of each damaged file. The next backup again copies those that the home still has.

    Raises:
        NotFound: there is no complete backup.
        DamagedBackup: a manifest is damaged.
    """
    damaged: dict[str, str] = {}
    seen: set[str] = set()
    for name in folder.names() or [""]:
        with folder.manifest(name) as manifest:
            for entry in manifest.entries():
                if entry.kind == "folder" or entry.sha256 in seen:
                    continue
                seen.add(entry.sha256)
                try:
                    with folder.content(entry.sha256, shown(entry.path)) as content:
                        found = copy_bytes(content, None, advance=advance)
                except DamagedBackup as exc:
                    damaged[entry.path] = str(exc)
                else:
                    if found == (entry.size, entry.sha256):
                        continue
                    damaged[entry.path] = _changed(folder, entry)
                folder.forget(entry.sha256)
    return damaged


class Restore:
    """Restores a home from one backup.

    Args:
        folder: the backup folder.
        home: path of the new home; must be empty or not exist.
        name: name of the backup; empty for the newest.
    """

    def __init__(self, folder: BackupFolder, home: Path, *, name: str = "") -> None:
        self._folder = folder
        self._home = home.absolute()
        self._name = name
        self._digest = ""

    def check(self) -> tuple[Header, int]:
        """Check the backup before anything is written; returns its header and its size in bytes.

        Raises:
            NotFound: there is no such backup.
            DamagedBackup: the backup is damaged or incomplete, or names a path that no backup holds.
            ConfigurationError: the new home is in another home, or in a backup folder.
            StoreUnavailable: the disk of the new home has too little free space.
        """
        check_new_home(self._home)
        needed = 0
        with self._folder.manifest(self._name) as manifest:
            for entry in manifest.entries():
                if entry.kind != "folder":
                    needed += self._folder.check(entry.sha256, entry.size, shown(entry.path))
            self._digest = manifest.digest
            header, size = manifest.header, manifest.size_bytes
        free = free_of(self._home)
        if needed > free and not (self._home / RESTORING).exists():
            raise StoreUnavailable(
                f"{self._home} has room for {free:,} bytes, the backup has {needed:,}: name another disk"
            )
        return header, size

    def run(self, advance: Callable[[int], object]) -> None:
        """Write all files and complete the home. After an interruption, the same call resumes.

        Args:
            advance: called with each number of bytes that were processed.

        Raises:
            ConfigurationError: the home is not empty, or belongs to another user.
            TemporaryError: another process restores into the home.
            DamagedBackup: a file is damaged; the home stays unfinished, and the platform refuses it.
            StoreUnavailable: the home is not writable.
        """
        if not self._digest:
            self.check()
        with translated(self._home):
            with suppress(FileExistsError):
                self._home.mkdir(mode=0o700, parents=True)
            with _claimed(self._home, self._digest) as home, self._folder.manifest(self._name) as manifest:
                dump: Entry | None = None
                for entry in manifest.entries():
                    if entry.kind == "postgres":
                        dump = entry
                    else:
                        self._put(home, entry, advance)
                if manifest.digest != self._digest:
                    raise DamagedBackup(f"the backup {self._folder.path} was changed while it was read")
                if dump is not None:
                    self._load(dump, advance)
                sync_file_system(self._home)
                os.unlink(RESTORING, dir_fd=home)
        make_home(self._home)

    def _load(self, entry: Entry, advance: Callable[[int], object]) -> None:
        data = HomePaths(self._home).postgres_data
        shutil.rmtree(data.parent, ignore_errors=True)  # of an interrupted restore
        with self._folder.content(entry.sha256, shown(entry.path)) as content:
            if copy_bytes(content, None, advance=advance) != (entry.size, entry.sha256):
                raise DamagedBackup(_changed(self._folder, entry))
            os.lseek(content, 0, os.SEEK_SET)
            with served(data) as postgres:
                load(postgres, content, name=f"{self._folder.path} ({entry.path})")

    def _put(self, home: int, entry: Entry, advance: Callable[[int], object]) -> None:
        *above, last = entry.path.split("/")
        if entry.kind == "folder":
            above, last = [*above, last], ""
        try:
            folder = _made(home, above)
            try:
                if last:
                    self._put_file(folder, last, entry, advance)
            finally:
                os.close(folder)
        except (NotADirectoryError, IsADirectoryError, FileExistsError) as exc:
            raise DamagedBackup(
                f"the backup {self._folder.path} has {shown(entry.path)} as a file and as a folder"
            ) from exc

    def _put_file(self, folder: int, name: str, entry: Entry, advance: Callable[[int], object]) -> None:
        with self._folder.content(entry.sha256, shown(entry.path)) as content:
            if _is_there(folder, name, entry):
                advance(entry.size)
                return
            target = os.open(name, _NEW, 0o600, dir_fd=folder)
            try:
                found = copy_bytes(content, target, with_holes=True, advance=advance)
                if found == (entry.size, entry.sha256):
                    os.utime(target, ns=(entry.mtime_ns, entry.mtime_ns))
                    os.fchmod(target, entry.mode & _NOT_WRITABLE_BY_OTHERS)
            finally:
                os.close(target)
        if found != (entry.size, entry.sha256):
            os.unlink(name, dir_fd=folder)
            raise DamagedBackup(_changed(self._folder, entry))


@contextmanager
def _claimed(home: Path, digest: str) -> Iterator[int]:
    """Open the home for one process and mark it as unfinished; yields its descriptor.

    Raises:
        ConfigurationError: the home holds anything but an unfinished restore of the same backup.
        TemporaryError: another process restores into the home.
    """
    with ExitStack() as stack:
        try:
            descriptor = os.open(home, FOLDER)
        except NotADirectoryError as exc:
            raise ConfigurationError(f"{home} is a link or no folder: name the folder itself") from exc
        stack.callback(os.close, descriptor)
        names = set(names_in(descriptor)) - _EMPTY
        if os.fstat(descriptor).st_uid != os.geteuid():
            raise ConfigurationError(f"{home} belongs to another user: name a folder of your own")
        if names and RESTORING not in names:
            raise ConfigurationError(_not_empty(home))
        # The mark is created only in an empty folder: in a complete home it would be wrong.
        flags = _MARK if names else _MARK | os.O_CREAT
        try:
            mark = stack.enter_context(os.fdopen(os.open(RESTORING, flags, 0o600, dir_fd=descriptor), "r+b", 0))
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError as exc:
            raise ConfigurationError(_not_empty(home)) from exc
        except BlockingIOError as exc:
            raise TemporaryError(f"another process restores into {home}: wait for its end") from exc
        claim = (mark.read(100) or b"").decode(errors="replace")
        now = set(names_in(descriptor)) - _EMPTY
        if RESTORING not in now:  # another process has ended
            raise ConfigurationError(_not_empty(home))
        is_new = not claim and now == {RESTORING}
        if not is_new and claim != digest:
            raise ConfigurationError(f"{_not_empty(home)}, or remove what another restore left there")
        os.fchmod(descriptor, 0o700)
        if is_new:
            mark.write(digest.encode())
            os.fsync(mark.fileno())
        yield descriptor


def _not_empty(home: Path) -> str:
    return f"{home} is not empty, and a restore replaces nothing: name a new or an empty folder"


def _made(home: int, names: list[str]) -> int:
    """Create a folder below the home with its parents, never through a link; returns its descriptor."""
    folder = os.dup(home)
    for name in names:
        try:
            with suppress(FileExistsError):
                os.mkdir(name, dir_fd=folder)
            below = os.open(name, FOLDER, dir_fd=folder)
        finally:
            os.close(folder)
        folder = below
    return folder


def _is_there(folder: int, name: str, entry: Entry) -> bool:
    """Whether an interrupted restore already wrote a file; a partly written file is removed."""
    try:
        descriptor = open_file(name, folder)
    except FileNotFoundError:
        return False
    try:
        whole = copy_bytes(descriptor, None) == (entry.size, entry.sha256)
        if whole:
            os.fchmod(descriptor, entry.mode & _NOT_WRITABLE_BY_OTHERS)
    finally:
        os.close(descriptor)
    if not whole:
        os.unlink(name, dir_fd=folder)
    return whole


def _changed(folder: BackupFolder, entry: Entry) -> str:
    return (
        f"the backup {folder.path} is damaged: files/{entry.sha256[:2]}/{entry.sha256}, the content of "
        f"{shown(entry.path)}, has another digest"
    )
