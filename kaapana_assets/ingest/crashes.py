"""Which series was being taken in when the process of an ingest was killed.

An out-of-memory kill or a crash of a decoder leaves no exception behind. So the series is noted before
it is taken in and the note is removed after it, whatever came of it: a note that the next one finds
belongs to a process that died. Only the holder of ``Spool.ingest_lock`` may use this.

Layout::

    <folder>/now        SeriesInstanceUID that is being taken in
    <folder>/<series>   how many processes died over it
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
    """The notes in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def record_last(self) -> str | None:
        """Count the end of the last process, if it died, against its series; gives that series.

        Raises:
            SpoolUnavailable: the folder cannot be written.
        """
        note = self._folder / _NOW
        with _unavailable(self._folder):
            try:
                uid = note.read_text("ascii", "replace").strip()
            except FileNotFoundError:
                return None
            if is_uid(uid):  # not if the process, or the machine, died while it was written
                write_file(self._folder / uid, str(self.count(uid) + 1))
            note.unlink()
        return uid if is_uid(uid) else None

    def count(self, series_instance_uid: str) -> int:
        """How many processes died over a series since it was taken in last."""
        with suppress(FileNotFoundError, ValueError):
            return int((self._folder / series_instance_uid).read_text("ascii", "replace"))
        return 0

    @contextmanager
    def watching(self, series_instance_uid: str) -> Iterator[None]:
        """Says, inside, that this series is being taken in; a series that went well is not under suspicion any more.

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
        """Count anew from here on."""
        with _unavailable(self._folder):
            (self._folder / series_instance_uid).unlink(missing_ok=True)


@contextmanager
def _unavailable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise SpoolUnavailable(f"{folder} cannot be written ({exc.strerror or exc}): mend its rights") from exc
