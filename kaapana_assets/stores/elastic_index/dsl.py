"""Translates a query into Elasticsearch's query DSL. Every clause is a filter; nothing is scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from kaapana_assets.errors import InputError
from kaapana_assets.stores.elastic_index.fields import LOWER_CASE, NAMES, WORDS_APART, coded, marker, other_key, tokens
from kaapana_assets.stores.index.values import as_number, composed, end_of, stored
from kaapana_assets.stores.query.tree import All, And, Exists, Not, Or, Prefix, Query, Range, Term, Text

DSL: TypeAlias = dict[str, Any]

EVERYTHING: DSL = {"match_all": {}}
NOTHING: DSL = {"match_none": {}}

_TERMS_AT_ONCE = 50_000  # the server's index.max_terms_count is 65,536
_WORDS_OF_A_BEGINNING = 10_000
_DEEPEST = 28  # the server's indices.query.bool.max_nested_depth is 30
_AFTER_NUMBERS = "n~"


def to_dsl(query: Query) -> DSL:
    """The Elasticsearch query that finds the same series.

    Raises:
        InputError: the query is nested deeper than the server allows.
    """
    return {"bool": {"filter": [_part(query, 1)]}}


def _part(query: Query, depth: int) -> DSL:
    if depth > _DEEPEST:
        raise InputError(f"the query is nested more than {_DEEPEST} deep, which Elasticsearch does not take")
    if isinstance(query, All):
        return EVERYTHING
    if isinstance(query, Not):
        return _without(query, depth)
    if isinstance(query, And):
        return _all_of(query, depth)
    if isinstance(query, Or):
        return _either(_alternatives(query, depth))
    if isinstance(query, Text):
        return _text(query)
    if isinstance(query, Exists):
        return _exists(query.field)
    if isinstance(query, Term):
        return _terms(query.field, [query.value])
    if isinstance(query, Prefix):
        return _prefix(query)
    return _range(query)


def _without(query: Not, depth: int) -> DSL:
    inner = query.operand
    if isinstance(inner, Not):
        return _part(inner.operand, depth)
    return {"bool": {"must_not": [_part(inner, depth + 1)]}}


def _all_of(query: And, depth: int) -> DSL:
    """One ``bool`` clause for all nested ANDs and their NOTs."""
    found: dict[str, list[DSL]] = {"filter": [], "must_not": []}
    todo = list(query.operands)
    while todo:
        operand = todo.pop(0)
        if isinstance(operand, And):
            todo[:0] = operand.operands
        elif isinstance(operand, Not):
            found["must_not"].append(_part(operand.operand, depth + 1))
        else:
            found["filter"].append(_part(operand, depth + 1))
    return {"bool": {kind: parts for kind, parts in found.items() if parts}}


def _alternatives(query: Or, depth: int) -> list[DSL]:
    """The clauses of the operands; all terms of one field share a clause, because long lists of UIDs are common."""
    values: dict[str, list[str]] = {}
    rest: list[DSL] = []
    todo = list(query.operands)
    for operand in todo:
        if isinstance(operand, Or):
            todo += operand.operands
        elif isinstance(operand, Term):
            values.setdefault(operand.field, []).append(operand.value)
        else:
            rest.append(_part(operand, depth + 1))
    return [_terms(field, terms) for field, terms in values.items()] + rest


def _either(parts: Sequence[DSL]) -> DSL:
    if len(parts) == 1:
        return parts[0]
    return {"bool": {"should": list(parts), "minimum_should_match": 1}}


def _terms(field: str, values: Sequence[str]) -> DSL:
    texts = [str(stored(value)) for value in values]
    numbers = [value for value in map(as_number, values) if value is not None and abs(value) != float("inf")]
    others = [coded(text, exact=False) for text in texts] + [coded(number, exact=False) for number in numbers]
    places: list[tuple[str, Sequence[str | float]]] = [
        (_text_field(field), texts),
        (f"number.{field}", numbers),
        (other_key(field), others),
    ]
    return _either(
        [
            {"terms": {place: wanted[start : start + _TERMS_AT_ONCE]}}
            for place, wanted in places
            for start in range(0, len(wanted), _TERMS_AT_ONCE)
        ]
    )


def _exists(field: str) -> DSL:
    """A sequence exists if a field inside it does."""
    places = [f"{part}.{field}{within}" for part in ("text", "number") for within in ("", ".*")]
    return _either([*({"exists": {"field": place}} for place in places), {"term": {f"other.{NAMES}": field}}])


def _prefix(query: Prefix) -> DSL:
    return _either(
        [
            {"prefix": {_text_field(query.field): composed(query.value)}},
            {"prefix": {other_key(query.field): coded(query.value, exact=False)}},
        ]
    )


def _range(query: Range) -> DSL:
    text = _text_bounds(query)
    other = _coded_bounds(text, {"gte": "s", "lt": "t"}, query)
    parts: list[DSL] = [{"range": {_text_field(query.field): text}}, {"range": {other_key(query.field): other}}]
    bounds = _number_bounds(query)
    if bounds is not None:
        other = _coded_bounds(bounds, {"gte": "n", "lt": _AFTER_NUMBERS}, query)
        parts += [{"range": {f"number.{query.field}": bounds}}, {"range": {other_key(query.field): other}}]
    return _either(parts)


def _coded_bounds(bounds: Mapping[str, str | float], ends: Mapping[str, str], query: Range) -> dict[str, str]:
    """The bounds as ``other`` codes them; an open side takes its bound from ``ends``, where texts or numbers end."""
    found = {sign: coded(bound, exact=False) for sign, bound in bounds.items()}
    if query.lower is None:
        found["gte"] = ends["gte"]
    if query.upper is None:
        found["lt"] = ends["lt"]
    return found


def _text_bounds(query: Range) -> dict[str, str]:
    """The bounds as text; a date bound covers the whole period that it names, such as a year."""
    bounds = {}
    if query.lower is not None:
        lower = composed(query.lower).lower()
        bounds["gte" if query.include_lower else "gt"] = lower if query.include_lower else end_of(lower)
    if query.upper is not None:
        upper = composed(query.upper).lower()
        bounds["lte" if query.include_upper else "lt"] = end_of(upper) if query.include_upper else upper
    return bounds


def _number_bounds(query: Range) -> dict[str, float] | None:
    """The bounds as numbers, or None if one of them is not a number."""
    bounds = {}
    for text, sign in (
        (query.lower, "gte" if query.include_lower else "gt"),
        (query.upper, "lte" if query.include_upper else "lt"),
    ):
        if text is not None:
            number = as_number(text)
            if number is None:
                return None
            # JSON has no infinity; nothing lies beyond the largest number.
            bounds[sign] = max(-1.7976931348623157e308, min(number, 1.7976931348623157e308))
    return bounds


def _text(query: Text) -> DSL:
    found = tokens(query.text)
    if not found:
        return NOTHING
    if query.field is not None:
        return _words_of_field(query.field, found, prefix=query.prefix)
    if len(found) == 1:
        return {"prefix" if query.prefix else "term": {"words": found[0]}}
    if query.prefix:
        expanded = {"query": " ".join(found), "max_expansions": _WORDS_OF_A_BEGINNING}
        return {"match_phrase_prefix": {"words": expanded}}
    return {"match_phrase": {"words": " ".join(found)}}


def _words_of_field(field: str, found: Sequence[str], *, prefix: bool) -> DSL:
    """Matches the words after the field's marker, within one value."""
    whole = found[:-1] if prefix else found
    phrase: list[DSL] = [{"match": {"query": " ".join(whole), "max_gaps": 0, "ordered": True}}] if whole else []
    if prefix:
        phrase.append({"prefix": {"prefix": found[-1]}})
    together = phrase[0] if len(phrase) == 1 else {"all_of": {"intervals": phrase, "max_gaps": 0, "ordered": True}}
    return {
        "intervals": {
            "words": {
                "all_of": {
                    "ordered": True,
                    "intervals": [{"match": {"query": marker(field)}}, together],
                    "max_gaps": WORDS_APART - 1,
                }
            }
        }
    }


def _text_field(field: str) -> str:
    return f"text.{field}.{LOWER_CASE}"
