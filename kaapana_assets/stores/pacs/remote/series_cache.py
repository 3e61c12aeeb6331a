"""A local cache of series that were retrieved from an archive, with a size limit.

Everything in it can be retrieved again. Its files are read-only and may be hard links.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

from kaapana_assets.clocks import is_untouched
from kaapana_assets.stores.files.durable import remove_tree
from kaapana_assets.stores.files.transfer import give, put_in_place
from kaapana_assets.stores.pacs.protocol import StoredSeries

_LEFT_BEHIND_S = 3600.0
_DIGEST_CHARACTERS = 32

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Entry:
    path: Path
    size_bytes: int
    used_ns: int


class SeriesCache:
    """Series as folders, for any number of processes; the least recently used is removed first.

    Args:
        folder: the folder of the cache.
        limit_bytes: limit of the total size; a larger series is not kept.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes

    def give(self, series: StoredSeries, into: Path, *, writable_copy: bool) -> bool:
        """Put the files of a series into an empty folder. Returns False if the cache does not have all of them.

        Raises:
            OSError: ``into`` cannot be written.
        """
        entry = self._folder / _name(series)
        try:
            with os.scandir(entry) as files:
                sizes = {each.name: each.stat().st_size for each in files}
            if sizes != {f"{each.sop_instance_uid}.dcm": each.size_bytes for each in series.instances}:
                return False
            for name in sizes:
                give(entry / name, into / name, writable_copy=writable_copy)
            os.utime(entry)
        except FileNotFoundError:  # not in the cache, or removed meanwhile
            for path in into.iterdir():
                path.unlink()
            return False
        return True

    def keep(self, series: StoredSeries, files: Path, *, share: bool) -> None:
        """Add the files of a series; if the cache cannot be written, this is logged and is no error.

        Args:
            series: the series.
            files: the folder that holds its files as ``<SOPInstanceUID>.dcm``.
            share: whether the files may be hard-linked, because nobody will write to them.
        """
        if series.size_bytes > self._limit_bytes:
            return
        staged = self._folder / f".{uuid.uuid4().hex}"
        try:
            staged.mkdir(parents=True)
            for each in series.instances:
                name = f"{each.sop_instance_uid}.dcm"
                give(files / name, staged / name, writable_copy=not share)
                (staged / name).chmod(0o444)
            self._make_room(series.size_bytes)
            put_in_place(staged, self._folder / _name(series))  # moves a former entry to ``staged``
        except OSError as exc:
            logger.warning("series %s is not kept in the cache %s: %s", series.series_instance_uid, self._folder, exc)
        finally:
            remove_tree(staged)

    def forget(self, series_instance_uid: str) -> None:
        """Remove all versions of a series, and the unfinished entries of all series that killed processes left.

        Raises:
            OSError: an entry cannot be removed.
        """
        for path in (*self._folder.glob(f"{series_instance_uid}-*"), *self._folder.glob(".*")):
            aside = self._folder / f".{uuid.uuid4().hex}"
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                path.rename(aside)
                shutil.rmtree(aside)

    def size_bytes(self) -> int:
        """The total size of its files."""
        return sum(each.size_bytes for each in self._entries())

    def _make_room(self, size_bytes: int) -> None:
        entries = sorted(self._entries(), key=lambda each: each.used_ns)
        held = sum(each.size_bytes for each in entries)
        for each in entries:
            if held + size_bytes <= self._limit_bytes:
                break
            aside = self._folder / f".{uuid.uuid4().hex}"
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                each.path.rename(aside)
                remove_tree(aside)
            held -= each.size_bytes
        for path in self._folder.glob(".*"):
            with contextlib.suppress(FileNotFoundError):
                if is_untouched(path, for_s=_LEFT_BEHIND_S):
                    remove_tree(path)

    def _entries(self) -> list[_Entry]:
        found = []
        with contextlib.suppress(FileNotFoundError), os.scandir(self._folder) as entries:
            for each in entries:
                size = each.name.rpartition("-")[2]
                if each.name.startswith(".") or not size.isdigit():
                    continue
                with contextlib.suppress(FileNotFoundError):
                    found.append(_Entry(Path(each.path), int(size), each.stat().st_mtime_ns))
        return found


def _name(series: StoredSeries) -> str:
    digest = series.digest.rpartition(":")[2][:_DIGEST_CHARACTERS]
    return f"{series.series_instance_uid}-{digest}-{series.size_bytes}"
