"""Writes documents into the tables; the caller holds the transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from kaapana_assets.stores.index.values import Value, folded, has_words, leaves, words
from kaapana_assets.stores.sqlite_index.erasure import remove_unused_values
from kaapana_assets.stores.sqlite_index.schema import packed, unpacked

if TYPE_CHECKING:
    from kaapana_assets.dicom.attributes import Document

_REMEMBERED_VALUES = 200_000
_LONGEST_REMEMBERED = 64


class IndexWriter:
    """Puts and deletes documents, and caches the numbers of fields and values.

    A value keeps its number until the schema version changes, which it does with every ``erase`` and migration,
    in whatever process. After a rollback, ``drop_memory`` must be called.
    """

    def __init__(self) -> None:
        self._fields: dict[str, int] = {}
        self._values: dict[tuple[int, type, Value], int] = {}
        self._schema_version = -1

    def drop_memory(self) -> None:
        """Clear the cached numbers, which may have been rolled back."""
        self._fields.clear()
        self._values.clear()

    def put(self, connection: sqlite3.Connection, documents: Mapping[str, Document]) -> None:
        """Add documents by SeriesInstanceUID; each replaces the one of its series."""
        self._check_memory(connection)
        added = []
        for uid, document in documents.items():
            new = self._postings(connection, document)
            row = _row(connection, uid)
            if row is None:
                doc = connection.execute("INSERT INTO series (uid) VALUES (?)", (uid,)).lastrowid or 0
                old = set()
            else:
                doc = row[0]
                old = self._postings(connection, unpacked(row[1]))
                self._remove(connection, doc, old - new)
            added += [(field, value, doc) for field, value in new - old]
            connection.execute("INSERT OR REPLACE INTO bodies VALUES (?, ?)", (doc, packed(document)))
        # Insert in the order of the B-tree, in which neighbours share a page.
        added.sort()
        connection.executemany("INSERT INTO postings VALUES (?, ?, ?)", added)

    def delete(self, connection: sqlite3.Connection, uid: str) -> None:
        """Remove the document of a series, if there is one."""
        self._check_memory(connection)
        row = connection.execute(
            "SELECT doc, body FROM series JOIN bodies USING (doc) WHERE uid = ?", (uid,)
        ).fetchone()
        if row is None:
            return
        doc, body = row
        self._remove(connection, doc, self._postings(connection, unpacked(body)))
        connection.execute("DELETE FROM bodies WHERE doc = ?", (doc,))
        connection.execute("DELETE FROM series WHERE doc = ?", (doc,))

    def erase(self, connection: sqlite3.Connection, uids: Iterable[str]) -> None:
        """Remove documents, and every value that no document has any more, from all tables."""
        for uid in uids:
            self.delete(connection, uid)
        remove_unused_values(connection)
        self.drop_memory()

    def _check_memory(self, connection: sqlite3.Connection) -> None:
        """Clear the cached numbers if the schema version changed; it cannot change again in this transaction."""
        (version,) = connection.execute("PRAGMA schema_version").fetchone()
        if version != self._schema_version:
            self.drop_memory()
            self._schema_version = version

    def _remove(self, connection: sqlite3.Connection, doc: int, postings: set[tuple[int, int]]) -> None:
        connection.executemany(
            "DELETE FROM postings WHERE field = ? AND value = ? AND doc = ?",
            [(field, value, doc) for field, value in postings],
        )

    def _postings(self, connection: sqlite3.Connection, document: Document) -> set[tuple[int, int]]:
        """The pairs of field and value numbers of a document; new fields and values get new numbers."""
        if len(self._values) > _REMEMBERED_VALUES:
            self._values.clear()
        postings = set()
        for name, values in leaves(document).items():
            field = self._field(connection, name)
            for value, original in values.items():
                key = (field, type(value), value)
                number = self._values.get(key)
                if number is None:
                    number = _value(connection, field, value, original)
                    if not isinstance(value, str) or len(value) <= _LONGEST_REMEMBERED:
                        self._values[key] = number
                postings.add((field, number))
        return postings

    def _field(self, connection: sqlite3.Connection, name: str) -> int:
        number = self._fields.get(name)
        if number is None:
            connection.execute("INSERT OR IGNORE INTO fields (name) VALUES (?)", (name,))
            number = int(connection.execute("SELECT id FROM fields WHERE name = ?", (name,)).fetchone()[0])
            self._fields[name] = number
        return number


def _row(connection: sqlite3.Connection, uid: str) -> tuple[int, bytes] | None:
    query = "SELECT doc, body FROM series JOIN bodies USING (doc) WHERE uid = ?"
    row: tuple[int, bytes] | None = connection.execute(query, (uid,)).fetchone()
    return row


def _value(connection: sqlite3.Connection, field: int, value: Value, original: Value) -> int:
    """The number of a value; a new value is added, with its words."""
    key = (field, folded(value), value)
    row = connection.execute("SELECT id FROM vocabulary WHERE field = ? AND folded = ? AND value = ?", key).fetchone()
    if row is not None:
        return int(row[0])
    number = connection.execute("INSERT INTO vocabulary (field, folded, value) VALUES (?, ?, ?)", key).lastrowid or 0
    if has_words(original):
        connection.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", (number, words(str(original))))
    return number
