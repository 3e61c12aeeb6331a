"""The whole report without servers: hanging ones, an absent platform, and what went wrong before."""

import json
import os
import time
from datetime import datetime, timezone

import pytest
from health.conftest import all_stores_at

from kaapana_assets.health import formatting
from kaapana_assets.health.findings import HealthFinding, HealthState
from kaapana_assets.health.past_errors import reason_line
from kaapana_assets.ingest.spool import open_spool
from kaapana_assets.operations.health import open_health_check


def test_servers_that_hang_are_broken_within_the_deadline_and_no_secret_is_told(settings_of, silent_port):
    check = open_health_check(settings_of(all_stores_at(silent_port)))
    for _ in range(2):
        began = time.monotonic()
        report = check.report()
        assert time.monotonic() - began < 6
        assert report.broken == ["pacs", "index", "objects", "storage"]
    assert "hidden-word" not in json.dumps(report.as_json())
    assert all(report.findings[name].problem for name in report.broken)


def test_servers_that_are_away_are_broken_at_once(settings_of, free_port):
    began = time.monotonic()
    report = open_health_check(settings_of(all_stores_at(free_port))).report()
    assert time.monotonic() - began < 5
    assert report.broken == ["pacs", "index", "objects", "storage"]
    assert "KAAPANA_ELASTICSEARCH_URLS" in report.findings["index"].problem


def test_a_dimse_pacs_is_asked_by_echo_too(settings_of, free_port, silent_port):
    settings = settings_of(
        KAAPANA_PACS="dimse",
        KAAPANA_DICOMWEB_URL=f"http://127.0.0.1:{free_port}",
        KAAPANA_DIMSE_URL=f"dimse://ARCHIVE@127.0.0.1:{silent_port}",
    )
    found = open_health_check(settings).report().findings["pacs"]
    assert found.where == f"dimse http://127.0.0.1:{free_port} dimse://ARCHIVE@127.0.0.1:{silent_port}"
    assert found.state is HealthState.BROKEN


def test_without_a_platform_its_parts_need_not_be_there(settings_of, free_port):
    report = open_health_check(settings_of(KAAPANA_RECEIVER_PORT=str(free_port))).report()
    assert report.ok
    assert not report.is_up
    states = {name: each.state for name, each in report.findings.items() if name != "workflows"}
    assert states == dict.fromkeys(("pacs", "index", "objects", "runner", "spool"), HealthState.WORKS) | dict.fromkeys(
        ("receiver", "storage"), HealthState.OFF
    )


def test_a_disk_with_too_little_room_is_a_broken_spool(settings_of):
    report = open_health_check(settings_of(KAAPANA_MIN_FREE_BYTES=str(10**18))).report()
    assert report.broken == ["spool"]
    assert "KAAPANA_MIN_FREE_BYTES" in report.findings["spool"].problem


def test_the_backlog_and_the_newest_of_the_quarantine_are_told(settings_of, tmp_path):
    settings = settings_of()
    spool = open_spool(settings)
    spool.prepare()
    spool.add("1.2", "1.2.1", (b"object",), origin="test")
    for number in range(7):
        source = tmp_path / f"file-{number}.dcm"
        source.write_text(str(number))
        spool.quarantine_copy(source, f"reason {number}\nmore of it")
        time.sleep(0.01)
    report = open_health_check(settings).report()
    counts = report.findings["spool"].counts
    assert (counts["series"], counts["instances"], counts["quarantined"]) == (1, 1, 7)
    assert 0 <= counts["oldest_age_s"] < 60
    assert [each.reason for each in report.errors] == [f"reason {number}" for number in (6, 5, 4, 3, 2)]
    assert datetime.now(timezone.utc) >= report.errors[0].time


def test_what_is_no_series_in_the_spool_is_named(settings_of):
    settings = settings_of()
    open_spool(settings).prepare()
    for name in (b"caf\xe9", b"one\nline", b"x", b"y"):
        (settings.home / "incoming" / os.fsdecode(name)).mkdir()
    report = open_health_check(settings).report()
    found = report.findings["spool"]
    assert report.ok
    assert found.counts["left_alone"] == 4
    assert found.problem.startswith("4 files or folders that are no series are ignored")


def test_a_note_of_the_quarantine_that_somebody_changed_does_not_hide_the_others(settings_of, tmp_path):
    settings = settings_of()
    source = tmp_path / "bad.dcm"
    source.write_text("x")
    spool = open_spool(settings)
    spool.prepare()
    kept = spool.quarantine_copy(source, "a reason")
    note = kept.with_name(f"{kept.name}.json")
    note.write_text("{")
    (error,) = open_health_check(settings).report().errors
    assert error.reason == f"{note} cannot be read"


COUNTS = {
    "sizes": ({"series": 3, "size_bytes": 1_234_567_890, "free_bytes": 75_268_874_240}, "3 series, 1.2 GB, 75 GB free"),
    "one": ({"documents": 1, "instances": 1, "series": 1}, "1 document, 1 instance, 1 series"),
    "many": ({"instances": 1_234_567}, "1,234,567 instances"),
    "age": ({"oldest_age_s": 7300.0}, "the oldest for 2 h"),
    "none worth a word": ({"open_series": 0, "restarts": 0}, ""),
    "known": ({"known_series": 2, "known_size_bytes": 0}, "known here: 2 series, 0 bytes"),
    "nothing": ({}, ""),
}


@pytest.mark.parametrize(("counts", "said"), COUNTS.values(), ids=COUNTS)
def test_counts_are_told_in_words(counts, said):
    assert formatting.counts(HealthFinding(state=HealthState.WORKS, counts=counts)) == said


LINES = {
    "first": ("the reason\nmore", "the reason"),
    "blank before": ("\n  \nthe reason", "the reason"),
    "broken and indented": ("a range that is\n      not valid", "a range that is not valid"),
    "nothing": ("", ""),
    "long": ("x" * 400, "x" * 300 + " …"),
}


@pytest.mark.parametrize(("text", "line"), LINES.values(), ids=LINES)
def test_a_reason_is_one_line(text, line):
    assert reason_line(text) == line
