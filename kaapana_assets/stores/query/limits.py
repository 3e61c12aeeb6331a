"""The size limits of a query: the same for every index, and low enough for each of them."""

from __future__ import annotations

from kaapana_assets.errors import QueryError
from kaapana_assets.stores.query.tree import And, Not, Or, Query, Term, Text

MAX_LENGTH = 10_000_000
MAX_DEPTH = 25
"""Nested levels of AND, OR and NOT; n operands side by side count as log2(n) levels, rounded up, at least one."""
MAX_CONDITIONS = 2000
"""Conditions of all kinds; values of one field that are joined by OR count as one condition."""
MAX_VALUES = 200_000
MAX_WORDS_LENGTH = 10_000


class LeafCount:
    """Counts conditions while a query is parsed, so that parsing stops as soon as there are too many."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._values = 0
        self._others = 0

    def add(self, leaf: Query, *, position: int) -> None:
        """Count one condition.

        Raises:
            QueryError: there are too many conditions, or a text is too long.
        """
        if isinstance(leaf, Text) and len(leaf.text) > MAX_WORDS_LENGTH:
            self._fail(f"words to look for have at most {MAX_WORDS_LENGTH} characters", position)
        if isinstance(leaf, Term):
            self._values += 1
            if self._values > MAX_VALUES:
                self._fail(f"a query has at most {MAX_VALUES} values: split the list", position)
            return
        self._others += 1
        if self._others > MAX_CONDITIONS:
            self._fail(f"a query has at most {MAX_CONDITIONS} words, ranges and other conditions: split it", position)

    def _fail(self, reason: str, position: int) -> None:
        raise QueryError(reason, text=self._text, position=position)


def check_shape(query: Query, *, text: str) -> None:
    """Refuse a query that is nested too deep or has too many conditions.

    Raises:
        QueryError: names the limit.
    """
    levels, conditions = _shape(query)
    if levels > MAX_DEPTH:
        raise QueryError(
            f"AND, OR and NOT are nested {levels} deep, at most {MAX_DEPTH} work (a list counts as several levels)",
            text=text,
            position=0,
        )
    if conditions > MAX_CONDITIONS:
        raise QueryError(
            f"the query has {conditions} conditions, at most {MAX_CONDITIONS} work; many values of one field are one "
            "condition, written Field:(a OR b OR c)",
            text=text,
            position=0,
        )


def _shape(query: Query) -> tuple[int, int]:
    """The numbers of levels and conditions of a query; recursion is safe, because the parser limits the depth."""
    if isinstance(query, Not):
        levels, conditions = _shape(query.operand)
        return levels + 1, conditions
    if not isinstance(query, And | Or):
        return 0, 1
    fields: set[str] = set()
    parts = []
    for operand in query.operands:
        if isinstance(query, Or) and isinstance(operand, Term):
            fields.add(operand.field)
        else:
            parts.append(_shape(operand))
    width = len(fields) + len(parts)
    deepest = max((levels for levels, _ in parts), default=0)
    return deepest + max(1, (width - 1).bit_length()), len(fields) + sum(count for _, count in parts)
