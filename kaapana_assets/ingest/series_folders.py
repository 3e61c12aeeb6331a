"""The folders of waiting series: made, kept open, filled and removed by many processes at once."""

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
# What the kernel answers when a folder was removed while we held it open; network file systems say ESTALE.
_GONE = (errno.ENOENT, errno.ESTALE)


class OpenFolder:
    """A folder held open, and closed when nobody uses it any more."""

    def __init__(self, path: Path) -> None:
        self.fd = -1
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)


class SeriesFolders:
    """The folders ``<incoming>/<series>``.

    They are kept open between objects, which makes two things sure: a folder that others removed
    and made again is never mistaken for the one that was synced in its parent, and nothing is put
    into a removed one.
    """

    def __init__(self, incoming: Path) -> None:
        self._incoming = incoming
        self._kept: OrderedDict[str, OpenFolder] = OrderedDict()
        self._lock = threading.Lock()

    def link(self, source: Path, series_uid: str, name: str) -> tuple[OpenFolder, bool]:
        """Put ``source`` into the series under ``name``; gives its folder and whether the name was free.

        What has the name already stays. The folder itself is durable, the new name is not before
        the folder is synced.
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
        """The folder of each series; what is not named by a UID is none."""
        return [entry for entry in entries_of(self._incoming) if _is_series(entry)]

    def unexpected_entries(self) -> list[str]:
        """What lies here or in the folder of a series and is neither a series nor an object of one, by its path.

        Somebody put it there by hand. It is never touched, and keeps nothing else waiting.
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
            # Not exist_ok, which fails if the folder is removed between its two looks.
            with contextlib.suppress(FileExistsError):
                path.mkdir()
            try:
                folder = OpenFolder(path)
            except FileNotFoundError:
                continue  # removed as empty between the two calls
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
    """The files ``*.dcm`` in ``folder``; none where it is missing."""
    return [entry for entry in entries_of(folder) if _is_object(entry)]


def entries_of(folder: Path | str) -> list[os.DirEntry[str]]:
    """All that is in ``folder``, nothing where it is missing; the folder is closed on return."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []  # also while others remove it


def _is_series(entry: os.DirEntry[str]) -> bool:
    return is_uid(entry.name) and entry.is_dir(follow_symlinks=False)


def _is_object(entry: os.DirEntry[str]) -> bool:
    return entry.name.endswith(".dcm") and entry.is_file(follow_symlinks=False)
