"""The sensor asks for what waits: new series as one range, one ingest at a time, failing ones ever later."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage.runs.schema import RunsTable
from pydicom.dataset import Dataset

from kaapana_assets.defs.assembly import build_definitions
from kaapana_assets.defs.ingest.assets import ARRIVALS_TAG, CHECK
from kaapana_assets.defs.ingest.sensors import Asked, arrivals
from kaapana_assets.defs.partitions import DICOM_SERIES, SERIES, SERIES_METADATA
from kaapana_assets.defs.resources import Platform
from kaapana_assets.ingest.spool import Spool
from kaapana_assets.settings import load_settings
from kaapana_assets.stores.factory import open_pacs


@dataclass
class Arriving:
    """A platform to which series come."""

    spool: Spool
    instance: dg.DagsterInstance
    make: Callable[..., Dataset]
    folder: Path
    cursor: str | None = None

    def send(self, *series: str, sop: str = "1") -> None:
        for uid in series:
            path = self.folder / "sent.dcm"
            ds = self.make(series=uid, sop=f"{uid}.{sop}")
            ds.save_as(path, enforce_file_format=True)
            self.spool.add_file(uid, f"{uid}.{sop}", path, origin="test")

    def tick(self) -> list[tuple[str, str]]:
        """The ranges that the sensor asks for."""
        with dg.build_sensor_context(
            self.instance, cursor=self.cursor, resources={"platform": Platform()}, sensor_name="arrivals"
        ) as context:
            found = arrivals.evaluate_tick(context)
        self.cursor = found.cursor
        keys = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
        return [tuple(request.tags[key] for key in keys) for request in found.run_requests or ()]  # type: ignore[misc]

    def ingest(self, first: str, last: str, **tags: str) -> dg.ExecuteInProcessResult:
        tags |= {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
        job = build_definitions(load_settings()).resolve_job_def("ingest")
        return job.execute_in_process(instance=self.instance, tags=tags, raise_on_error=False)


@pytest.fixture
def arriving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instance: Callable[..., Dataset]) -> Iterator[Arriving]:
    home = tmp_path / "home"
    monkeypatch.setenv("KAAPANA_HOME", str(home))
    monkeypatch.setenv("KAAPANA_SERIES_QUIET_S", "0")
    spool = Spool(home / "incoming", home / "quarantine", min_free_bytes=0)
    spool.prepare()
    with dg.DagsterInstance.local_temp(str(tmp_path), overrides={"telemetry": {"enabled": False}}) as made:
        yield Arriving(spool, made, instance, tmp_path)


def test_new_series_are_asked_for_as_one_contiguous_range(arriving: Arriving) -> None:
    arriving.send("1.2.9", "1.2.1", "1.2.5")
    assert arriving.tick() == [("1.2.1", "1.2.9")]
    assert arriving.instance.get_dynamic_partitions("series") == ["1.2.1", "1.2.5", "1.2.9"]


def test_nothing_is_asked_for_where_nothing_waits(arriving: Arriving) -> None:
    assert arriving.tick() == []


def test_nothing_is_asked_for_while_an_ingest_runs(arriving: Arriving) -> None:
    arriving.send("1.2.1")
    running = arriving.instance.create_run_for_job(build_definitions(load_settings()).resolve_job_def("ingest"))
    arriving.instance.report_run_canceling(running)
    assert arriving.tick() == []
    arriving.instance.report_run_canceled(running)
    assert arriving.tick() == [("1.2.1", "1.2.1")]


def test_run_that_died_unseen_does_not_keep_series_waiting(arriving: Arriving) -> None:
    arriving.send("1.2.1")
    job = build_definitions(load_settings()).resolve_job_def("ingest")
    dead = arriving.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    assert arriving.tick() == []
    hour_ago = (datetime.now(timezone.utc) - timedelta(hours=1)).replace(tzinfo=None)
    with arriving.instance.run_storage.connect() as connection:  # type: ignore[attr-defined]
        connection.execute(RunsTable.update().values(update_timestamp=hour_ago))
    with arriving.spool.ingest_lock():
        assert arriving.tick() == []
    assert arriving.tick() == [("1.2.1", "1.2.1")]
    assert not arriving.instance.get_run_by_id(dead.run_id).is_finished


def test_series_that_was_ingested_is_not_asked_for_again_until_a_late_slice_comes(arriving: Arriving) -> None:
    arriving.send("1.2.1", "1.2.2")
    ((first, last),) = arriving.tick()
    assert arriving.ingest(first, last).success
    assert arriving.tick() == []
    arriving.send("1.2.1", sop="2")
    assert arriving.tick() == [("1.2.1", "1.2.1")]
    arriving.ingest("1.2.1", "1.2.1")
    assert len(open_pacs(load_settings()).series("1.2.1").instances) == 2


def test_series_that_stays_in_the_spool_is_asked_for_ever_later(arriving: Arriving) -> None:
    arriving.send("1.2.1")
    assert arriving.tick() == [("1.2.1", "1.2.1")]
    assert arriving.tick() == []
    tries, at = json.loads(arriving.cursor or "")["asked"]["1.2.1"]
    assert tries == 1
    assert at == pytest.approx(time.time(), abs=60)


def test_series_that_come_meanwhile_do_not_wait_for_one_that_fails_nor_let_it_forget(arriving: Arriving) -> None:
    arriving.send("1.2.1")
    arriving.tick()
    arriving.send("1.2.2")
    assert arriving.tick() == [("1.2.2", "1.2.2")]
    asked = Asked.from_cursor(arriving.cursor)
    now = time.time()
    assert not asked.due("1.2.1", now)
    assert {uid: tries for uid, (tries, _) in asked.tries.items()} == {"1.2.1": 1, "1.2.2": 1}


def test_each_further_try_waits_longer_up_to_five_minutes() -> None:
    waits = []
    for tries in (1, 2, 3, 6, 7, 5000):
        asked = Asked({"1": (tries, 1000.0)})
        waits.append(next(s for s in range(10_000) if asked.due("1", 1000.0 + s)))
    assert waits == [10, 20, 40, 300, 300, 300]


def test_scattered_late_slices_are_asked_for_a_few_ranges_at_a_time_and_none_is_forgotten(arriving: Arriving) -> None:
    known = [f"1.2.{number}" for number in range(10, 30)]
    arriving.instance.add_dynamic_partitions("series", known)
    late = known[::2]
    arriving.send(*late)
    asked: list[str] = []
    while ranges := arriving.tick():
        assert all(first == last for first, last in ranges)
        asked += [first for first, _ in ranges]
    assert sorted(asked) == late


def test_ingest_materializes_both_assets_and_checks_its_series_at_once(arriving: Arriving) -> None:
    arriving.send("1.2.1", "1.2.2")
    ((first, last),) = arriving.tick()
    result = arriving.ingest(first, last)
    assert result.success
    for key in (DICOM_SERIES, SERIES_METADATA):
        found = arriving.instance.get_status_by_partition(key, ["1.2.1", "1.2.2"], SERIES)
        assert {uid: status.value for uid, status in (found or {}).items()} == {
            "1.2.1": "MATERIALIZED",
            "1.2.2": "MATERIALIZED",
        }
    events = [entry.dagster_event for entry in arriving.instance.all_logs(result.run_id) if entry.dagster_event]
    evaluations = [e.asset_check_evaluation_data for e in events if e.event_type_value == "ASSET_CHECK_EVALUATION"]
    assert [(e.check_name, e.partition, e.passed) for e in evaluations] == [(CHECK, None, True)]


def test_inconsistent_series_fail_the_check_and_say_why_with_their_materialization(arriving: Arriving) -> None:
    arriving.send("1.2.1")
    for instance in (1, 2):
        ds = arriving.make(series="1.2.2", sop=f"1.2.2.{instance}")
        ds.PatientID = f"P{instance}"
        ds.save_as(arriving.folder / "mixed.dcm", enforce_file_format=True)
        arriving.spool.add_file("1.2.2", f"1.2.2.{instance}", arriving.folder / "mixed.dcm", origin="test")
    ((first, last),) = arriving.tick()
    result = arriving.ingest(first, last)
    assert result.success
    events = [entry.dagster_event for entry in arriving.instance.all_logs(result.run_id) if entry.dagster_event]
    (evaluation,) = (e.asset_check_evaluation_data for e in events if e.event_type_value == "ASSET_CHECK_EVALUATION")
    assert (evaluation.passed, evaluation.description) == (False, "1 of 2 series are inconsistent")
    (row,) = evaluation.metadata["findings"].records
    assert row.data["SeriesInstanceUID"] == "1.2.2"
    made = [e.step_materialization_data.materialization for e in events if e.is_step_materialization]
    found = {each.partition: each.metadata.get("findings") for each in made if each.asset_key == DICOM_SERIES}
    assert found["1.2.1"] is None
    assert found["1.2.2"].data == [row.data["finding"]]


def test_series_that_cannot_be_ingested_fails_alone(arriving: Arriving) -> None:
    arriving.send("1.2.1", "1.2.3")
    (arriving.folder / "odd").write_bytes(b"nothing")
    arriving.spool.add_file("1.2.2", "1.2.2.1", arriving.folder / "odd", origin="test")
    ((first, last),) = arriving.tick()
    assert not arriving.ingest(first, last).success
    found: Any = arriving.instance.get_status_by_partition(DICOM_SERIES, ["1.2.1", "1.2.2", "1.2.3"], SERIES)
    assert [found[uid].value for uid in ("1.2.1", "1.2.2", "1.2.3")] == ["MATERIALIZED", "FAILED", "MATERIALIZED"]


KILLED_AT_THE_EVENT_LOG = """
import os, sys
import dagster as dg
from kaapana_assets.defs.assembly import build_definitions
from kaapana_assets.settings import load_settings

