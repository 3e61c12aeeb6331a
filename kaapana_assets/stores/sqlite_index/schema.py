"""The tables of the SQLite index, and connections to them.

Every value of every field is searchable. A value is stored once, in ``vocabulary``. ``postings`` says
which documents have it, with three small integers per row, so that a term, a facet and a range are
scans of one B-tree. Words are indexed once per value (``words``, FTS5), not per document. The document
itself is compressed JSON in ``bodies``, apart from the tables that queries scan.
"""

from __future__ import annotations

import json
import sqlite3
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from kaapana_assets.errors import ConfigurationError

if TYPE_CHECKING:
    from kaapana_assets.dicom.attributes import Document

SCHEMA_VERSION = 2  # 2: text is composed (NFC)
BUSY_TIMEOUT_S = 30.0
_CHECK_TIMEOUT_S = 2.0

# ``folded`` and ``value`` have no type on purpose: numbers stay numbers, sort before all text, and
# 2 and 2.0 are one value.
_TABLES = """
CREATE TABLE series (doc INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE);
CREATE TABLE bodies (doc INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE fields (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE vocabulary (
    id INTEGER PRIMARY KEY,
    field INTEGER NOT NULL,
    folded NOT NULL,
    value NOT NULL,
    UNIQUE (field, folded, value)
);
CREATE TABLE postings (
    field INTEGER NOT NULL,
    value INTEGER NOT NULL,
    doc INTEGER NOT NULL,
    PRIMARY KEY (field, value, doc)
) WITHOUT ROWID;
CREATE VIRTUAL TABLE words USING fts5 (text, content='', columnsize=0, tokenize='unicode61 remove_diacritics 0');
"""


def connect(path: Path, put: Callable[[sqlite3.Connection, Document], None] | None = None) -> sqlite3.Connection:
    """A connection in autocommit mode to a database that has all tables of this version.

    Args:
        path: the file.
        put: adds a document; if it is given, tables of an older version are migrated.

    Raises:
        sqlite3.Error: the file cannot be opened, or is locked for longer than 30 seconds.
        ConfigurationError: the file has tables of another version.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        _use_wal(connection)
        # FULL: a commit is on the disk before put() returns.
        connection.executescript("PRAGMA synchronous=FULL; PRAGMA cache_size=-65536; PRAGMA temp_store=MEMORY;")
        if put is not None:
            bring_up_to_date(connection, put)
        _ensure_tables(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def document_count(path: Path) -> int:
    """The number of documents in a database; 0 if there is no database, and none is made.

    Raises:
        sqlite3.Error: the file cannot be read.
        ConfigurationError: the file has tables of a newer version.
    """
    if not path.exists():
        return 0
    connection = sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=_CHECK_TIMEOUT_S, isolation_level=None)
    try:
        if _version(connection) == 0:
            return 0
        if _version(connection) > SCHEMA_VERSION:
            _check_version(connection, path)
        return int(connection.execute("SELECT count(*) FROM series").fetchone()[0])
    finally:
        connection.close()


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to write-ahead logging; SQLite's busy timeout does not cover this switch."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as exc:
            if "locked" not in str(exc) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _ensure_tables(connection: sqlite3.Connection, path: Path) -> None:
    if _version(connection) == 0:
        connection.execute("BEGIN IMMEDIATE")
        try:
            if _version(connection) == 0:
                _make_tables(connection)
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
    _check_version(connection, path)


def _make_tables(connection: sqlite3.Connection) -> None:
    for statement in _TABLES.split(";\n"):
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")


def bring_up_to_date(connection: sqlite3.Connection, put: Callable[[sqlite3.Connection, Document], None]) -> None:
    """Migrate tables of an older version by putting all documents again, in one transaction that blocks no reader.

    Args:
        connection: a connection to the database.
        put: adds a document to the tables.
    """
    if not 0 < _version(connection) < SCHEMA_VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        if 0 < _version(connection) < SCHEMA_VERSION:  # another process may have been faster
            connection.execute("CREATE TEMP TABLE kept AS SELECT body FROM bodies")
            for table in ("words", "postings", "vocabulary", "fields", "bodies", "series"):
                connection.execute(f"DROP TABLE {table}")
            _make_tables(connection)
            for (body,) in connection.execute("SELECT body FROM kept").fetchall():
                put(connection, unpacked(body))
            connection.execute("DROP TABLE kept")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def packed(document: Document) -> bytes:
    """A document as compressed JSON."""
    return zlib.compress(json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode(), 1)


def unpacked(body: bytes) -> Document:
    """The document in a result of ``packed``."""
    document: Document = json.loads(zlib.decompress(body))
    return document


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    if _version(connection) != SCHEMA_VERSION:
        raise ConfigurationError(
            f"metadata index {path} has tables of version {_version(connection)}, this program needs "
            f"{SCHEMA_VERSION}: use a newer program"
        )


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
