"""Copies the files of a home, one tree at a time, into a manifest; ``taking`` decides the order."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from kaapana_assets.backups import contents
from kaapana_assets.backups.backup_folder import BackupFolder
from kaapana_assets.backups.databases import copy_sqlite
from kaapana_assets.backups.folders import FolderEntry, names_in, open_file, open_tree, opened, walk
from kaapana_assets.backups.manifest import MTIME_END, Entry, ManifestWriter
from kaapana_assets.dicom.identifiers import is_uid
from kaapana_assets.errors import StoreUnavailable
from kaapana_assets.shown import shown

_CATALOG = "archive/catalog.sqlite"
_ENDING = ".dcm"
_TRIES = 10


@dataclass
class TakenBackup:
    """The result of a backup.

    Attributes:
        name: name of the backup.
        files: number of files in the backup.
        size_bytes: size of all its files.
        new_bytes: size of the files that were copied by this backup.
        passed_over: links, sockets, devices, and paths that are too long or too deep; no backup holds them.
        missing: files and series that the archive's catalog lists but the archive does not have.
    """

    name: str
    files: int = 0
    size_bytes: int = 0
    new_bytes: int = 0
    passed_over: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


class Copying:
    """Copies the trees of a home into one backup.

    Args:
        folder: the backup folder.
        writer: writer of the manifest.
        taken: result of the backup; collects what could not be copied.
        advance: called with each number of bytes that were processed.
    """

    def __init__(
        self, folder: BackupFolder, writer: ManifestWriter, taken: TakenBackup, advance: Callable[[int], object]
    ) -> None:
        self._folder = folder
        self._writer = writer
        self._taken = taken
        self._advance = advance
        self._spooled: set[str] = set()

    def take_all(self, found: Iterator[FolderEntry]) -> None:
        """Copy everything that a walk finds."""
        for each in found:
            self._note(self._entry(each))

    def take_catalog(self, home: int) -> str | None:
        """Copy the catalog of the archive; returns the digest of the copy, None without a catalog."""
        tree = open_tree(home, "archive")
        if tree is None:
            return None
        try:
            name = _CATALOG.rpartition("/")[2]
            entry = self._entry(FolderEntry(_CATALOG, tree, name, os.stat(name, dir_fd=tree, follow_symlinks=False)))
        except FileNotFoundError:
            return None
        finally:
            os.close(tree)
        self._note(entry)
        return entry.sha256 if entry else None

    def take_shelf(self, home: int) -> None:
        """Copy the shelf entry by entry; each copy is consistent even if the entry is replaced meanwhile."""
        tree = open_tree(home, "assets")
        if tree is None:
            return
        try:
            for workflow, in_workflow in self._folders_of(tree, "assets/"):
                for operator, in_operator in self._folders_of(in_workflow, workflow):
                    for name in names_in(in_operator):
                        self._take_entry(in_operator, name, f"{operator}{name}")
        finally:
            os.close(tree)

    def take_archive(self, home: int, catalog: str | None) -> None:
        """Copy the archive; files that the copied catalog does not list go to the spool of the backup."""
        tree = open_tree(home, "archive")
        if tree is None:
            return
        try:
            if catalog is None:  # the platform rebuilds the catalog from the files
                self.take_all(walk(tree, "archive/", lambda path: path != _CATALOG and contents.is_kept(path)))
                return
            with closing(sqlite3.connect(f"{self._folder.path_of(catalog).as_uri()}?immutable=1", uri=True)) as listed:
                series = {row[0] for row in listed.execute("SELECT series FROM series")}
                for study, in_study in self._folders_of(tree, "archive/"):
                    for name in names_in(in_study):
                        self._take_series(in_study, name, f"{study}{name}", listed)
                        series.discard(name)
            self._taken.missing += [f"series {uid}" for uid in sorted(series)]
        finally:
            os.close(tree)

    def _take_series(self, study: int, name: str, path: str, listed: sqlite3.Connection) -> None:
        try:
            folder_context = opened(name, within=study)
            with folder_context as folder:
                query = "SELECT sop FROM instances WHERE series = ?"
                expected = {f"{sop}{_ENDING}" for (sop,) in listed.execute(query, (name,))}
                seen = set()
                for found in walk(folder, f"{path}/", contents.is_kept):
                    entry = self._entry(self._placed(found, name, expected))
                    if entry is not None:
                        seen.add(found.name)
                        self._note(entry)
                self._taken.missing += [f"{path}/{sop}" for sop in sorted(expected - seen)]
        except (NotADirectoryError, FileNotFoundError):
            self._taken.passed_over.append(path)

    def _placed(self, found: FolderEntry, series: str, expected: set[str]) -> FolderEntry:
        uid = found.name.removesuffix(_ENDING)
        if found.name in expected or not found.is_file or not is_uid(uid) or not is_uid(series):
            return found
        return replace(found, path=f"{contents.SPOOL}/{series}/{found.name}")

    def _take_entry(self, operator: int, name: str, path: str) -> None:
        for _ in range(_TRIES):
            try:
                with opened(name, within=operator) as folder:
                    entries = [self._entry(found) for found in walk(folder, f"{path}/", contents.is_kept)]
                    before = os.fstat(folder)
                if os.path.samestat(before, os.stat(name, dir_fd=operator, follow_symlinks=False)):
                    for entry in entries:
                        self._note(entry)
                    return
            except FileNotFoundError:
                continue
            except NotADirectoryError:
                self._taken.passed_over.append(path)
                return

    def _folders_of(self, folder: int, prefix: str) -> Iterator[tuple[str, int]]:
        """Open each subfolder and yield its path and descriptor; copy the other entries."""
        for name in names_in(folder):
            path = f"{prefix}{name}"
            if not contents.is_kept(path) or path == _CATALOG:
                continue
            try:
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if not stat.S_ISDIR(status.st_mode):
                    self._note(self._entry(FolderEntry(path, folder, name, status)))
                    continue
                with opened(name, within=folder) as below:
                    yield f"{path}/", below
            except (FileNotFoundError, NotADirectoryError):
                continue

    def _note(self, entry: Entry | None) -> None:
        if entry is None:
            return
        if entry.path.startswith(f"{contents.SPOOL}/"):
            if entry.path in self._spooled:
                return
            self._spooled.add(entry.path)
        self._writer.add(entry)

    def _entry(self, found: FolderEntry) -> Entry | None:
        """Copy a found file; None if it is gone, or is neither a file nor a folder."""
        mode = stat.S_IMODE(found.status.st_mode) & 0o777
        mtime_ns = min(max(0, found.status.st_mtime_ns), MTIME_END)
        if not contents.is_safe(found.path):
            self._taken.passed_over.append(found.path)
            return None
        if found.is_folder:
            return Entry(found.path, "folder", "", 0, mode, mtime_ns)
        if not found.is_file:
            self._taken.passed_over.append(found.path)
            return None
        try:
            copied = self._database(found) if contents.is_database(found.path) else self._file(found)
        except FileNotFoundError:
            return None
        return None if copied is None else Entry(found.path, "file", copied[1], copied[0], mode, mtime_ns)

    def _database(self, found: FolderEntry) -> tuple[int, str] | None:
        source = Path(f"/proc/self/fd/{found.folder}") / found.name
        try:
            size, digest = self._folder.take_made(lambda target: copy_sqlite(source, target))
        except StoreUnavailable as exc:
            if not source.exists():
                return None
            raise StoreUnavailable(f"{shown(found.path)}: {exc}") from exc
        self._taken.new_bytes += size
        self._advance(found.status.st_size)
        return size, digest

    def _file(self, found: FolderEntry) -> tuple[int, str] | None:
        try:
            source = open_file(found.name, found.folder)
        except FileNotFoundError:
            return None
        except PermissionError as exc:
            raise StoreUnavailable(f"{shown(found.path)} of the home cannot be read: {exc.strerror}") from exc
        except OSError:  # something that is no regular file replaced it
            self._taken.passed_over.append(found.path)
            return None
        try:
            status = os.fstat(source)
            known = self._folder.known(found.path, status)
            if known is not None:
                self._advance(status.st_size)
                return status.st_size, known
            size, digest = self._folder.take(source, self._advance)
            after = os.fstat(source)
            if (after.st_size, after.st_mtime_ns) == (status.st_size, status.st_mtime_ns) and size == status.st_size:
                self._folder.note(found.path, status, digest)
        finally:
            os.close(source)
        self._taken.new_bytes += size
        return size, digest
