"""A cohort is frozen: its list is what was found when it was made, and a change of it is noticed."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest

from kaapana_assets.cohorts.cohort import Cohort, freeze, list_digest, name_for, names, read, save
from kaapana_assets.errors import ConflictingContent, InvalidIdentifier, NotFound, QueryError
from kaapana_assets.stores.sqlite_index import SqliteIndex

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


def document(uid: str, modality: str) -> dict[str, object]:
    return {"SeriesInstanceUID": uid, "StudyInstanceUID": "1.2", "Modality": modality, "instance_count": 1}


@pytest.fixture
def index(tmp_path: Path) -> SqliteIndex:
    made = SqliteIndex(tmp_path / "index.sqlite")
    made.put([document("1.2.3", "CT"), document("1.2.1", "CT"), document("1.2.2", "MR")])
    return made


def test_cohort_holds_what_matched_when_it_was_made(index: SqliteIndex, tmp_path: Path) -> None:
    cohort = freeze(index, name="ct", query="Modality:CT", now=NOW)
    save(tmp_path, cohort)
    index.put([document("1.2.9", "CT")])
    assert read(tmp_path, "ct") == cohort
    assert cohort.series == ("1.2.1", "1.2.3")
    assert (cohort.query, cohort.created) == ("Modality:CT", "2026-01-02T03:04:05+00:00")
    assert freeze(index, name="ct", query="Modality:CT", now=NOW).digest != cohort.digest


def test_a_name_is_numbered_while_other_selections_have_it(index: SqliteIndex, tmp_path: Path) -> None:
    kept = {}
    for query in ("Modality:CT", "Modality:MR", "*", "Modality:MR"):
        cohort = freeze(index, name="demo", query=query, now=NOW)
        kept[query] = name_for(tmp_path, cohort)
        save(tmp_path, replace(cohort, name=kept[query]))
    assert kept == {"Modality:CT": "demo", "Modality:MR": "demo-2", "*": "demo-3"}
    (tmp_path / "demo-2.json").write_text("damaged")
    assert name_for(tmp_path, freeze(index, name="demo", query="Modality:MR", now=NOW)) == "demo-4"


def test_equal_selections_have_equal_digests(index: SqliteIndex) -> None:
    one = freeze(index, name="a", query="Modality:CT", now=NOW)
    other = freeze(index, name="b", query="NOT Modality:MR", now=NOW)
    assert one.digest == other.digest == list_digest(("1.2.1", "1.2.3"))


def test_cohort_of_more_series_than_a_page_holds_is_whole(index: SqliteIndex, tmp_path: Path) -> None:
    index.put([document(f"1.3.{number}", "PT") for number in range(12_000)])
    cohort = freeze(index, name="pt", query="Modality:PT", now=NOW)
    save(tmp_path, cohort)
    assert len(read(tmp_path, "pt").series) == 12_000


def test_selection_without_series_is_no_cohort(index: SqliteIndex) -> None:
    with pytest.raises(NotFound, match="no series matches"):
        freeze(index, name="us", query="Modality:US", now=NOW)


def test_query_that_cannot_be_read_is_told_with_its_place(index: SqliteIndex) -> None:
    with pytest.raises(QueryError):
        freeze(index, name="x", query="Modality:CT AND (", now=NOW)


@pytest.mark.parametrize("name", ["../x", "", "a b", "a/b", ".x", "x" * 200])
def test_name_that_leads_elsewhere_is_refused(index: SqliteIndex, tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidIdentifier):
        freeze(index, name=name, query="Modality:CT", now=NOW)
    with pytest.raises(InvalidIdentifier):
        read(tmp_path, name)


def made(*series: str, name: str = "c") -> Cohort:
    return Cohort(name, "*", NOW.isoformat(), series, list_digest(series))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut": (lambda path: path.write_text(path.read_text()[:40]), "is damaged"),
    "empty": (lambda path: path.write_text(""), "is damaged"),
    "other-json": (lambda path: path.write_text("[]"), "is damaged"),
    "field-missing": (lambda path: path.write_text('{"name": "c", "series": []}'), "is damaged"),
    "series-added": (
        lambda path: path.write_text(
            json.dumps({**json.loads(path.read_text()), "series": ["1.2.1", "1.2.2", "1.2.3"]})
        ),
        "was edited after it was frozen",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_or_changed_file_is_told_of(tmp_path: Path, damage: str) -> None:
    change, told = DAMAGES[damage]
    change(save(tmp_path, made("1.2.1", "1.2.2")))
    with pytest.raises(NotFound, match=told):
        read(tmp_path, "c")


def test_same_name_with_another_list_is_refused_and_the_first_stays(tmp_path: Path) -> None:
    save(tmp_path, made("1.2.1"))
    with pytest.raises(ConflictingContent, match="choose another name"):
        save(tmp_path, made("1.2.2"))
    assert read(tmp_path, "c").series == ("1.2.1",)
    assert [path.name for path in tmp_path.iterdir()] == ["c.json"]


def test_same_name_with_the_same_list_may_be_saved_again(tmp_path: Path) -> None:
    assert save(tmp_path, made("1.2.1")) == save(tmp_path, made("1.2.1"))


def test_unknown_cohort_is_told_with_those_that_there_are(tmp_path: Path) -> None:
    save(tmp_path, made("1.2.1", name="b"))
    save(tmp_path, made("1.2.1", name="a"))
    assert names(tmp_path) == ["a", "b"]
    with pytest.raises(NotFound, match="no cohort 'x'; there is: a, b"):
        read(tmp_path, "x")
