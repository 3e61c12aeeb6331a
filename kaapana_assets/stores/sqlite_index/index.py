"""``SqliteIndex``: reads and writes the tables of ``schema``. It raises only errors of this package."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from kaapana_assets.dicom.identifiers import checked_uid
from kaapana_assets.errors import InputError, NotFound, StoreUnavailable
from kaapana_assets.stores.checks import StoreReport, free_where
from kaapana_assets.stores.index.cursors import decoded, encoded
from kaapana_assets.stores.index.protocol import Bucket, Facet, Page, SortKey
from kaapana_assets.stores.index.values import Value
from kaapana_assets.stores.query.tree import Query
from kaapana_assets.stores.sqlite_index.buckets import buckets
from kaapana_assets.stores.sqlite_index.erasure import rewrite
from kaapana_assets.stores.sqlite_index.schema import connect, document_count, unpacked
from kaapana_assets.stores.sqlite_index.selection import EVERYTHING, Condition, condition, field_id
from kaapana_assets.stores.sqlite_index.writer import IndexWriter

if TYPE_CHECKING:
    from kaapana_assets.dicom.attributes import Document

_DOCUMENTS_PER_TRANSACTION = 200
_LARGEST_PAGE = 10_000


class SqliteIndex:
    """A ``MetadataIndex`` in one file; safe for several threads and processes.

    Readers do not wait for writers. Writers wait for each other; a transaction has at most 200
    documents. Each thread has its own connection, which is opened when it is first needed.

    Args:
        path: the database file.
        reader_patience_s: seconds that ``forget`` waits for readers of an older snapshot.
    """

    def __init__(self, path: Path, *, reader_patience_s: float = 30.0) -> None:
        self._path = path
        self._reader_patience_s = reader_patience_s
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._write_lock = threading.Lock()
        self._writer = IndexWriter()

    def put(self, documents: Iterable[Document]) -> None:
        """See ``MetadataIndex.put``."""
        remaining = iter(documents)
        while batch := list(islice(remaining, _DOCUMENTS_PER_TRANSACTION)):
            by_uid = {_series_uid(document): document for document in batch}
            with self._writing() as connection:
                self._writer.put(connection, by_uid)

    def get(self, series_instance_uid: str) -> Document:
        """See ``MetadataIndex.get``."""
        with self._reading() as connection:
            row = connection.execute(
                "SELECT body FROM bodies JOIN series USING (doc) WHERE uid = ?", (series_instance_uid,)
            ).fetchone()
        if row is None:
            raise NotFound(f"series {series_instance_uid} is not in the metadata index")
        return unpacked(row[0])

    def delete(self, series_instance_uids: Iterable[str]) -> None:
        """See ``MetadataIndex.delete``."""
        remaining = iter(series_instance_uids)
        while batch := list(islice(remaining, _DOCUMENTS_PER_TRANSACTION)):
            with self._writing() as connection:
                for uid in batch:
                    self._writer.delete(connection, uid)

    def forget(self, series_instance_uids: Iterable[str]) -> None:
        """See ``MetadataIndex.forget``; rewrites the whole file."""
        with self._writing() as connection:
            self._writer.erase(connection, series_instance_uids)
        with self._write_lock, self._translated():
            rewrite(self._connection(), self._path, patience_s=self._reader_patience_s)

    def count(self, query: Query) -> int:
        """See ``MetadataIndex.count``."""
        with self._reading() as connection:
            return _count(connection, condition(query, connection))

    def search(self, query: Query, *, sort: Sequence[SortKey] = (), limit: int = 50, after: str | None = None) -> Page:
        """See ``MetadataIndex.search``."""
        if not 1 <= limit <= _LARGEST_PAGE:
            raise InputError(f"a page has 1 to {_LARGEST_PAGE} documents, not {limit}")
        position = None if after is None else decoded(after, sort, values=len(sort) + 1)
        with self._reading() as connection:
            where = condition(query, connection)
            total = _count(connection, where)
            rows = _ordered(connection, where, sort, position, limit + 1)
            page = rows[:limit]
            documents = []
            for row in page:
                (body,) = connection.execute("SELECT body FROM bodies WHERE doc = ?", (row[0],)).fetchone()
                documents.append(unpacked(body))
        cursor = encoded(sort, page[-1][1:]) if len(rows) > limit else None
        return Page(tuple(documents), total, cursor)

    def series(self, query: Query) -> Iterator[str]:
        """See ``MetadataIndex.series``."""
        with self._reading() as connection:
            where = condition(query, connection)
            # All UIDs are read at once (100 bytes each): a half-read cursor would hold a snapshot open
            # for as long as the caller likes.
            rows = connection.execute(f"SELECT uid FROM series WHERE {where.sql} ORDER BY uid", where.parameters)  # noqa: S608
            uids = [str(row[0]) for row in rows]
        return iter(uids)

    def facets(self, query: Query, facets: Sequence[Facet]) -> list[list[Bucket]]:
        """See ``MetadataIndex.facets``."""
        with self._reading() as connection:
            where = condition(query, connection)
            everything = where == EVERYTHING
            if not everything:
                connection.execute("CREATE TEMP TABLE IF NOT EXISTS matched (doc INTEGER PRIMARY KEY)")
                connection.execute("DELETE FROM matched")
                connection.execute(f"INSERT INTO matched SELECT doc FROM series WHERE {where.sql}", where.parameters)  # noqa: S608
            return [buckets(connection, facet, everything=everything) for facet in facets]

    def check(self) -> StoreReport:
        """See ``MetadataIndex.check``."""
        free = free_where(self._path.parent)
        with self._translated():
            documents = document_count(self._path)
        counts = {"documents": documents}
        return StoreReport(product="SQLite", version=sqlite3.sqlite_version, counts=counts, free_bytes=free)

    def close(self) -> None:
        """See ``MetadataIndex.close``."""
        with self._write_lock:
            for connection in self._connections:
                connection.close()
            self._connections.clear()
            self._local = threading.local()

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """A transaction in which everything is read from one snapshot."""
        with self._translated():
            connection = self._connection()
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.execute("COMMIT")

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._write_lock, self._translated():
            connection = self._connection()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                self._writer.drop_memory()
                connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as exc:
            raise StoreUnavailable(f"metadata index {self._path}: {exc}") from exc

    def _connection(self) -> sqlite3.Connection:
        # A forked process must not use the connection of its parent.
        known: tuple[int, sqlite3.Connection] | None = getattr(self._local, "connection", None)
        if known is not None and known[0] == os.getpid():
            return known[1]
        connection = connect(self._path, put=_put_again)
        self._local.connection = (os.getpid(), connection)
        self._connections.append(connection)
        return connection


def _put_again(connection: sqlite3.Connection, document: Document) -> None:
    IndexWriter().put(connection, {_series_uid(document): document})


def _series_uid(document: Document) -> str:
    return checked_uid(str(document.get("SeriesInstanceUID", "")), keyword="SeriesInstanceUID")


def _count(connection: sqlite3.Connection, where: Condition) -> int:
    row = connection.execute(f"SELECT count(*) FROM series WHERE {where.sql}", where.parameters).fetchone()  # noqa: S608
    return int(row[0])


def _ordered(
    connection: sqlite3.Connection,
    where: Condition,
    sort: Sequence[SortKey],
    after: Sequence[Value | None] | None,
    limit: int,
) -> list[tuple[Value | None, ...]]:
    """The rows after a position, in order; each has doc, the sort values and uid."""
    joins, orders, keys = [], [], []
    parameters: list[Value | None] = []
    for number, key in enumerate(sort):
        chosen = "max" if key.descending else "min"
        joins.append(
            f"LEFT JOIN (SELECT p.doc AS doc, {chosen}(v.folded) AS k FROM postings p CROSS JOIN vocabulary v "  # noqa: S608
            f"ON v.id = p.value WHERE p.field = ? GROUP BY p.doc) AS s{number} ON s{number}.doc = series.doc"
        )
        parameters.append(field_id(connection, key.field))
        keys.append(f"s{number}.k")
        orders.append(f"s{number}.k IS NULL, s{number}.k{' DESC' if key.descending else ''}")
    parameters += where.parameters
    beyond = "1"
    if after is not None:
        beyond, position = _beyond(keys, [key.descending for key in sort], after)
        parameters += position
    columns = ", ".join(["series.doc", *keys, "series.uid"])
    sql = (
        f"SELECT {columns} FROM series {' '.join(joins)} WHERE {where.sql} AND ({beyond}) "  # noqa: S608
        f"ORDER BY {', '.join([*orders, 'series.uid'])} LIMIT ?"
    )
    return connection.execute(sql, (*parameters, limit)).fetchall()


def _beyond(
    keys: Sequence[str], descending: Sequence[bool], after: Sequence[Value | None]
) -> tuple[str, list[Value | None]]:
    """The SQL condition for rows after a position: equal in the first keys, and beyond it in the next key."""
    alternatives = []
    parameters: list[Value | None] = []
    for number, (key, down) in enumerate(zip([*keys, "series.uid"], [*descending, False], strict=True)):
        value = after[number]
        if value is None:
            continue  # absent is last: nothing lies beyond it in this key
        equal = [f"{earlier} IS ?" for earlier in keys[:number]]
        beyond = f"({key} {'<' if down else '>'} ? OR {key} IS NULL)"
        alternatives.append("(" + " AND ".join([*equal, beyond]) + ")")
        parameters += [*after[:number], value]
    return " OR ".join(alternatives), parameters
