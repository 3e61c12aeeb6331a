"""What the stores in the home say of themselves, and that a look changes nothing."""

import fcntl
import sqlite3
import time
from pathlib import Path

import pydicom.data
import pytest

from kaapana_assets.errors import ConfigurationError, StoreUnavailable
from kaapana_assets.health.stores import check_before_start, store_checks
from kaapana_assets.home import MARKER
from kaapana_assets.home_record import RECORD
from kaapana_assets.stores.factory import open_index, open_objects, open_pacs

CT = Path(pydicom.data.get_testdata_file("CT_small.dcm"))
EMPTY = {
    "pacs": {"series": 0, "instances": 0, "size_bytes": 0},
    "index": {"documents": 0},
    "objects": {"buckets": 0},
}


def test_an_empty_home_works_and_nothing_is_made(settings_of, home):
    reports = {name: check() for name, check in store_checks(settings_of()).items()}
    assert {name: report.counts for name, report in reports.items()} == EMPTY
    assert all(report.free_bytes > 0 for report in reports.values())
    assert (reports["index"].product, reports["index"].version) == ("SQLite", sqlite3.sqlite_version)
    assert sorted(path.name for path in home.iterdir()) == [MARKER, RECORD]


def test_what_is_stored_is_counted(settings_of):
    settings = settings_of()
    open_pacs(settings).store([CT])
    open_index(settings).put([{"SeriesInstanceUID": "1.2.3"}])
    open_objects(settings).put_file("bucket", "name", CT)
    found = {name: check().counts for name, check in store_checks(settings).items()}
    assert found == {
        "pacs": {"series": 1, "instances": 1, "size_bytes": CT.stat().st_size},
        "index": {"documents": 1},
        "objects": {"buckets": 1},
    }


def test_the_pacs_is_looked_at_while_somebody_stores(settings_of, home):
    settings = settings_of()
    open_pacs(settings).store([CT])
    with (home / "archive" / ".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        began = time.monotonic()
        assert store_checks(settings)["pacs"]().counts["series"] == 1
        assert time.monotonic() - began < 2


def test_a_pacs_whose_catalog_is_not_made_yet_says_no_numbers(settings_of, home):
    (home / "archive" / "1.2" / "1.2.3").mkdir(parents=True)
    assert store_checks(settings_of())["pacs"]().counts == {}
    assert not (home / "archive" / "catalog.sqlite").exists()


def a_file(place: str):
    def make(home: Path) -> None:
        (home / place).parent.mkdir(parents=True, exist_ok=True)
        (home / place).write_bytes(b"this is no database, and no folder" * 100)

    return make


DAMAGED = {
    "archive is a file": ("pacs", "archive"),
    "catalog is no database": ("pacs", "archive/catalog.sqlite"),
    "index is no database": ("index", "index.sqlite"),
    "objects is a file": ("objects", "objects"),
}


@pytest.mark.parametrize(("store", "place"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_store_is_unavailable_and_named(settings_of, home, store, place):
    a_file(place)(home)
    with pytest.raises(StoreUnavailable, match=str(home / place)):
        store_checks(settings_of())[store]()


def test_start_is_told_of_a_store_that_is_away(settings_of, home):
    a_file("objects")(home)
    said: list[str] = []
    check_before_start(settings_of(), said.append)
    assert len(said) == 1
    assert said[0].startswith(f"objects      folder {home}/objects does not answer; work waits until it does (")


def test_start_is_refused_for_an_index_of_another_program(settings_of, home):
    connection = sqlite3.connect(home / "index.sqlite")
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(ConfigurationError, match=r"index: metadata index .*index\.sqlite has tables of version 99"):
        check_before_start(settings_of(), lambda _: None)


def test_start_with_all_in_order_says_nothing(settings_of):
    said: list[str] = []
    check_before_start(settings_of(), said.append)
    assert said == []