with dg.DagsterInstance.local_temp(sys.argv[1], overrides={"telemetry": {"enabled": False}}) as instance:
    storage = type(instance.event_log_storage)
    store = storage.store_event

    def store_or_die(self, entry):
        if entry.dagster_event and entry.dagster_event.is_step_materialization:
            os._exit(9)
        store(self, entry)

    storage.store_event = store_or_die
    job = build_definitions(load_settings()).resolve_job_def("ingest")
    keys = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
    job.execute_in_process(instance=instance, tags=dict.fromkeys(keys, sys.argv[2]))
"""


def test_series_of_an_ingest_that_was_killed_before_dagster_knew_of_it_still_waits(arriving: Arriving) -> None:
    arriving.send("1.2.1")
    ((uid, _),) = arriving.tick()
    command = [sys.executable, "-W", "ignore", "-c", KILLED_AT_THE_EVENT_LOG, str(arriving.folder), uid]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    assert ended.returncode == 9, ended.stderr
    assert arriving.spool.ready(0) == ["1.2.1"]
    assert arriving.ingest(uid, uid).success
    found: Any = arriving.instance.get_status_by_partition(DICOM_SERIES, [uid], SERIES)
    assert found[uid].value == "MATERIALIZED"
    assert arriving.spool.ready(0) == []


DYING_OVER_A_SERIES = """
import os, signal, sys
import dagster as dg
from kaapana_assets.defs.assembly import build_definitions
from kaapana_assets.defs.resources import Platform
from kaapana_assets.settings import load_settings

