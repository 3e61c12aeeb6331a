"""Explains why a query found nothing: names its fields that no series has, and keywords that may be meant."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator

from kaapana_assets.stores.query.tree import All, And, Exists, Not, Or, Query


def unknown_fields(query: Query, count: Callable[[Query], int]) -> list[str]:
    """A sentence for each field of the query that no series has.

    Args:
        query: a query that found nothing.
        count: returns how many series match a query.
    """
    return [
        f"no series has {field}{_meant(field)}" for field in dict.fromkeys(_fields(query)) if not count(Exists(field))
    ]


def _fields(query: Query) -> Iterator[str]:
    if isinstance(query, (And, Or)):
        for operand in query.operands:
            yield from _fields(operand)
    elif isinstance(query, Not):
        yield from _fields(query.operand)
    elif not isinstance(query, All) and query.field is not None:
        yield query.field


def _meant(field: str) -> str:
    from pydicom.datadict import dictionary_has_tag, keyword_dict  # 0.3 s that only a failed search pays

    if dictionary_has_tag(field.partition(".")[0]):
        return ""
    keywords = {keyword.lower(): keyword for keyword in keyword_dict}
    close = difflib.get_close_matches(field.lower(), keywords, n=1, cutoff=0.8)
    return f"; did you mean {keywords[close[0]]}?" if close else " and DICOM knows no such keyword"
