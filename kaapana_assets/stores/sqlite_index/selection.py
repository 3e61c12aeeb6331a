"""Translates a query into an SQL condition that holds for the rows of ``series`` whose documents match."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from kaapana_assets.stores.index.values import LAST_CHARACTER, Value, as_number, end_of, folded, stored, words
from kaapana_assets.stores.query.tree import All, And, Exists, Not, Or, Prefix, Query, Range, Term, Text

_DOCUMENTS_HAVING = (
    "series.doc IN (SELECT p.doc FROM vocabulary v CROSS JOIN postings p ON p.field = v.field AND p.value = v.id WHERE"
)
_NUMBERS_END = ""  # every number sorts before every text


@dataclass(frozen=True)
class Condition:
    """A condition on ``series.doc`` and the values of its placeholders."""

    sql: str
    parameters: tuple[Value, ...] = ()


EVERYTHING = Condition("1")
NOTHING = Condition("0")


def condition(query: Query, connection: sqlite3.Connection) -> Condition:
    """The SQL condition of a query; the names of fields are looked up while it is built."""
    if isinstance(query, All):
        return EVERYTHING
    if isinstance(query, Not):
        inner = condition(query.operand, connection)
        return Condition(f"NOT ({inner.sql})", inner.parameters)
    if isinstance(query, And):
        return _joined([condition(operand, connection) for operand in query.operands], "AND")
    if isinstance(query, Or):
        return _joined(_alternatives(query, connection), "OR")
    if isinstance(query, Text):
        return _text(query, connection)
    if isinstance(query, Exists):
        return _exists(query, connection)
    if isinstance(query, Term):
        return _terms(query.field, [query.value], connection)
    return _interval(query, connection)


def field_id(connection: sqlite3.Connection, name: str) -> int | None:
    """The number of a field; None if no document has it."""
    row = connection.execute("SELECT id FROM fields WHERE name = ?", (name,)).fetchone()
    return None if row is None else int(row[0])


def _joined(parts: Sequence[Condition], operator: str) -> Condition:
    """Join conditions as a balanced tree, because SQLite limits the depth of an expression, not its length."""
    if len(parts) == 1:
        return parts[0]
    middle = len(parts) // 2
    left, right = _joined(parts[:middle], operator), _joined(parts[middle:], operator)
    return Condition(f"({left.sql} {operator} {right.sql})", left.parameters + right.parameters)


def _alternatives(query: Or, connection: sqlite3.Connection) -> list[Condition]:
    """The conditions of the operands; all terms of one field share one, because long lists of UIDs are common."""
    values: dict[str, list[str]] = {}
    rest = []
    for operand in query.operands:
        if isinstance(operand, Term):
            values.setdefault(operand.field, []).append(operand.value)
        else:
            rest.append(condition(operand, connection))
    return [_terms(field, terms, connection) for field, terms in values.items()] + rest


def _terms(field: str, terms: Sequence[str], connection: sqlite3.Connection) -> Condition:
    number = field_id(connection, field)
    if number is None:
        return NOTHING
    values: list[Value] = [folded(stored(term)) for term in terms]
    values += [value for value in map(as_number, terms) if value is not None and abs(value) != float("inf")]
    return _having(number, "v.folded IN (SELECT value FROM json_each(?))", (json.dumps(values),))


def _having(field: int, sql: str, parameters: tuple[Value, ...]) -> Condition:
    """The condition that a document has a value of the field for which ``sql`` holds in ``vocabulary v``."""
    return Condition(f"{_DOCUMENTS_HAVING} v.field = ? AND ({sql}))", (field, *parameters))


def _text(query: Text, connection: sqlite3.Connection) -> Condition:
    phrase = '"' + words(query.text).replace('"', '""').replace("\0", " ") + '"' + (" *" if query.prefix else "")
    matching = "v.id IN (SELECT rowid FROM words WHERE words MATCH ?)"
    if query.field is not None:
        number = field_id(connection, query.field)
        return NOTHING if number is None else _having(number, matching, (phrase,))
    return Condition(f"{_DOCUMENTS_HAVING} {matching})", (phrase,))


def _exists(query: Exists, connection: sqlite3.Connection) -> Condition:
    """A sequence exists if a field inside it does."""
    rows = connection.execute(
        "SELECT id FROM fields WHERE name = ? OR (name >= ? AND name < ?)",
        (query.field, f"{query.field}.", f"{query.field}.{LAST_CHARACTER}"),
    ).fetchall()
    if not rows:
        return NOTHING
    numbers = ", ".join(str(int(row[0])) for row in rows)
    return Condition(f"series.doc IN (SELECT doc FROM postings WHERE field IN ({numbers}))")  # noqa: S608 - integers


def _interval(query: Range | Prefix, connection: sqlite3.Connection) -> Condition:
    number = field_id(connection, query.field)
    if number is None:
        return NOTHING
    if isinstance(query, Prefix):
        start = str(folded(query.value))
        return _having(number, "v.folded >= ? AND v.folded < ?", (start, start + LAST_CHARACTER))
    parts = [_text_interval(query)]
    bounds = [None if bound is None else as_number(bound) for bound in (query.lower, query.upper)]
    if all(text is None or value is not None for text, value in zip((query.lower, query.upper), bounds, strict=True)):
        parts.append(_number_interval(query, *bounds))
    joined = _joined(parts, "OR")
    return _having(number, joined.sql, joined.parameters)


def _number_interval(query: Range, lower: float | None, upper: float | None) -> Condition:
    sql, parameters = [], []
    if lower is not None:
        sql.append("v.folded >= ?" if query.include_lower else "v.folded > ?")
        parameters.append(lower)
    if upper is not None:
        sql.append("v.folded <= ?" if query.include_upper else "v.folded < ?")
        return Condition(f"({' AND '.join(sql)})", (*parameters, upper))
    return Condition(f"({' AND '.join(sql)} AND v.folded < ?)", (*parameters, _NUMBERS_END))


def _text_interval(query: Range) -> Condition:
    sql, parameters = "v.folded >= ?", [_NUMBERS_END]
    if query.lower is not None:
        lower = str(folded(query.lower))
        sql = "v.folded >= ?" if query.include_lower else "v.folded > ?"
        parameters = [lower if query.include_lower else end_of(lower)]
    if query.upper is not None:
        upper = str(folded(query.upper))
        sql += " AND v.folded <= ?" if query.include_upper else " AND v.folded < ?"
        parameters.append(end_of(upper) if query.include_upper else upper)
    return Condition(f"({sql})", tuple(parameters))