FATAL = sys.argv[2].split()


class Index:
    def __init__(self, index):
        self._index = index

    def __getattr__(self, name):
        return getattr(self._index, name)

    def put(self, documents):
        documents = list(documents)
        if any(document["SeriesInstanceUID"] in FATAL for document in documents):
            os.kill(os.getpid(), signal.SIGKILL)
        self._index.put(documents)


class DyingPlatform(Platform):
    def index(self):
        return Index(super().index())


with dg.DagsterInstance.local_temp(sys.argv[1], overrides={"telemetry": {"enabled": False}}) as instance:
    definitions = build_definitions(load_settings())
    job = dg.Definitions.merge(
        dg.Definitions(assets=definitions.assets, jobs=definitions.jobs, resources={"platform": DyingPlatform()})
    ).resolve_job_def("ingest")
    keys = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
    done = job.execute_in_process(
        instance=instance,
        tags=dict(zip(keys, sys.argv[3:5])) | {"kaapana_assets/arrivals": "true"},
        raise_on_error=False,
    )
    sys.exit(0 if done.success else 1)
"""


def ingest_dying_over(arriving: Arriving, fatal: str) -> int:
    """The exit code of an ingest, in a process of its own, of all that waits."""
    ranges = arriving.tick()
    first, last = ranges[0][0], ranges[-1][1]
    arriving.cursor = None  # asked for at once, not after the pause
    command = [sys.executable, "-W", "ignore", "-c", DYING_OVER_A_SERIES, str(arriving.folder), fatal, first, last]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    assert ended.returncode in (0, 1, -9), ended.stderr
    for record in arriving.instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])):
        arriving.instance.report_run_failed(record.dagster_run)  # as the code server does of a process that is gone
    return ended.returncode


def test_series_that_kills_the_ingest_is_set_aside_with_the_reason_and_all_others_go_on(arriving: Arriving) -> None:
    arriving.send("1.2.1", "1.2.2", "1.2.3")
    assert ingest_dying_over(arriving, "1.2.2") == -9
    assert sorted(arriving.spool.ready(0)) == ["1.2.1", "1.2.2", "1.2.3"]
    assert ingest_dying_over(arriving, "1.2.2") == -9
    assert arriving.spool.ready(0) == ["1.2.2"]
    found: Any = arriving.instance.get_status_by_partition(DICOM_SERIES, ["1.2.1", "1.2.3"], SERIES)
    assert {status.value for status in found.values()} == {"MATERIALIZED"}
    arriving.send("1.2.4")
    assert ingest_dying_over(arriving, "1.2.2") == 1
    assert arriving.spool.ready(0) == []
    (kept,) = arriving.spool.quarantined()
    assert kept.series_instance_uid == "1.2.2"
    assert "ingest died 2 times" in kept.reason
    assert open_pacs(load_settings()).series("1.2.4").instances


def test_series_over_which_an_ingest_died_once_is_taken_in_and_not_suspected_any_more(arriving: Arriving) -> None:
    arriving.send("1.2.1")
    assert ingest_dying_over(arriving, "1.2.1") == -9
    assert ingest_dying_over(arriving, "") == 0
    assert arriving.spool.crashes.count("1.2.1") == 0
    arriving.send("1.2.1", sop="2")
    assert ingest_dying_over(arriving, "1.2.1") == -9
    assert ingest_dying_over(arriving, "") == 0
    assert list(arriving.spool.quarantined()) == []


def test_picture_and_counts_but_no_name_of_a_patient_are_in_the_metadata(arriving: Arriving) -> None:
    arriving.send("1.2.1")
    arriving.tick()
    result = arriving.ingest("1.2.1", "1.2.1")
    events = [entry.dagster_event for entry in arriving.instance.all_logs(result.run_id) if entry.dagster_event]
    made = [e for e in events if e.is_step_materialization and e.asset_key == DICOM_SERIES]
    assert made[0].step_materialization_data.materialization.metadata["instances"].value == 1
    assert "Secret" not in str(arriving.instance.all_logs(result.run_id))


def strange(incoming: Path) -> list[str]:
    """Things in the spool that are no series and no objects; their paths there."""
    (incoming / "no uid").mkdir()
    (incoming / "no uid" / "1.dcm").write_bytes(b"x")
    (incoming / os.fsdecode(b"caf\xe9")).mkdir()
    (incoming / "1.2.8").symlink_to(incoming / "no uid")
    (incoming / "1.2.9").write_bytes(b"a file")
    os.mkfifo(incoming / "1.2.10")
    (incoming / "1.2.1" / "a folder.dcm").mkdir()
    os.mkfifo(incoming / "1.2.1" / "1.2.1.7.dcm")
    return ["1.2.1/1.2.1.7.dcm", "1.2.1/a folder.dcm", "1.2.10", "1.2.8", "1.2.9", os.fsdecode(b"caf\xe9"), "no uid"]


def test_what_is_no_series_keeps_none_waiting_and_is_left_alone(arriving: Arriving) -> None:
    arriving.send("1.2.1", "1.2.2")
    found = strange(arriving.spool.incoming)
    assert arriving.tick() == [("1.2.1", "1.2.2")]
    assert arriving.ingest("1.2.1", "1.2.2", **{ARRIVALS_TAG: "true"}).success
    assert arriving.tick() == []
    assert sorted(arriving.spool.backlog().unexpected_entries) == sorted(found)
    assert sorted(arriving.instance.get_dynamic_partitions("series")) == ["1.2.1", "1.2.2"]


def test_partition_that_is_no_uid_keeps_no_series_of_its_range_waiting(arriving: Arriving) -> None:
    arriving.instance.add_dynamic_partitions("series", ["1.2.1", "no uid", "1.2.2"])
    arriving.send("1.2.1", "1.2.2")
    assert arriving.ingest("1.2.1", "1.2.2", **{ARRIVALS_TAG: "true"}).success
    assert arriving.tick() == []
