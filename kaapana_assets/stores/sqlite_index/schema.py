"""The tables of the SQLite index, and connections to them.

Every value of every field is searchable. A value is stored once, in ``vocabulary``, and ``postings``
say which documents have it: three small integers each, so that a term, a facet and a range are
scans of one B-tree. Words are indexed once per value (``words``, FTS5), not per document. The
document itself is compressed JSON in ``bodies``, away from the tables that queries walk.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from kaapana_assets.errors import ConfigurationError

SCHEMA_VERSION = 1
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


def connect(path: Path) -> sqlite3.Connection:
    """A connection in autocommit mode to a database that has all tables.

    Raises:
        sqlite3.Error: it cannot be opened, or is locked for longer than 30 seconds.
        ConfigurationError: another version of the tables is in the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        _use_wal(connection)
        # FULL: a commit is on the disk before put() returns.
        connection.executescript("PRAGMA synchronous=FULL; PRAGMA cache_size=-65536; PRAGMA temp_store=MEMORY;")
        _ensure_tables(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def document_count(path: Path) -> int:
    """How many documents a database has; none if it is not made yet, and it is not made.

    Raises:
        sqlite3.Error: it cannot be read.
        ConfigurationError: another version of the tables is in the file.
    """
    if not path.exists():
        return 0
    connection = sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=_CHECK_TIMEOUT_S, isolation_level=None)
    try:
        if _version(connection) == 0:
            return 0
        _check_version(connection, path)
        return int(connection.execute("SELECT count(*) FROM series").fetchone()[0])
    finally:
        connection.close()


def _use_wal(connection: sqlite3.Connection) -> None:
    """Change to write-ahead logging; SQLite's own waiting does not cover this change."""
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
                for statement in _TABLES.split(";\n"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
    _check_version(connection, path)


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    if _version(connection) != SCHEMA_VERSION:
        raise ConfigurationError(
            f"metadata index {path} has tables of version {_version(connection)}, this program needs "
            f"{SCHEMA_VERSION}: move the file away and bring the series in again"
        )


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
