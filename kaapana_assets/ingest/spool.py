"""The spool: objects that are acknowledged to their sender and not yet in the PACS.

Layout, all of it on one file system::

    incoming/<series>/<sop>.dcm      an object, complete and synced
    incoming/.tmp/                   objects being written
    incoming/.associations/<id>      markers of open associations
    incoming/.abnormal-ends/         crashes of the ingest process, see ``crashes``
    incoming/.taker                  lock of the process that ingests
    quarantine/<series>/<file>       an object that cannot be ingested; ``<file>.json`` has the reason

Any number of processes may read and write concurrently. The spool does not read objects: the caller
that adds one passes its series and SOP Instance UID.
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
"""The origin of imported files in the quarantine, in place of their path."""


class SpoolOutcome(Enum):
    """The outcome of adding an object."""

    STORED = "stored"
    ALREADY_THERE = "already there"
    CONFLICT = "conflict"


@dataclass(frozen=True)
class SpoolSeries:
    """One series in the spool.

    Attributes:
        size_bytes: total size of its files.
        newest_mtime: when a file was last added or removed, seconds since the epoch.
        open: whether an association that has sent to it is still open.
    """

    series_instance_uid: str
    instance_count: int
    size_bytes: int
    newest_mtime: float
    open: bool


@dataclass(frozen=True, kw_only=True)
class Backlog:
    """The amount of data in the spool, and the free space.

    Attributes:
        series: number of series.
        instances: number of instances.
        open_series: number of series to which an open association has sent.
        oldest_age_s: time since the last change of the series that has been quiet longest; None if the
            spool is empty.
        free_bytes: free space on the disk of the spool.
        unexpected_entries: relative paths that are neither a series nor an object of one.
    """

    series: int
    instances: int
    open_series: int
    oldest_age_s: float | None
    free_bytes: int
    unexpected_entries: tuple[str, ...] = ()


class Spool:
    """The folders of waiting and quarantined objects.

    Args:
        incoming: folder of the waiting series.
        quarantine: folder of the objects that cannot be ingested.
        min_free_bytes: below this free space, nothing is added.
        limits: for reading objects, which happens only to compare two with the same UID.
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
        """Create the folders and remove stale temporary files of killed writers.

        Raises:
            SpoolUnavailable: the folders cannot be created.
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
        """Create a marker, which holds series back from ingest until it is closed.

        Raises:
            SpoolUnavailable: the marker cannot be written.
        """
        with _unavailable(self.incoming):
            return create_marker(self._markers_folder, temporary_folder=self._temporary_folder)

    def add(self, series_uid: str, sop_uid: str, parts: Iterable[Buffer], *, origin: str) -> SpoolOutcome:
        """Add an object to the spool; it is durable on return.

        Args:
            series_uid: its SeriesInstanceUID.
            sop_uid: its SOPInstanceUID.
            parts: the bytes of a DICOM file (PS3.10), in chunks; written unchanged.
            origin: its sender, recorded if it goes to the quarantine.

        Returns:
            ``ALREADY_THERE`` if the spool holds the same content in any encoding; ``CONFLICT`` if it holds
            different content under the same UIDs, and the new object is durable in the quarantine.

        Raises:
            InvalidIdentifier: one of the UIDs is not a valid UID.
            SpoolUnavailable: no space left or not writable.
        """
        temporary = self.temporary_file()
        with self._adding(series_uid, sop_uid, temporary):
            _write_synced(temporary, parts)
            return self._link_into_series(temporary, series_uid, sop_uid, origin=origin)

    def add_file(
        self, series_uid: str, sop_uid: str, source: Path, *, origin: str, head: bytes = b"", offset: int = 0
    ) -> SpoolOutcome:
        """Add a copy of a file, like :meth:`add`.

        Args:
            series_uid: its SeriesInstanceUID.
            sop_uid: its SOPInstanceUID.
            source: the file.
            origin: its sender, recorded if it goes to the quarantine.
            head: bytes to write before those of the file.
            offset: offset in the file from which to copy.

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
        """Add a file written to a :meth:`temporary_file`, like :meth:`add` but without copying it."""
        with self._adding(series_uid, sop_uid, temporary):
            sync_file(temporary)
            return self._link_into_series(temporary, series_uid, sop_uid, origin=origin)

    def temporary_file(self) -> Path:
        """A new path on the file system of the spool, for writing an object."""
        return self._temporary_folder / f"{os.getpid()}-{next(self._numbers)}-{time.time_ns()}"

    def series(self) -> list[SpoolSeries]:
        """All series in the spool, with the number and size of their files."""
        held = held_series(self._markers_folder)
        found = []
        for entry in self._folders.entries():
            with suppress(FileNotFoundError):  # removed in the meantime
                sizes = [file.stat().st_size for file in dicom_files(entry.path)]
                if sizes:
                    newest = entry.stat().st_mtime
                    found.append(SpoolSeries(entry.name, len(sizes), sum(sizes), newest, entry.name in held))
        return found

    def backlog(self) -> Backlog:
        """Count what is in the spool, without a stat of each file.

        Raises:
            SpoolUnavailable: the folder is missing or not writable.
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
                with suppress(FileNotFoundError):  # removed in the meantime
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
        """SeriesInstanceUIDs without open association and without change for at least ``quiet_s``.

        Costs one stat per series, whatever the number of its files.
        """
        held = held_series(self._markers_folder)
        now = time.time()
        found = []
        for entry in self._folders.entries():
            with suppress(FileNotFoundError):  # removed in the meantime
                # abs(), because a folder has a time in the future after the clock was set back.
                quiet = entry.name not in held and abs(now - entry.stat().st_mtime) >= quiet_s
                if quiet and dicom_files(entry.path):
                    found.append(entry.name)
        return found

    def files(self, series_uid: str) -> list[Path]:
        """The files of a series in the spool, by name; none if the series is not there."""
        return sorted(Path(file.path) for file in dicom_files(self.incoming / checked_uid(series_uid)))

    @contextmanager
    def ingest_lock(self) -> Iterator[None]:
        """Lock the spool for ingest; waits for the process that holds the lock.

        Files are removed by name. If two processes did so at once, a file that a sender adds under the
        same name in between would be lost.

        Raises:
            SpoolUnavailable: the lock file cannot be created.
        """
        with _unavailable(self.incoming):
            make_folder(self.incoming)
            lock = open_lock(self.incoming / _INGEST_LOCK)
        with lock:
            with _unavailable(self.incoming):
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def is_ingest_locked(self) -> bool:
        """Whether a process holds the ingest lock."""
        return is_locked(self.incoming / _INGEST_LOCK)

    def remove(self, series_uid: str, files: Sequence[Path]) -> None:
        """Remove these files of a series, which are now in the PACS; later files stay.

        Raises:
            SpoolUnavailable: the folder is not writable.
        """
        folder = self.incoming / checked_uid(series_uid)
        with _unavailable(folder):
            for file in files:
                (folder / file.name).unlink(missing_ok=True)
            remove_if_empty(folder)

    def move_to_quarantine(self, path: Path, reason: str) -> Path:
        """Move a file of the spool to the quarantine, with the reason; returns its new path.

        Raises:
            NotFound: the file is no longer in the spool.
            SpoolUnavailable: the quarantine is not writable.
        """
        with _unavailable(self._quarantine.folder):
            try:
                kept = self._quarantine.keep(
                    path, name=path.name, series=path.parent.name, reason=reason, origin=str(path)
                )
            except FileNotFoundError as exc:
                raise NotFound(f"{path} is no longer in the spool") from exc
            path.unlink(missing_ok=True)
            remove_if_empty(path.parent)
        return kept

    def quarantine_copy(self, source: Path, reason: str, *, series_uid: str = "") -> Path:
        """Copy a file from elsewhere to the quarantine, with the reason; returns the path of the copy.

        The name and path of the file may hold a person's name and are not recorded.
        """
        if series_uid:
            checked_uid(series_uid)
        temporary = self.temporary_file()
        with _unavailable(self._quarantine.folder):
            self._check_space()
            try:
                # Copied first, because the quarantine would otherwise hard-link the file of another owner.
                copy_into(source, temporary)
                return self._quarantine.keep(
                    temporary, name=_QUARANTINED_COPY_NAME, series=series_uid, reason=reason, origin=IMPORT
                )
            finally:
                temporary.unlink(missing_ok=True)

    def quarantined(self) -> Iterator[QuarantinedFile]:
        """All files in the quarantine, with their reasons."""
        return self._quarantine.files()

    def newest_quarantined(self, limit: int) -> tuple[int, list[QuarantinedFile]]:
        """The number of files in the quarantine, and the newest of them, newest first."""
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
                    continue  # ingest has just removed it
                if not same and not there.exists():
                    continue
                if not same:
                    reason = f"different content from the waiting object with the same SOPInstanceUID {sop_uid}"
                    reason += syntax_difference(temporary, there)
                    self._quarantine.keep(temporary, name=name, series=series_uid, reason=reason, origin=origin)
                    return SpoolOutcome.CONFLICT
            # Also if the object was already there: its writer may not have synced the folder yet.
            os.fsync(folder.fd)
            return SpoolOutcome.STORED if is_new else SpoolOutcome.ALREADY_THERE


def _same_content(one: Path, other: Path, limits: ReadingLimits) -> bool:
    return content_digest(one) == content_digest(other) or same_object(one, other, limits=limits)


def _write_synced(path: Path, parts: Iterable[Buffer]) -> None:
    # Read-only from the start: the PACS hard-links the file, which must not change afterwards.
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
    try:
        os.fchmod(fd, 0o444)  # despite the umask: operators of another user read it, and folder modes keep others out
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
        raise SpoolUnavailable(f"{folder} cannot be written ({reason}): free space or fix its permissions") from exc


def open_spool(settings: Settings) -> Spool:
    """The spool of a home."""
    return Spool(
        settings.paths.incoming,
        settings.paths.quarantine,
        min_free_bytes=settings.min_free_bytes,
        limits=limits_of(settings),
    )
