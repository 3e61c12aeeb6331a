"""A person's name is where the person's data is, and nowhere else: not in Dagster, logs, reports, notes or health."""

import json
from datetime import datetime, timedelta, timezone

import dagster as dg
import pytest
from security.patient_home import NAME, files_with, freeze, kaapana, take_in, write_dicom
from workflows.conftest import COPY, EACH_SERIES

from kaapana_assets.defs.logs import remove_logs
from kaapana_assets.health.past_errors import newest_quarantined
from kaapana_assets.ingest.quarantine import Quarantine
from kaapana_assets.operations.health import open_health_check
from kaapana_assets.settings import load_settings

SERIES = ["1.2.77.1", "1.2.77.2"]
WITH_DATA = ["archive", "incoming", "index.sqlite", "index.sqlite-wal", "index.sqlite-shm", "cohorts"]


@pytest.fixture(scope="module")
def named(site, tmp_path_factory):
    """A home after import of good, damaged and odd files, query, cohort, run and a run that failed, and health."""
    place, home = site.place, site.place.home
    place.image("copy", EACH_SERIES.replace("{body}", 'ls "$in" | wc -l > "$out/count.txt"'))
    place.image("last", EACH_SERIES.replace("{body}", COPY))
    sent = tmp_path_factory.mktemp("sent") / f"folder of {NAME}"
    for series in SERIES:
        for instance in (1, 2, 3):
            write_dicom(sent / f"{NAME} {series}" / f"{NAME} {instance}.dcm", series=series, instance=instance)
    whole = (sent / f"{NAME} {SERIES[0]}" / f"{NAME} 1.dcm").read_bytes()
    (sent / f"{NAME} cut.dcm").write_bytes(whole[:-100])
    (sent / f"{NAME} is no DICOM.dcm").write_bytes(b"\0" * 128 + b"DICM" + NAME.encode() * 20)
    # A name of the length of the UID in its place; and other content of a UID that waits.
    uid = f"{SERIES[0]}.1".encode()
    (sent / f"{NAME} uid.dcm").write_bytes(whole.replace(uid, (NAME * 3)[: len(uid)].encode()))
    write_dicom(sent / f"{NAME} conflict" / "1.dcm", series=SERIES[1], name=f"{NAME}{NAME}")
    (home / "incoming").mkdir()
    (home / "incoming" / f"{NAME} by hand.dcm").write_bytes(b"x")
    said = kaapana("import", str(sent), code=1)
    assert NAME in said, "the person at the terminal sees which file it was"
    with site.opened() as platform:
        take_in(platform.instance, sent / f"{NAME} conflict")
        take_in(platform.instance, sent / f"{NAME} {SERIES[1]}")
        kaapana("query", f"PatientName:{NAME}*")
        freeze(platform.instance, "all", f"PatientName:{NAME}* OR {NAME}")
        assert platform.run().success
        place.image("last", EACH_SERIES.replace("{body}", "false"))
        assert not platform.run(force=True).success
        yield platform, sent


def test_no_name_is_outside_the_places_of_data(named):
    home = named[0].place.home
    assert files_with(home, NAME, but=["incoming"]), "the home holds data"
    found = files_with(home, NAME, but=WITH_DATA)
    # Kept with what was set aside, and the run directory of the run that failed: DICOM, and operators' own outputs.
    data = [name for name in found if name.startswith("quarantine/") and not name.endswith(".json")]
    data += [name for name in found if name.startswith("workflows/data/") and name.endswith(".dcm")]
    data += [name for name in found if name.startswith("assets/my-chain/last/")]
    assert sorted(set(found) - set(data)) == []
    assert not any(NAME.lower() in name.lower() for name in found)
    assert len(list((home / "quarantine").rglob("*.json"))) >= 4


def test_status_and_health_do_not_tell_names(named):
    health = open_health_check(load_settings()).report()
    said = json.dumps(health.as_json())
    assert health.findings["spool"].counts["quarantined"] >= 4
    assert health.findings["spool"].counts["left_alone"] == 1
    assert any("from import" in each.what for each in health.errors)
    assert NAME.lower() not in said.lower()


def test_notes_of_earlier_versions_are_shown_without_names(site, named, tmp_path):
    home = site.place.home
    path = write_dicom(tmp_path / "1.dcm", series="1.2.9")
    Quarantine(home / "quarantine").keep(path, name=f"{NAME} 1.dcm", series="", reason="cut short", origin=f"/x/{NAME}")
    shown = [f"{each.what} {each.where} {each.reason}" for each in newest_quarantined(load_settings())]
    for kept in (home / "quarantine" / "unknown").glob(f"{NAME}*"):
        kept.unlink()
    assert any("from import" in each for each in shown)
    assert not any(NAME in each for each in shown)


def test_no_pictures_are_stored_and_one_is_made_when_asked_for(named, tmp_path):
    home = named[0].place.home
    assert files_with(home, "data:image") == []
    kaapana("preview", SERIES[0], "--out", str(tmp_path / "x.png"))
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    assert "Traceback" not in kaapana("preview", "1.2.3.4.5", code=2)


def test_logs_of_runs_go_after_a_time_and_what_was_made_stays(named):
    instance = named[0].instance
    key = dg.AssetKey("dicom_series")
    made = instance.get_materialized_partitions(key)
    (run, *_) = instance.get_runs(filters=dg.RunsFilter(job_name="my_chain"))
    assert remove_logs(instance, before=datetime.now(timezone.utc) - timedelta(days=1)) == 0
    assert len(instance.all_logs(run.run_id)) > 10
    assert remove_logs(instance, before=datetime.now(timezone.utc) + timedelta(minutes=1)) > 10
    left = {each.dagster_event.event_type_value for each in instance.all_logs(run.run_id)}
    assert all("ASSET" in each for each in left)
    assert instance.get_materialized_partitions(key) == made
    assert not list(named[0].place.home.glob(f"dagster/**/{run.run_id}/compute_logs/*.out"))
