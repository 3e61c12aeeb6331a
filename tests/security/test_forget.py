"""A person who is forgotten is nowhere any more, whatever happens meanwhile."""

import json
import os
import shutil
import signal
import subprocess
import sys
from datetime import datetime, timezone

import dagster as dg
import pytest
from security.conftest import lay_out
from security.patient_home import NAME, PATIENT, files_with, freeze, kaapana, take_in, write_dicom

from kaapana_assets.cohorts import cohort as cohorts
from kaapana_assets.definitions import build_definitions
from kaapana_assets.errors import TemporaryError
from kaapana_assets.forgetting import forget
from kaapana_assets.ingest.folder_import import import_files
from kaapana_assets.ingest.spool import open_spool
from kaapana_assets.settings import load_settings
from kaapana_assets.stores.factory import open_index, open_pacs
from kaapana_assets.stores.objects.folder import FolderObjects
from kaapana_assets.stores.query import All

GONE, GONE_TOO, KEPT = "1.2.77.1", "1.2.77.2", "1.2.88.1"
FORGET = """
import os, signal, sys
from datetime import datetime, timezone
from kaapana_assets.forgetting import forget
from kaapana_assets.settings import load_settings
settings, place, kind, value = load_settings(), *sys.argv[1:]
def say(name):
    if name == place:
        os.kill(os.getpid(), signal.SIGKILL)
forget.carry_out(settings, forget.plan(settings, kind, value, now=datetime.now(timezone.utc)), say)
"""
PLACES = [
    *("objects", "shelf", "runs", "cohorts", "quarantine", "spool", "scratch", "archive", "index", "caches"),
    *("logs", "Dagster"),
]


def now():
    return datetime.now(timezone.utc)


@pytest.fixture(scope="module")
def original(site, tmp_path_factory):
    """A home after import, ingest and runs, with a file set aside, one waiting and traces of killed processes."""
    sent = tmp_path_factory.mktemp("sent")
    home = site.place.home
    site.clear()
    lay_out(home)
    for series, study, name, patient in (
        (GONE, "1.2.77", NAME, PATIENT),
        (GONE_TOO, "1.2.77", NAME, PATIENT),
        (KEPT, "1.2.88", "Another", "A-1"),
    ):
        for instance in (1, 2):
            path = sent / series / f"{instance}.dcm"
            write_dicom(path, series=series, instance=instance, study=study, name=name, patient=patient)
    with site.opened() as platform:
        take_in(platform.instance, sent)
        freeze(platform.instance, "all", f"PatientName:{NAME}* OR Modality:MR")
        assert platform.run().success
        assert platform.run(mode="single", force=True).success
    objects = FolderObjects(home / "objects")
    for uid in (GONE, KEPT):
        objects.put_file("results", f"{uid}/report.txt", sent / uid / "1.dcm")
    # A run that failed, and what killed processes leave.
    directory = site.place.directories.create("my-chain", "some-run", now())
    directory.write_conf({"series": {GONE: "", KEPT: ""}, "missing": {}, "dagster_run_id": "some-run"})
    write_dicom(directory.series_dir(GONE, "initial-input") / "1.dcm", series=GONE)
    write_dicom(home / "scratch" / "tmp1" / "series" / "1.dcm", series=GONE)
    write_dicom(home / "quarantine" / "1.2.9" / "x-1.dcm", series=GONE_TOO)
    (home / "quarantine" / "1.2.9" / "x-1.dcm.json").write_text('{"reason": "r", "time": "2026-01-01", "origin": ""}')
    write_dicom(home / "incoming" / GONE / f"{GONE}.3.dcm", series=GONE, instance=3, study="1.2.77")
    (home / "logs").mkdir()
    (home / "logs" / "daemon.log").write_text(f"series {GONE}: taken\nseries {GONE}.5: taken\nseries {KEPT}: taken\n")
    kept = tmp_path_factory.mktemp("original") / "home"
    shutil.copytree(home, kept)
    return kept, sent


@pytest.fixture
def lived_in(site, original):
    """The same home for each test."""
    site.clear()
    shutil.copytree(original[0], site.place.home)
    with site.opened() as platform:
        yield platform


@pytest.fixture
def platform(site):
    """A home without anything in it."""
    site.clear()
    lay_out(site.place.home)
    with site.opened() as platform:
        yield platform


