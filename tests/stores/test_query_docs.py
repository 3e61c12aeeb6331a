"""docs/query.md says what the code does."""

import re
from pathlib import Path

import pytest

from kaapana_assets.dicom.attributes import TEXT_LIMIT, VALUES_LIMIT
from kaapana_assets.dicom.documents import RANGE_KEYWORDS, VALUES_KEYWORDS
from kaapana_assets.errors import QueryError
from kaapana_assets.stores.query import parse

DOCS = (Path(__file__).resolve().parents[2] / "docs" / "query.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("text", re.findall(r"`((?:[A-Za-z_.]+:)[^`]+)`", DOCS))
def test_example_in_the_docs_is_a_query(text):
    parse(text)


def test_error_in_the_docs_is_the_one_that_is_raised():
    with pytest.raises(QueryError) as caught:
        parse("PatientAge:[40 TO 60")
    assert str(caught.value) in DOCS


@pytest.mark.parametrize("keyword", [*RANGE_KEYWORDS, *VALUES_KEYWORDS])
def test_keyword_that_is_summarised_is_in_the_docs(keyword):
    assert re.search(rf"\b{keyword}\b", DOCS)


def test_limits_are_in_the_docs():
    assert f"{TEXT_LIMIT:,} characters" in DOCS
    assert f"{VALUES_LIMIT} values" in DOCS
