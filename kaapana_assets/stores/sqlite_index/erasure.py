"""Removes documents so that nothing of them can be read from the bytes of the files any more.

Deleting rows is not enough: the vocabulary keeps every value that was ever seen, the word index keeps
deleted words until its segments are merged, and free pages and the write-ahead log keep former content.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from kaapana_assets.errors import StoreUnavailable
from kaapana_assets.stores.index.values import KEY_LENGTH, Value, words

_LOOK_EVERY_S = 0.1


def remove_unused_values(connection: sqlite3.Connection) -> None:
    """Remove the values that no document has from the vocabulary and the word index, in the caller's transaction.

    These include the values of documents that were replaced or deleted earlier. The schema version changes,
    which tells every writer that the value numbers in its cache may be gone.
    """
    unused: list[tuple[int, Value]] = connection.execute(
        "SELECT id, value FROM vocabulary v "
        "WHERE NOT EXISTS (SELECT 1 FROM postings p WHERE p.field = v.field AND p.value = v.id)"
    ).fetchall()
    texts = _indexed_texts(connection, unused)
    connection.executemany("INSERT INTO words (words, rowid, text) VALUES ('delete', ?, ?)", texts)
    connection.executemany("DELETE FROM vocabulary WHERE id = ?", [(number,) for number, _ in unused])
    # Merge all segments into one without the deleted words, which the old segments still hold.
    connection.execute("INSERT INTO words (words) VALUES ('optimize')")
    connection.execute("CREATE TABLE forgetting (empty INTEGER)")
    connection.execute("DROP TABLE forgetting")


def rewrite(connection: sqlite3.Connection, path: Path, *, patience_s: float) -> None:
    """Rewrite the whole database so that it holds only its current content, and empty the write-ahead log.

    Raises:
        StoreUnavailable: a reader holds an older snapshot for longer than ``patience_s``.
    """
    # VACUUM makes a copy of the whole index, which is too large for memory.
    connection.execute("PRAGMA temp_store = FILE")
    try:
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("VACUUM")
    finally:
        connection.execute("PRAGMA temp_store = MEMORY")
    deadline = time.monotonic() + patience_s
    while connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
        if time.monotonic() > deadline:
            raise StoreUnavailable(
                f"metadata index {path}: another process reads a state from before, so the write-ahead log cannot be "
                "emptied: try again"
            )
        time.sleep(_LOOK_EVERY_S)


def _indexed_texts(connection: sqlite3.Connection, values: Sequence[tuple[int, Value]]) -> list[tuple[int, str]]:
    """Pairs of the number of a value and a text with the words that the word index has for it."""
    found = [(number, words(value)) for number, value in values if isinstance(value, str) and len(value) <= KEY_LENGTH]
    # The vocabulary has only the beginning of a long text, the word index all of it.
    return found + list(_texts_by_word_index(connection, {number for number, _ in values} - {n for n, _ in found}))


def _texts_by_word_index(connection: sqlite3.Connection, numbers: set[int]) -> Iterable[tuple[int, str]]:
    if not numbers:
        return ()
    found: dict[int, list[str]] = {}
    connection.execute("CREATE VIRTUAL TABLE IF NOT EXISTS temp.word_places USING fts5vocab (main, words, instance)")
    for number, term in connection.execute("SELECT doc, term FROM temp.word_places"):
        if number in numbers:
            found.setdefault(number, []).append(term)
    connection.execute("DROP TABLE temp.word_places")
    return [(number, " ".join(terms)) for number, terms in found.items()]
