"""Keeps the objects and files that cannot be ingested, each with its reason; nothing is dropped."""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import json
import os
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from kaapana_assets.durable import make_folder, sync_folder, write_all
from kaapana_assets.errors import SpoolUnavailable
from kaapana_assets.ingest.series_folders import entries_of
from kaapana_assets.shown import shown, shown_lines
from kaapana_assets.stores.files.durable import link_or_copy

UNKNOWN_SERIES = "unknown"
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class QuarantinedFile:
    """One file in the quarantine.

    Attributes:
        path: the file.
        series_instance_uid: SeriesInstanceUID, or ``unknown``.
        reason: why it is here, a sentence for people.
        time: when it came here, UTC.
        origin: its sender, its path in the spool, or ``import``.
    """

    path: Path
    series_instance_uid: str
    reason: str
    time: datetime
    origin: str


class Quarantine:
    """The folder ``quarantine``: ``<series or unknown>/<file>``, each with ``<file>.json`` beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, source: Path, *, name: str, series: str, reason: str, origin: str) -> Path:
        """Add ``source`` by hard link or copy, and leave it where it is; durable on return.

        The same content under the same name is kept once, with the first reason.

        Args:
            source: a synced file that nobody writes to any more.
            name: file name; it is sanitized, and a part of the content's digest is appended.
            series: SeriesInstanceUID; empty if unknown.
            reason: why the file is quarantined, a sentence for people.
            origin: where the file comes from.

        Raises:
            OSError: the quarantine cannot be written.
        """
        folder = self.folder / (series or UNKNOWN_SERIES)
        temporary_folder = self.folder / ".tmp"
        make_folder(folder)
        make_folder(temporary_folder)
        target = folder / _name_for(name, source)
        if target.exists():
            sync_folder(folder)  # its writer may not have synced it yet
            return target
        now = datetime.now(timezone.utc).isoformat()
        note = {"reason": shown_lines(reason), "time": now, "origin": shown(origin)}
        temporary = temporary_folder / uuid.uuid4().hex
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            write_all(fd, (json.dumps(note, indent=1).encode(),))
            os.fsync(fd)
        finally:
            os.close(fd)
        # The reason is written first, so that no file is ever without one, even after a kill.
        temporary.replace(folder / f"{target.name}.json")
        with contextlib.suppress(FileExistsError):
            link_or_copy(source, target, aside=temporary)
        sync_folder(folder)
        return target

    def files(self) -> Iterator[QuarantinedFile]:
        """All files, by series and name."""
        for folder in sorted(self.folder.iterdir()) if self.folder.is_dir() else ():
            if folder.name.startswith(".") or not folder.is_dir():
                continue
            for note in sorted(folder.glob("*.json")):
                path = note.with_suffix("")
                if path.is_file() and note.is_file():
                    yield _read(path, note)

    def newest(self, limit: int) -> tuple[int, list[QuarantinedFile]]:
        """The number of files, and the newest of them, newest first; reads only the notes of those.

        Raises:
            SpoolUnavailable: the folder cannot be read.
        """
        try:
            notes = [
                (note.stat().st_mtime, note.path)
                for folder in entries_of(self.folder)
                if folder.is_dir() and not folder.name.startswith(".")
                for note in entries_of(folder.path)
                if note.name.endswith(".json") and note.is_file(follow_symlinks=False)
            ]
        except OSError as exc:
            raise SpoolUnavailable(f"{self.folder} cannot be read: {exc.strerror}") from exc
        found = []
        for _, name in heapq.nlargest(limit, notes):
            note = Path(name)
            with contextlib.suppress(FileNotFoundError):  # removed in the meantime
                found.append(_read(note.with_suffix(""), note))
        return len(notes), found


def _name_for(name: str, source: Path) -> str:
    digest = hashlib.sha256()
    with source.open("rb") as reader:
        while chunk := reader.read(1 << 20):
            digest.update(chunk)
    name = _NOT_IN_NAMES.sub("_", name).strip("._")
    stem, dot, ending = name.rpartition(".")
    stem, ending = (stem, ending) if dot and len(ending) <= 8 else (name, "bin")
    return f"{stem[:100] or 'file'}-{digest.hexdigest()[:12]}.{ending}"


def _read(path: Path, note: Path) -> QuarantinedFile:
    try:
        content = json.loads(note.read_text("utf-8"))
        reason, time, origin = str(content["reason"]), datetime.fromisoformat(content["time"]), str(content["origin"])
        time = time if time.tzinfo else time.replace(tzinfo=timezone.utc)
    except (ValueError, LookupError, TypeError):  # edited by hand
        reason, origin = f"{shown(note)} cannot be read", "unknown"
        time = datetime.fromtimestamp(note.stat().st_mtime, timezone.utc)
    return QuarantinedFile(path=path, series_instance_uid=path.parent.name, reason=reason, time=time, origin=origin)
