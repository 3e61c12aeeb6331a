"""Queries that are too large are refused by limits of ours; those within work on the index."""

import pytest

from kaapana_assets.errors import QueryError
from kaapana_assets.stores.elastic_index.dsl import to_dsl
from kaapana_assets.stores.query import parse
from kaapana_assets.stores.sqlite_index import SqliteIndex


def nested(count: int) -> str:
    query = "Modality:MR"
    for number in range(count):
        query = f"({query} {'AND' if number % 2 else 'OR'} Rows:{number})"
    return query


def one_of(condition: str, count: int) -> str:
    return " OR ".join(condition.format(number) for number in range(count))


TOO_LARGE = {
    "32 nested AND and OR": (nested(32), "nested 32 deep, at most 25"),
    "47 NOT": ("NOT (" * 47 + "x" + ")" * 47, "nested 47 deep, at most 25"),
    "wide and deep": ("(" * 20 + "a" + "".join(f" b{n} OR c{n})" for n in range(20)), "nested 40 deep"),
    "5,000 ranges": (one_of("Rows:[{} TO 9999]", 5000), "at most 2000 words, ranges"),
    "three million words": ("a " * 3_000_000, "at most 2000 words, ranges"),
    "values of many fields": (one_of("Field{}:1", 2001), "2001 conditions, at most 2000"),
    "values that must all be": (" ".join(f"Rows:{n}" for n in range(2001)), "2001 conditions, at most 2000"),
    "a long phrase": ('"' + "a " * 6000 + '"', "at most 10000 characters"),
}


@pytest.mark.parametrize(("text", "reason"), TOO_LARGE.values(), ids=TOO_LARGE)
def test_a_query_that_is_too_large_is_refused_by_its_limit(text, reason):
    with pytest.raises(QueryError, match=reason) as refused:
        parse(text)
    assert len(str(refused.value)) < 400


def test_the_condition_that_is_one_too_many_is_pointed_at():
    text = one_of("Rows:[{} TO 9999]", 2001)
    with pytest.raises(QueryError) as refused:
        parse(text)
    assert text[refused.value.position :] == "[2000 TO 9999]"


WITHIN = {
    "nested": nested(25),
    "NOT": "NOT (" * 25 + "Modality:MR" + ")" * 25,
    "ranges": one_of("Rows:[{} TO 9999]", 2000),
    "ranges in brackets": one_of("Rows:([{} TO 9999])", 2000),
    "words": one_of("w{}", 2000),
    "UIDs": f"SeriesInstanceUID:({one_of('1.2.840.113619.2.{}', 20_000)})",
    "UIDs beside others": f"Modality:MR AND SeriesInstanceUID:({one_of('1.2.840.{}', 2000)}) AND NOT brain",
}


@pytest.mark.parametrize("text", WITHIN.values(), ids=WITHIN)
def test_a_query_within_the_limits_works_on_both_indexes(tmp_path, text):
    query = parse(text)
    assert list(SqliteIndex(tmp_path / "index.sqlite").series(query)) == []
    assert to_dsl(query)
