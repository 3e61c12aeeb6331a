"""Objects and files that could not be taken, each with the reason beside it; nothing is dropped."""

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
    """One file that was set apart.

    Attributes:
        path: the file.
        series_instance_uid: of its series, or ``unknown``.
        reason: why, for a person to read.
        time: when, UTC.
        origin: where it came from: a sender's address, a path.
    """

    path: Path
    series_instance_uid: str
    reason: str
    time: datetime
    origin: str


class Quarantine:
    """The folder ``quarantine/<series or unknown>/<file>`` with ``<file>.json`` beside each file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, source: Path, *, name: str, series: str, reason: str, origin: str) -> Path:
        """Keep what ``source`` holds; ``source`` stays. Durable when it returns.

        The same content of the same name is kept once, with the first reason.

        Args:
            source: a synced file that nobody writes to any more.
            name: to call it by; made harmless, and a part of the content's digest is added.
            series: its SeriesInstanceUID, empty when that is not known.
            reason: why, for a person to read.
            origin: where it came from.

        Raises:
            OSError: it cannot be written.
        """
        folder = self.folder / (series or UNKNOWN_SERIES)
        aside = self.folder / ".tmp"
        make_folder(folder)
        make_folder(aside)
        target = folder / _name_for(name, source)
        if target.exists():
            sync_folder(folder)  # who put it there may not have come so far yet
            return target
        now = datetime.now(timezone.utc).isoformat()
        note = {"reason": shown_lines(reason), "time": now, "origin": shown(origin)}
        temporary = aside / uuid.uuid4().hex
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            write_all(fd, (json.dumps(note, indent=1).encode(),))
            os.fsync(fd)
        finally:
            os.close(fd)
        # The reason comes first: a file is never found without one, whenever the process ends.
        temporary.replace(folder / f"{target.name}.json")
        with contextlib.suppress(FileExistsError):
            link_or_copy(source, target, aside=temporary)
        sync_folder(folder)
        return target

    def files(self) -> Iterator[QuarantinedFile]:
        """All that is kept, by series and name."""
        for folder in sorted(self.folder.iterdir()) if self.folder.is_dir() else ():
            if folder.name.startswith(".") or not folder.is_dir():
                continue
            for note in sorted(folder.glob("*.json")):
                path = note.with_suffix("")
                if path.is_file() and note.is_file():
                    yield _read(path, note)

    def newest(self, limit: int) -> tuple[int, list[QuarantinedFile]]:
        """How many files are kept, and the newest of them, the newest first; only their notes are read.

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
            with contextlib.suppress(FileNotFoundError):  # removed at this moment
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
        said = json.loads(note.read_text("utf-8"))
        reason, time, origin = str(said["reason"]), datetime.fromisoformat(said["time"]), str(said["origin"])
        time = time if time.tzinfo else time.replace(tzinfo=timezone.utc)
    except (ValueError, LookupError, TypeError):  # somebody changed it
        reason, origin = f"{shown(note)} cannot be read", "unknown"
        time = datetime.fromtimestamp(note.stat().st_mtime, timezone.utc)
    return QuarantinedFile(path=path, series_instance_uid=path.parent.name, reason=reason, time=time, origin=origin)
