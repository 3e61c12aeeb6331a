"""The spool: what was acknowledged to its sender and is not in the PACS yet.

Layout, all of it on one file system::

    incoming/<series>/<sop>.dcm      an object, whole and synced
    incoming/.tmp/                   objects being written
    incoming/.associations/<id>      marks of open associations
    incoming/.abnormal-ends/         over which series a taker died
    incoming/.taker                  locked by the one that takes files out
    quarantine/<series>/<file>       what could not be taken, ``<file>.json`` says why

Any number of processes write and read here at once. What an object holds is not looked at; whoever
adds one says which series and instance it is.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from kaapana_assets.clocks import is_untouched
from kaapana_assets.dicom.digests import content_digest
from kaapana_assets.dicom.equality import same_object, syntax_difference
from kaapana_assets.dicom.identifiers import checked_uid
from kaapana_assets.dicom.limits import DEFAULT_LIMITS, ReadingLimits, limits_of
from kaapana_assets.durable import Buffer, make_folder, sync_file, write_all
from kaapana_assets.errors import InvalidIdentifier, NotFound, SpoolUnavailable, StoreUnavailable, UnreadableDicom
from kaapana_assets.ingest.association_markers import AssociationMarker, create_marker, held_series
from kaapana_assets.ingest.crashes import IngestCrashes
from kaapana_assets.ingest.quarantine import Quarantine, QuarantinedFile
from kaapana_assets.ingest.series_folders import SeriesFolders, dicom_files
from kaapana_assets.locks import is_locked, open_lock
from kaapana_assets.stores.checks import free_where
from kaapana_assets.stores.files.durable import copy_into, free_bytes, remove_if_empty

if TYPE_CHECKING:
    from kaapana_assets.settings import Settings

_STALE_AFTER_S = 3600.0
_COPY_BYTES = 1024**2
_INGEST_LOCK = ".taker"
_QUARANTINED_COPY_NAME = "file.dcm"

IMPORT = "import"
"""Where a file came from that was not received, in notes of the quarantine; never its path."""


class SpoolOutcome(Enum):
    """What became of an object that was added."""

    STORED = "stored"
    ALREADY_THERE = "already there"
    CONFLICT = "conflict"


@dataclass(frozen=True)
class SpoolSeries:
    """One series that waits.

    Attributes:
        size_bytes: of all its files.
        newest_mtime: when a file last came or went, seconds since the epoch.
        open: an association that has sent to it is still open.
    """

    series_instance_uid: str
    instance_count: int
    size_bytes: int
    newest_mtime: float
    open: bool


@dataclass(frozen=True, kw_only=True)
class Backlog:
    """How much waits, and the room for more.

    Attributes:
        open_series: of the series those that an open association has sent to.
        oldest_age_s: since a file last came to the series that has been quiet for the longest; None
            where nothing waits.
        free_bytes: of the disk of the spool.
        unexpected_entries: what lies in the spool and is no series and no object of one, by its path there.
    """

    series: int
    instances: int
    open_series: int
    oldest_age_s: float | None
    free_bytes: int
    unexpected_entries: tuple[str, ...] = ()


class Spool:
    """The two folders and the rules by which they are written.

    Args:
        incoming: the folder of waiting series.
        quarantine: the folder of what could not be taken.
        min_free_bytes: with less free space than this nothing is added.
        limits: for the objects that are read, which is only done to compare two of one UID.
    """

    def __init__(
        self,
        incoming: Path,
        quarantine: Path,
        *,
        min_free_bytes: int = 256 * 1024**2,
        limits: ReadingLimits = DEFAULT_LIMITS,
    ) -> None:
        self._limits = limits
        self.incoming = incoming
        self._quarantine = Quarantine(quarantine)
        self._min_free_bytes = min_free_bytes
        self._temporary_folder = incoming / ".tmp"
        self._markers_folder = incoming / ".associations"
        self._numbers = itertools.count()
        self.crashes = IngestCrashes(incoming / ".abnormal-ends")
        self._folders = SeriesFolders(incoming)

    def prepare(self) -> None:
        """Make the folders and remove what writers killed long ago left half-written.

        Raises:
            SpoolUnavailable: they cannot be made.
        """
        with _unavailable(self.incoming):
            for folder in (self._temporary_folder, self._markers_folder, self._quarantine.folder):
                make_folder(folder)
            for path in self._temporary_folder.iterdir():
                try:
                    if is_untouched(path, for_s=_STALE_AFTER_S):
                        path.unlink()
                except FileNotFoundError:
                    continue

    def mark_association(self) -> AssociationMarker:
        """A mark that holds back the series it is told of, until it is closed.

        Raises:
            SpoolUnavailable: the mark cannot be written.
        """
        with _unavailable(self.incoming):
            return create_marker(self._markers_folder, aside=self._temporary_folder)

    def add(self, series_uid: str, sop_uid: str, parts: Iterable[Buffer], *, origin: str) -> SpoolOutcome:
        """Put an object into the spool; durable when it returns.

        Args:
            series_uid: its SeriesInstanceUID.
            sop_uid: its SOPInstanceUID.
            parts: the bytes of a DICOM file (PS3.10), in pieces; written as they are.
            origin: who sent it, for the quarantine's note.

        Returns:
            ``ALREADY_THERE`` when the same content, in whatever encoding, waits already; ``CONFLICT`` when
            other content waits under the same UIDs: then this one is in the quarantine, as durable.

        Raises:
            InvalidIdentifier: a UID that must not reach the file system.
            SpoolUnavailable: no space, or not writable.
        """
        temporary = self.temporary_file()
        with self._adding(series_uid, sop_uid, temporary):
            _write_synced(temporary, parts)
            return self._link_into_series(temporary, series_uid, sop_uid, origin=origin)

    def add_file(
        self, series_uid: str, sop_uid: str, source: Path, *, origin: str, head: bytes = b"", offset: int = 0
    ) -> SpoolOutcome:
        """Put a copy of a file into the spool; otherwise as :meth:`add`.

        Args:
            series_uid: its SeriesInstanceUID.
            sop_uid: its SOPInstanceUID.
            source: the file.
            origin: who sent it, for the quarantine's note.
            head: what to put before its bytes.
            offset: where its bytes begin.

        Raises:
            NotFound: ``source`` cannot be opened.
        """
        try:
            reader = source.open("rb")
        except OSError as exc:
            raise NotFound(f"{source} cannot be opened: {exc.strerror}") from exc
        with reader:
            reader.seek(offset)
            parts = chain((head,) if head else (), iter(partial(reader.read, _COPY_BYTES), b""))
            return self.add(series_uid, sop_uid, parts, origin=origin)

    def adopt(self, series_uid: str, sop_uid: str, temporary: Path, *, origin: str) -> SpoolOutcome:
        """Put a file written at :meth:`temporary_file` into the spool, without a copy; otherwise as :meth:`add`."""
        with self._adding(series_uid, sop_uid, temporary):
            sync_file(temporary)
            return self._link_into_series(temporary, series_uid, sop_uid, origin=origin)

    def temporary_file(self) -> Path:
        """A new name on the spool's file system to write an object to."""
        return self._temporary_folder / f"{os.getpid()}-{next(self._numbers)}-{time.time_ns()}"

    def series(self) -> list[SpoolSeries]:
        """Every series that waits, with what there is of it."""
        held = held_series(self._markers_folder)
        found = []
        for entry in self._folders.entries():
            with suppress(FileNotFoundError):  # taken out at this moment
                sizes = [file.stat().st_size for file in dicom_files(entry.path)]
                if sizes:
                    newest = entry.stat().st_mtime
                    found.append(SpoolSeries(entry.name, len(sizes), sum(sizes), newest, entry.name in held))
        return found

    def backlog(self) -> Backlog:
        """How much waits, counted without a look at each file.

        Raises:
            SpoolUnavailable: the folder cannot be reached or written.
        """
        try:
            free = free_where(self.incoming)
        except StoreUnavailable as exc:
            raise SpoolUnavailable(str(exc)) from exc
        with _unavailable(self.incoming):
            held = held_series(self._markers_folder)
            now = time.time()
            instances, ages, open_series = 0, [], 0
            for entry in self._folders.entries():
                with suppress(FileNotFoundError):  # taken out at this moment
                    if count := len(dicom_files(entry.path)):
                        instances += count
                        ages.append(max(0.0, now - entry.stat().st_mtime))
                        open_series += entry.name in held
            unexpected_entries = tuple(self._folders.unexpected_entries())
        return Backlog(
            series=len(ages),
            instances=instances,
            open_series=open_series,
            oldest_age_s=max(ages, default=None),
            free_bytes=free,
            unexpected_entries=unexpected_entries,
        )

    def ready(self, quiet_s: float) -> list[str]:
        """The SeriesInstanceUIDs that no open association has sent to and that were quiet for ``quiet_s``.

        Costs one look at each waiting folder, whatever the number of files in it.
        """
        held = held_series(self._markers_folder)
        now = time.time()
        found = []
        for entry in self._folders.entries():
            with suppress(FileNotFoundError):  # taken out at this moment
                # The distance, not the age: after a clock was set back a folder from the future is as quiet.
                quiet = entry.name not in held and abs(now - entry.stat().st_mtime) >= quiet_s
                if quiet and dicom_files(entry.path):
                    found.append(entry.name)
        return found

    def files(self, series_uid: str) -> list[Path]:
        """The files of a series that wait now, by name; none where nothing waits."""
        return sorted(Path(file.path) for file in dicom_files(self.incoming / checked_uid(series_uid)))

    @contextmanager
    def ingest_lock(self) -> Iterator[None]:
        """Wait until nobody else takes files out, and keep others from it.

        Two at once would remove each other's files by name, and what a sender puts under such a
        name in between would be lost.

        Raises:
            SpoolUnavailable: the lock cannot be made.
        """
        with _unavailable(self.incoming):
            make_folder(self.incoming)
            lock = open_lock(self.incoming / _INGEST_LOCK)
        with lock:
            with _unavailable(self.incoming):
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def is_ingest_locked(self) -> bool:
        """Whether somebody takes files out now."""
        return is_locked(self.incoming / _INGEST_LOCK)

    def remove(self, series_uid: str, files: Sequence[Path]) -> None:
        """Forget these files of a series, because they are safe elsewhere; what came since stays.

        Raises:
            SpoolUnavailable: the folder is not writable.
        """
        folder = self.incoming / checked_uid(series_uid)
        with _unavailable(folder):
            for file in files:
                (folder / file.name).unlink(missing_ok=True)
            remove_if_empty(folder)

    def move_to_quarantine(self, path: Path, reason: str) -> Path:
        """Take a waiting file out of its series and keep it with the reason; gives its new place.

        Raises:
            NotFound: there is no such file.
            SpoolUnavailable: the quarantine is not writable.
        """
        with _unavailable(self._quarantine.folder):
            try:
                kept = self._quarantine.keep(
                    path, name=path.name, series=path.parent.name, reason=reason, origin=str(path)
                )
            except FileNotFoundError as exc:
                raise NotFound(f"{path} is not in the spool any more") from exc
            path.unlink(missing_ok=True)
            remove_if_empty(path.parent)
        return kept

    def quarantine_copy(self, source: Path, reason: str, *, series_uid: str = "") -> Path:
        """Keep a copy of a file from elsewhere, which could not be taken, with the reason; gives its place.

        Its name and path, which can hold a person's name, are not kept.
        """
        if series_uid:
            checked_uid(series_uid)
        temporary = self.temporary_file()
        with _unavailable(self._quarantine.folder):
            self._check_space()
            try:
                # A copy first, so that the quarantine never shares a file with its owner.
                copy_into(source, temporary)
                return self._quarantine.keep(
                    temporary, name=_QUARANTINED_COPY_NAME, series=series_uid, reason=reason, origin=IMPORT
                )
            finally:
                temporary.unlink(missing_ok=True)

    def quarantined(self) -> Iterator[QuarantinedFile]:
        """All that was set apart, with the reasons."""
        return self._quarantine.files()

    def newest_quarantined(self, limit: int) -> tuple[int, list[QuarantinedFile]]:
        """How many files were set apart, and the newest of them, the newest first."""
        return self._quarantine.newest(limit)

    @contextmanager
    def _adding(self, series_uid: str, sop_uid: str, temporary: Path) -> Iterator[None]:
        for value, keyword in ((series_uid, "SeriesInstanceUID"), (sop_uid, "SOPInstanceUID")):
            if checked_uid(value, keyword=keyword) != value:
                raise InvalidIdentifier(f"{keyword} {value!r} has padding: pass it as checked_uid gives it")
        with _unavailable(self.incoming):
            try:
                self._check_space()
                yield
            finally:
                temporary.unlink(missing_ok=True)

    def _check_space(self) -> None:
        free = free_bytes(self.incoming)
        if free < self._min_free_bytes:
            raise SpoolUnavailable(
                f"{self.incoming} has {free // 1024**2} MiB left, less than KAAPANA_MIN_FREE_BYTES "
                f"({self._min_free_bytes // 1024**2} MiB): make room"
            )

    def _link_into_series(self, temporary: Path, series_uid: str, sop_uid: str, *, origin: str) -> SpoolOutcome:
        name = f"{sop_uid}.dcm"
        while True:
            folder, is_new = self._folders.link(temporary, series_uid, name)
            if not is_new:
                there = self.incoming / series_uid / name
                try:
                    same = _same_content(there, temporary, self._limits)
                except UnreadableDicom:
                    if there.exists():
                        raise
                    continue  # it went to the PACS at this moment
                if not same and not there.exists():
                    continue
                if not same:
                    reason = f"other content than the waiting object of the same SOPInstanceUID {sop_uid}"
                    reason += syntax_difference(temporary, there)
                    self._quarantine.keep(temporary, name=name, series=series_uid, reason=reason, origin=origin)
                    return SpoolOutcome.CONFLICT
            # Also for what was already there: its writer may not have come so far yet.
            os.fsync(folder.fd)
            return SpoolOutcome.STORED if is_new else SpoolOutcome.ALREADY_THERE


def _same_content(one: Path, other: Path, limits: ReadingLimits) -> bool:
    return content_digest(one) == content_digest(other) or same_object(one, other, limits=limits)


def _write_synced(path: Path, parts: Iterable[Buffer]) -> None:
    # Read-only from the start: the PACS shares the file by hard link and it must not change there.
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
    try:
        os.fchmod(fd, 0o444)  # whatever the umask: operators of another user read it; folders keep others out
        write_all(fd, parts)
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def _unavailable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        reason = exc.strerror or exc
        raise SpoolUnavailable(f"{folder} cannot be written ({reason}): free space or mend its rights") from exc


def open_spool(settings: Settings) -> Spool:
    """The spool in the folder of data."""
    return Spool(
        settings.paths.incoming,
        settings.paths.quarantine,
        min_free_bytes=settings.min_free_bytes,
        limits=limits_of(settings),
    )
