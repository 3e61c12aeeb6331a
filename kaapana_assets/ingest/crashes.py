"""Counts the crashes of the ingest process per series.

An out-of-memory kill or a crash of a decoder raises no exception. So ingest writes the series to a file
before it starts and removes the file afterwards, whether the series succeeded or failed. If the next
ingest finds the file, the last process crashed. Only the holder of ``Spool.ingest_lock`` may use this.

Layout::

    <folder>/now        SeriesInstanceUID that is being ingested
    <folder>/<series>   number of crashes during its ingest
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kaapana_assets.dicom.identifiers import is_uid
from kaapana_assets.durable import write_file
from kaapana_assets.errors import SpoolUnavailable

MAX_CRASHES = 2

_NOW = "now"


class IngestCrashes:
    """The crash counts in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def record_last(self) -> str | None:
        """Count the crash of the last process, if it crashed, and return the series it was ingesting.

        Raises:
            SpoolUnavailable: the folder cannot be written.
        """
        note = self._folder / _NOW
        with _unavailable(self._folder):
            try:
                uid = note.read_text("ascii", "replace").strip()
            except FileNotFoundError:
                return None
            if is_uid(uid):  # no UID if the process or the machine died during the write
                write_file(self._folder / uid, str(self.count(uid) + 1))
            note.unlink()
        return uid if is_uid(uid) else None

    def count(self, series_instance_uid: str) -> int:
        """The number of crashes of a series since it was last ingested."""
        with suppress(FileNotFoundError, ValueError):
            return int((self._folder / series_instance_uid).read_text("ascii", "replace"))
        return 0

    @contextmanager
    def watching(self, series_instance_uid: str) -> Iterator[None]:
        """Record that this series is being ingested; resets its count unless an exception is raised.

        Raises:
            SpoolUnavailable: the folder cannot be written.
        """
        note = self._folder / _NOW
        with _unavailable(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            note.write_text(series_instance_uid)
        try:
            yield
        finally:
            note.unlink(missing_ok=True)
        self.forget(series_instance_uid)

    def forget(self, series_instance_uid: str) -> None:
        """Reset the count of a series."""
        with _unavailable(self._folder):
            (self._folder / series_instance_uid).unlink(missing_ok=True)


@contextmanager
def _unavailable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise SpoolUnavailable(f"{folder} cannot be written ({exc.strerror or exc}): fix its permissions") from exc
