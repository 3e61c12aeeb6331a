"""The catalog of a PACS: its instances, with their sizes and digests.

Everything in it can be read again from the files or the archive.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kaapana_assets.errors import ConfigurationError, StoreUnavailable
from kaapana_assets.stores.pacs.protocol import PacsCounts, StoredInstance

_VERSION = 1
_BUSY_TIMEOUT_S = 60.0
_SCHEMA = """
CREATE TABLE series (series TEXT PRIMARY KEY, study TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE instances (
  series TEXT NOT NULL, sop TEXT NOT NULL, size INTEGER NOT NULL, digest TEXT NOT NULL,
  PRIMARY KEY (series, sop)
) WITHOUT ROWID;
"""

Row = tuple[str, str, StoredInstance]
"""Study, series, instance."""


class PacsCatalog:
    """A catalog in one SQLite file, for any number of threads and processes.

    Args:
        path: the file; it is made if it is missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def fill_if_new(self, rows: Iterable[Row]) -> bool:
        """Add ``rows`` if the catalog is new; otherwise they are not read.

        Returns:
            Whether the rows were added; either all are added or none.

        Raises:
            ConfigurationError: a newer program made the catalog.
        """
        with self._open() as connection:
            if _version(connection) == _VERSION:
                return False
            connection.execute("BEGIN IMMEDIATE")
            # Another process may have filled it while this one waited.
            if _version(connection) == _VERSION:
                return False
            self._check_not_newer(connection)
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            _insert(connection, rows)
            connection.execute(f"PRAGMA user_version = {_VERSION}")
            return True

    def _check_not_newer(self, connection: sqlite3.Connection) -> None:
        found = _version(connection)
        if found > _VERSION:
            raise ConfigurationError(
                f"the PACS catalog {self._path} has tables of version {found}, this program needs {_VERSION}: use a "
                "newer program"
            )

    def add(self, rows: Iterable[Row]) -> None:
        """Add instances in one durable transaction."""
        with self._open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            _insert(connection, rows)

    def replace(self, study: str, series: str, instances: Iterable[StoredInstance]) -> None:
        """Replace all instances of a series; without instances, the series is removed."""
        with self._open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("DELETE FROM instances WHERE series = ?", (series,))
            connection.execute("DELETE FROM series WHERE series = ?", (series,))
            _insert(connection, ((study, series, instance) for instance in instances))

    def study_of(self, series_instance_uid: str) -> str | None:
        """The StudyInstanceUID of a series; None if the series is not in the catalog."""
        with self._open() as connection:
            row = connection.execute("SELECT study FROM series WHERE series = ?", (series_instance_uid,)).fetchone()
            return row[0] if row else None

    def instances(self, series_instance_uid: str) -> tuple[StoredInstance, ...]:
        """The instances of one series, sorted by SOPInstanceUID."""
        query = "SELECT sop, size, digest FROM instances WHERE series = ? ORDER BY sop"
        with self._open() as connection:
            return tuple(StoredInstance(*row) for row in connection.execute(query, (series_instance_uid,)))

    def series_uids(self) -> list[str]:
        """The SeriesInstanceUIDs of all series, sorted."""
        with self._open() as connection:
            return [row[0] for row in connection.execute("SELECT series FROM series ORDER BY series")]

    def counts(self) -> PacsCounts:
        """The numbers of series and instances, and their size."""
        with self._open() as connection:
            (series,) = connection.execute("SELECT count(*) FROM series").fetchone()
            instances, size = connection.execute("SELECT count(*), coalesce(sum(size), 0) FROM instances").fetchone()
            return PacsCounts(series=series, instances=instances, size_bytes=size)

    def forget(self, series: str) -> None:
        """Remove a series so that the file holds nothing of it; a missing catalog is not made."""
        if not self._path.exists():
            return
        with self._open() as connection:
            is_made = _version(connection) == _VERSION
        if is_made:
            self.replace("", series, ())
            with self._open() as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def known_counts(self) -> PacsCounts | None:
        """The same as ``counts``; None if the catalog is missing or being filled. A missing catalog is not made."""
        if not self._path.exists():
            return None
        with self._open() as connection:
            if _version(connection) != _VERSION:
                return None
        return self.counts()

    def close(self) -> None:
        """Close the file; the next call opens it again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = _connect(self._path)
                with self._connection:
                    yield self._connection
            except sqlite3.DatabaseError as exc:
                hint = (
                    "" if isinstance(exc, sqlite3.OperationalError) else "; delete it, it is made again from the files"
                )
                raise StoreUnavailable(f"the PACS catalog {self._path} does not answer ({exc}){hint}") from exc


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA secure_delete = ON")
    return connection


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _insert(connection: sqlite3.Connection, rows: Iterable[Row]) -> None:
    for study, series, instance in rows:
        connection.execute("INSERT OR IGNORE INTO series VALUES (?, ?)", (series, study))
        connection.execute(
            "INSERT OR REPLACE INTO instances VALUES (?, ?, ?, ?)",
            (series, instance.sop_instance_uid, instance.size_bytes, instance.content_digest),
        )
