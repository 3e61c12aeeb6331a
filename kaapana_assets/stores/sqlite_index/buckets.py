"""Computes facets in SQL, over the documents in the temporary table ``matched`` or over all documents."""

from __future__ import annotations

import sqlite3

from kaapana_assets.errors import InputError
from kaapana_assets.stores.index.protocol import Bucket, Facet, HistogramFacet, TermsFacet
from kaapana_assets.stores.sqlite_index.selection import field_id

_DATES = {
    "year": (4, "[0-9][0-9][0-9][0-9]*"),
    "month": (7, "[0-9][0-9][0-9][0-9]-[0-9][0-9]*"),
    "day": (10, "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*"),
}


def buckets(connection: sqlite3.Connection, facet: Facet, *, everything: bool) -> list[Bucket]:
    """The buckets of one facet.

    Args:
        connection: a connection whose table ``matched`` is filled, unless ``everything`` is set.
        facet: a facet of any kind.
        everything: whether to count all documents.

    Raises:
        InputError: a size or an interval is not above zero.
    """
    field = field_id(connection, facet.field)
    if not (facet.size if isinstance(facet, TermsFacet) else _positive_interval(facet)):
        raise InputError(f"facet of {facet.field}: size and interval must be above zero")
    if field is None:
        return []
    limited = "" if everything else "AND p.doc IN (SELECT doc FROM matched)"
    if isinstance(facet, TermsFacet):
        # Group first: the groups come in the order of the B-tree, and each value is looked up once.
        sql = (
            "SELECT v.value, n FROM (SELECT p.value AS id, count(*) AS n FROM postings p "  # noqa: S608
            f"WHERE p.field = ? {limited} GROUP BY p.value) AS groups CROSS JOIN vocabulary v ON v.id = groups.id "
            "ORDER BY n DESC, v.folded, v.value LIMIT ?"
        )
        return _read(connection, sql, (field, max(0, facet.size)))
    if isinstance(facet, HistogramFacet):
        step = facet.interval
        # Round down without floor(), which SQLite builds without math functions lack.
        key = "(CAST(v.value / ? AS INTEGER) - (v.value / ? < CAST(v.value / ? AS INTEGER))) * ?"
        kept, parameters = "typeof(v.value) != 'text'", (step, step, step, step)
        return _read(connection, _grouped(key, kept, limited), (*map(float, parameters), field))
    length, pattern = _DATES[facet.interval]
    return _read(connection, _grouped("substr(v.value, 1, ?)", "v.value GLOB ?", limited), (length, field, pattern))


def _positive_interval(facet: Facet) -> bool:
    return not isinstance(facet, HistogramFacet) or facet.interval > 0


def _grouped(key: str, kept: str, limited: str) -> str:
    return (
        f"SELECT {key} AS bucket, count(DISTINCT p.doc) FROM postings p CROSS JOIN vocabulary v ON v.id = p.value "  # noqa: S608
        f"WHERE p.field = ? AND {kept} {limited} GROUP BY bucket ORDER BY bucket"
    )


def _read(connection: sqlite3.Connection, sql: str, parameters: tuple[str | float, ...]) -> list[Bucket]:
    return [Bucket(key, int(count)) for key, count in connection.execute(sql, parameters)]