def assert_forgotten(platform):
    home = platform.place.home
    assert files_with(home, NAME) == []
    assert files_with(home, PATIENT) == []
    # The UID is the beginning of others' in one line of a log only.
    assert files_with(home, GONE, but=["logs", "started.log"]) == []
    assert files_with(home, GONE_TOO, but=["started.log"]) == []
    log = (home / "logs" / "daemon.log").read_text()
    assert log == f"series {'x' * len(GONE)}: taken\nseries {GONE}.5: taken\nseries {KEPT}: taken\n"
    assert platform.instance.get_dynamic_partitions("series") == [KEPT]
    for key in ("dicom_series", "series_metadata"):
        assert platform.instance.get_materialized_partitions(dg.AssetKey(key)) == {KEPT}
    assert platform.instance.get_materialized_partitions(dg.AssetKey(["my_chain", "copy"])) == {KEPT}
    assert platform.instance.get_materialized_partitions(dg.AssetKey(["my_chain", "pool"])) == set()
    settings = load_settings()
    index = open_index(settings)
    assert list(index.series(All())) == [KEPT]
    index.close()
    assert list(open_pacs(settings).series_uids()) == [KEPT]


def test_a_patient_is_nowhere_any_more(lived_in):
    home = lived_in.place.home
    before = {path for path in home.rglob("*") if path.is_file() and "sqlite" not in path.name}
    said = kaapana("forget", "--patient", PATIENT)
    assert "nothing was removed" in said
    assert f"  {GONE}\n  {GONE_TOO}\n" in said
    for line in ("archive      4 instances", "objects      1 objects", "quarantine   1 files", "spool        1 files"):
        assert line in said
    assert before <= set(home.rglob("*"))
    said = kaapana("forget", "--patient", PATIENT, "--yes")
    assert "forgotten: 2 series" in said
    assert_forgotten(lived_in)


def test_the_record_says_who_and_how_much_and_not_what(lived_in):
    kaapana("forget", "--study", "1.2.77", "--yes")
    (path,) = (lived_in.place.home / "forgotten").glob("*.json")
    record = json.loads(path.read_text())
    assert record["kind"] == "study"
    assert record["asked_by"]
    assert (record["series"], record["removed"]["archive"], record["remains"]) == (2, 4, [])
    assert path.stat().st_mode & 0o077 == 0
    assert_forgotten(lived_in)


def test_the_cohort_stays_and_later_runs_say_what_is_missing(lived_in):
    folder = lived_in.place.home / "cohorts"
    before = cohorts.read(folder, "all")
    kaapana("forget", "--series", GONE, "--yes")
    after = cohorts.read(folder, "all")
    assert after.series == (GONE_TOO, KEPT)
    assert len(after.forgotten) == 1
    assert after.digest != before.digest
    assert NAME not in after.query
    assert lived_in.run().success
    report = lived_in.report()
    assert (report["forgotten"], report["series"], report["failed"]) == (1, 2, {})
    # What was made of others is still on the shelf, only the pooled output was made anew.
    assert {row["operator"]: len(row["reused"]) for row in report["operators"]} == {"copy": 2, "last": 2, "pool": 0}


@pytest.mark.parametrize("place", PLACES)
def test_killed_at_any_place_it_goes_on(lived_in, place):
    command = [sys.executable, "-c", FORGET, place, "patient", PATIENT]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    kaapana("forget", "--go-on")
    assert_forgotten(lived_in)
    assert list((lived_in.place.home / "forgotten" / ".pending").iterdir()) == []


def test_runs_that_wait_for_what_is_forgotten_are_cancelled(lived_in):
    instance = lived_in.instance
    job = build_definitions(load_settings()).resolve_job_def("ingest")
    waiting = {}
    for uid in (GONE, KEPT):
        tags = {"dagster/asset_partition_range_start": uid, "dagster/asset_partition_range_end": uid}
        waiting[uid] = instance.create_run_for_job(job, tags=tags, status=dg.DagsterRunStatus.NOT_STARTED).run_id
    kaapana("forget", "--series", GONE, "--yes")
    found = {uid: instance.get_run_by_id(run_id).status for uid, run_id in waiting.items()}
    assert found == {GONE: dg.DagsterRunStatus.CANCELED, KEPT: dg.DagsterRunStatus.NOT_STARTED}


def test_a_series_that_is_sent_again_is_new(lived_in, original):
    kaapana("forget", "--series", GONE, "--yes")
    take_in(lived_in.instance, original[1] / GONE)
    settings = load_settings()
    assert GONE in open_pacs(settings).series_uids()
    assert GONE not in cohorts.read(lived_in.place.home / "cohorts", "all").series
    assert lived_in.instance.get_materialized_partitions(dg.AssetKey("dicom_series")) == {GONE, GONE_TOO, KEPT}
    kaapana("index", "rebuild")


def test_a_series_that_a_run_works_on_is_refused_by_name_of_the_run(lived_in):
    (directory,) = lived_in.place.directories.holding({GONE})
    with lived_in.place.directories.used(directory, "run-in-progress"):
        said = kaapana("forget", "--series", GONE, "--yes", code=2)
    assert directory.name in said
    assert "run-in-progress" in said
    assert GONE in open_pacs(load_settings()).series_uids()
    assert list((lived_in.place.home / "forgotten" / ".pending").iterdir()) == []


