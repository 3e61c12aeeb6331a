"""The folders of waiting series, which many processes create, fill and remove concurrently."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections import OrderedDict
from pathlib import Path

from kaapana_assets.dicom.identifiers import is_uid
from kaapana_assets.durable import sync_folder

_KEPT_OPEN = 128
# The kernel's errors for a folder that was removed while open; network file systems return ESTALE.
_GONE = (errno.ENOENT, errno.ESTALE)


class OpenFolder:
    """An open folder, closed when the last reference to it goes."""

    def __init__(self, path: Path) -> None:
        self.fd = -1
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)


class SeriesFolders:
    """The folders ``<incoming>/<series>``.

    They stay open between objects. So a folder that another process removed and created again is never
    mistaken for the one whose entry was synced, and nothing is linked into a removed folder.
    """

    def __init__(self, incoming: Path) -> None:
        self._incoming = incoming
        self._kept: OrderedDict[str, OpenFolder] = OrderedDict()
        self._lock = threading.Lock()

    def link(self, source: Path, series_uid: str, name: str) -> tuple[OpenFolder, bool]:
        """Link ``source`` into the series as ``name``; return the folder and whether the name was free.

        An existing file of that name stays. The folder itself is durable; the new name is durable once
        the caller has synced the folder.
        """
        while True:
            folder = self._open(series_uid)
            try:
                os.link(source, name, dst_dir_fd=folder.fd)
            except FileExistsError:
                return folder, False
            except OSError as exc:
                if exc.errno not in _GONE or not source.exists():
                    raise
                self._forget(series_uid, folder)
            else:
                return folder, True

    def entries(self) -> list[os.DirEntry[str]]:
        """The folders of series, which are those named by a UID."""
        return [entry for entry in entries_of(self._incoming) if _is_series(entry)]

    def unexpected_entries(self) -> list[str]:
        """Relative paths of all entries that are neither the folder of a series nor an object in one.

        Somebody put them there by hand. They are never touched and do not hold back any series.
        """
        found = []
        for entry in entries_of(self._incoming):
            if _is_series(entry):
                found += [f"{entry.name}/{each.name}" for each in entries_of(entry.path) if not _is_object(each)]
            elif not entry.name.startswith("."):
                found.append(entry.name)
        return sorted(found)

    def _open(self, series_uid: str) -> OpenFolder:
        with self._lock:
            if kept := self._kept.get(series_uid):
                self._kept.move_to_end(series_uid)
                return kept
        path = self._incoming / series_uid
        folder = None
        while folder is None:
            # Not exist_ok, which fails if the folder is removed between mkdir and its check.
            with contextlib.suppress(FileExistsError):
                path.mkdir()
            try:
                folder = OpenFolder(path)
            except FileNotFoundError:
                continue  # another process removed the empty folder between the two calls
        sync_folder(self._incoming)
        with self._lock:
            self._kept[series_uid] = folder
            while len(self._kept) > _KEPT_OPEN:
                self._kept.popitem(last=False)
        return folder

    def _forget(self, series_uid: str, folder: OpenFolder) -> None:
        with self._lock:
            if self._kept.get(series_uid) is folder:
                del self._kept[series_uid]


def dicom_files(folder: Path | str) -> list[os.DirEntry[str]]:
    """The files ``*.dcm`` in ``folder``; none if the folder is missing."""
    return [entry for entry in entries_of(folder) if _is_object(entry)]


def entries_of(folder: Path | str) -> list[os.DirEntry[str]]:
    """All entries of ``folder``; none if it is missing. The folder is closed on return."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []  # also if another process has just removed it


def _is_series(entry: os.DirEntry[str]) -> bool:
    return is_uid(entry.name) and entry.is_dir(follow_symlinks=False)


def _is_object(entry: os.DirEntry[str]) -> bool:
    return entry.name.endswith(".dcm") and entry.is_file(follow_symlinks=False)
