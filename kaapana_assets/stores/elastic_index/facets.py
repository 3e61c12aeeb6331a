"""Computes all facets as aggregations of one search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from kaapana_assets.errors import InputError
from kaapana_assets.stores.elastic_index.fields import LOWER_CASE, other_key
from kaapana_assets.stores.index.protocol import Bucket, DateHistogramFacet, Facet, HistogramFacet, SortKey, TermsFacet
from kaapana_assets.stores.index.values import Value, as_number, folded

JSON: TypeAlias = dict[str, Any]

_MOST_BUCKETS = 65_535  # the server's search.max_buckets
_DATE_FORMATS = {"year": "yyyy", "month": "yyyy-MM", "day": "yyyy-MM-dd"}
_EXACT_INTEGERS = 2.0**53


def aggregations(facets: Sequence[Facet]) -> JSON:
    """The aggregations of all facets; their names begin with the number of the facet.

    Raises:
        InputError: a size or an interval is not above zero.
    """
    asked: JSON = {}
    for number, facet in enumerate(facets):
        if isinstance(facet, TermsFacet):
            _check(facet, facet.size)
            for place in ("text", "number", "other"):
                size = min(facet.size, _MOST_BUCKETS)
                # Every shard returns more values than wanted, so that the most frequent overall are among them.
                terms = {"field": f"{place}.{facet.field}", "size": size, "shard_size": max(1000, 2 * size)}
                asked[f"{number}.{place}"] = {"terms": terms}
        elif isinstance(facet, HistogramFacet):
            _check(facet, facet.interval)
            steps = {"field": f"number.{facet.field}", "interval": facet.interval, "min_doc_count": 1}
            asked[f"{number}.number"] = {"histogram": steps}
        else:
            steps = {
                "field": f"date.{facet.field}",
                "calendar_interval": facet.interval,
                "format": _DATE_FORMATS[facet.interval],
                "min_doc_count": 1,
            }
            asked[f"{number}.date"] = {"date_histogram": steps}
    return asked


def buckets(facets: Sequence[Facet], answer: JSON) -> list[list[Bucket]]:
    """The buckets of each facet, read from the response to ``aggregations``."""
    found = []
    for number, facet in enumerate(facets):
        if isinstance(facet, TermsFacet):
            found.append(_most_frequent(facet.size, number, answer))
            continue
        place, key = ("date", "key_as_string") if isinstance(facet, DateHistogramFacet) else ("number", "key")
        steps = answer[f"{number}.{place}"]["buckets"]
        found.append([Bucket(_shown(step[key]), step["doc_count"]) for step in steps])
    return found


def order(sort: Sequence[SortKey]) -> list[JSON]:
    """The sort clauses: ascending, numbers come before text; absent fields come last; SeriesInstanceUID breaks ties."""
    keys: list[JSON] = []
    for key in sort:
        direction = "desc" if key.descending else "asc"
        # The values of a field are either in ``other`` or in ``number`` and ``text``.
        places = (f"number.{key.field}", f"text.{key.field}.{LOWER_CASE}", other_key(key.field))
        found: list[JSON] = [
            {place: {"order": direction, "missing": "_last", "unmapped_type": kind}}
            for place, kind in zip(places, ("double", "keyword", "keyword"), strict=True)
        ]
        keys += reversed(found) if key.descending else found
    return [*keys, {"uid": {"order": "asc"}}]


def positions(sort: Sequence[SortKey]) -> int:
    """The number of sort values that each hit has in this order."""
    return len(order(sort))


def _most_frequent(size: int, number: int, answer: JSON) -> list[Bucket]:
    counted: list[tuple[Value, int]] = []
    for place in ("text", "number", "other"):
        for each in answer[f"{number}.{place}"]["buckets"]:
            key = _shown(_decoded(each["key"]) if place == "other" else each["key"])
            counted.append((key, each["doc_count"]))
    counted.sort(key=lambda each: (-each[1], *_rank(each[0])))
    return [Bucket(*each) for each in counted[:size]]


def _rank(key: Value) -> tuple[int, Value, str]:
    return (1, folded(key), key) if isinstance(key, str) else (0, key, "")


def _decoded(code: str) -> Value:
    number = as_number(code[1:]) if code.startswith("n") else None
    return code[1:] if number is None else number


def _shown(key: Value) -> Value:
    """A whole number as an int: the server returns every number as a float."""
    if isinstance(key, float) and key.is_integer() and abs(key) < _EXACT_INTEGERS:
        return int(key)
    return key


def _check(facet: Facet, above_zero: float) -> None:
    if not above_zero > 0:
        raise InputError(f"facet of {facet.field}: size and interval must be above zero")