def test_a_series_that_is_being_received_is_refused(lived_in):
    settings = load_settings()
    with open_spool(settings).mark_association() as marker:
        marker.hold(GONE)
        with pytest.raises(TemporaryError, match="being received"):
            forget.carry_out(settings, forget.plan(settings, "series", GONE, now=now()), lambda _: None)


def test_no_run_begins_on_a_series_that_is_being_forgotten(lived_in):
    command = [sys.executable, "-c", FORGET, "runs", "series", GONE]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    lived_in.run()
    assert lived_in.report()["failed"][GONE]["reason"] == f"series {GONE} is being forgotten"


def test_what_waits_and_is_in_no_index_is_found_by_patient(platform, tmp_path):
    write_dicom(tmp_path / "sent" / "1.dcm", series=GONE)
    settings = load_settings()
    spool = open_spool(settings)
    spool.prepare()
    list(import_files(spool, [tmp_path / "sent" / "1.dcm"]))
    open_pacs(settings).store([write_dicom(tmp_path / "sent" / "2.dcm", series=GONE_TOO, study="1.2.4")])
    assert forget.plan(settings, "patient", PATIENT, now=now()).series == (GONE, GONE_TOO)
    kaapana("forget", "--patient", PATIENT, "--yes")
    assert files_with(platform.place.home, NAME) == []
    assert "nothing" not in kaapana("forget", "--patient", PATIENT, code=2)


def test_what_is_asked_for_has_to_be_one_thing(platform):
    for args in ([], ["--series", "1.2", "--study", "1.3"], ["--series", "../x"], ["--patient", " "]):
        assert "Traceback" not in kaapana("forget", *args, code=2)


COPIES = [
    "incoming/.tmp/77-1-5",
    "quarantine/.tmp/a1",
    "archives/pacs/.tmp/a/1.dcm",
    f"demo/outgoing/{GONE}/1.dcm",
    "objects/.incoming/a1",
]


def test_copies_that_killed_processes_left_are_found_and_go(platform):
    home, settings = platform.place.home, load_settings()
    others = []
    for number, place in enumerate(COPIES):
        path = write_dicom(home / place, series=f"{GONE}.{number}")
        others.append(write_dicom(path.with_name(f"{path.name}0"), series=KEPT, name="Another", patient="A-1"))
    # Records that were not put in place.
    for place in ("cohorts/.all.json.7-ab", "forgotten/.pending/.x.json.ab", "workflows/data/.runs/.records/.w.a/x"):
        (home / place).parent.mkdir(parents=True, exist_ok=True)
        (home / place).write_text(json.dumps({"query": NAME, "series": ["1.2.3"] * 200_000 + [f"{GONE}.1"]}))
    # Bytes in the object store, which say of nobody whose they are.
    for name, seconds in (("old", 1), ("new", now().timestamp())):
        (home / "objects" / ".incoming" / name).write_bytes(b"voxels")
        os.utime(home / "objects" / ".incoming" / name, (seconds, seconds))
        others.append(home / "objects" / ".incoming" / name)
    found = forget.plan(settings, "patient", PATIENT, now=now())
    assert found.series == tuple(f"{GONE}.{number}" for number in range(4))
    kaapana("forget", "--patient", PATIENT, "--yes")
    kaapana("forget", "--series", f"{GONE}.4", "--yes")
    assert files_with(home, NAME) == []
    assert [path.name for path in others if not path.exists()] == ["old"]


def test_an_unreadable_file_is_known_by_a_uid_anywhere_in_it(platform):
    path = platform.place.home / "quarantine" / "unknown" / "x-1"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\0" * (2 << 20) + GONE.encode() + b"\0" + NAME.encode())
    longer = path.with_name("x-2")
    longer.write_bytes(b"\0" + GONE.encode() + b".1\0")
    kaapana("forget", "--series", GONE, "--yes")
    assert files_with(platform.place.home, NAME) == []
    assert longer.exists()


def test_what_was_pooled_after_the_plan_was_made_goes_too(lived_in):
    settings = load_settings()
    planned = forget.plan(settings, "patient", PATIENT, now=now())
    freeze(lived_in.instance, "later", "Modality:MR")
    assert lived_in.run(cohort="later").success
    forget.carry_out(settings, planned, lambda _: None)
    assert_forgotten(lived_in)
    assert not list((settings.home / "assets").glob("*/*/later"))
    assert len(cohorts.read(settings.home / "cohorts", "later").forgotten) == 2
