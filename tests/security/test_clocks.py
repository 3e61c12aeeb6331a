"""A clock that is set back: what was tried in the future is due, and nothing waits for the time to come again."""

import dataclasses
import os
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import dagster as dg
import pytest

from kaapana_assets.defs import storage_migration as dagster_storage
from kaapana_assets.defs.ingest.sensors import Asked
from kaapana_assets.errors import NotFound
from kaapana_assets.execution.last_report import EndedRun, write_last_report
from kaapana_assets.execution.report import RunState
from kaapana_assets.ingest.spool import Spool
from kaapana_assets.stores.files.retention import remove_left_behind
from kaapana_assets.stores.files.run_directory import RunDirectories
from kaapana_assets.stores.pacs.remote.refusals import Refusals
from kaapana_assets.workflows.model import Workflow
from kaapana_assets.workflows.operators import ContainerOperator

DAY_S = 86_400.0


def dated(path: Path, moment: float) -> None:
    """Give a folder and all in it that time."""
    for each in [*path.rglob("*"), path]:
        os.utime(each, (moment, moment))


def test_a_series_that_was_tried_in_the_future_is_due():
    now = time.time()
    asked = Asked({}).with_another(["1.2"], now + DAY_S)
    assert asked.due("1.2", now)
    tried_now = asked.with_another(["1.2"], now)
    assert not tried_now.due("1.2", now + 1)
    assert not Asked.from_cursor(tried_now.cursor()).due("1.2", now)


def test_a_run_directory_from_the_future_is_kept_for_its_days_from_now_on(tmp_path):
    directories = RunDirectories(tmp_path / "workflows" / "data")
    directory = directories.create("flow", "run-1", datetime.now(timezone.utc))
    dated(directory.path, time.time() + 1000 * DAY_S)
    assert list(remove_left_behind(tmp_path, days=1)) == []
    assert directory.path.stat().st_mtime <= time.time()
    dated(directory.path, time.time() - 2 * DAY_S)
    assert list(remove_left_behind(tmp_path, days=1)) == [directory.path]
    with pytest.raises(NotFound):
        directories.find("run-1")


def test_half_made_outputs_from_the_future_do_not_stay_for_ever(tmp_path):
    staged = tmp_path / "assets" / ".staging" / "abandoned"
    staged.mkdir(parents=True)
    dated(staged, time.time() + 1000 * DAY_S)
    assert list(remove_left_behind(tmp_path, days=1)) == []
    assert staged.stat().st_mtime <= time.time()
    dated(staged, time.time() - 2 * DAY_S)
    assert list(remove_left_behind(tmp_path, days=1)) == [staged]


def test_half_written_files_of_the_spool_from_the_future_do_not_stay_for_ever(tmp_path):
    spool = Spool(tmp_path / "incoming", tmp_path / "quarantine", min_free_bytes=0)
    spool.prepare()
    left = spool.temporary_file()
    left.touch()
    dated(left, time.time() + DAY_S)
    spool.prepare()
    assert left.stat().st_mtime <= time.time()
    dated(left, time.time() - DAY_S)
    spool.prepare()
    assert not left.exists()


@pytest.mark.parametrize("which", ["1.2.3", "last-taken"])
def test_a_file_is_not_blamed_for_a_refusal_in_the_future(tmp_path, which):
    refusals = Refusals(tmp_path / "refused")
    assert not refusals.is_of_the_file("1.2.3")
    refusals.note_taken()
    os.utime(tmp_path / "refused" / which, (time.time() + DAY_S,) * 2)
    assert not refusals.is_of_the_file("1.2.3")
    # What comes from here on counts again.
    os.utime(tmp_path / "refused" / "1.2.3", (time.time() - 1,) * 2)
    refusals.note_taken()
    assert refusals.is_of_the_file("1.2.3")


def test_a_report_from_the_future_gives_way_to_that_of_a_later_run(tmp_path):
    workflow = Workflow(name="flow", operators=(ContainerOperator(name="copy", image="copy"),))
    now = datetime.now(timezone.utc)
    first = EndedRun(run_id="a", root_run_id="a", cohort="all", ended=now, state=RunState(status="failed", reason="x"))
    assert write_last_report(tmp_path, workflow, first) is not None
    file = tmp_path / "assets" / "flow" / "report" / "all" / "report.json"
    written = (now + timedelta(days=1)).isoformat(timespec="milliseconds")
    said = file.read_text()
    file.chmod(0o644)
    file.write_text(said.replace(said.partition('"written": "')[2].partition('"')[0], written))
    second = dataclasses.replace(first, run_id="b", root_run_id="b")
    report = write_last_report(tmp_path, workflow, second)
    assert report is not None
    assert report["dagster_run_id"] == "b"


def test_sensors_that_dagster_last_looked_at_in_the_future_are_looked_at_again(tmp_path):
    from dagster._core.definitions.run_request import InstigatorType
    from dagster._core.remote_origin import (
        ManagedGrpcPythonEnvCodeLocationOrigin,
        RemoteInstigatorOrigin,
        RemoteRepositoryOrigin,
    )
    from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, SensorInstigatorData
    from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

    location = ManagedGrpcPythonEnvCodeLocationOrigin(LoadableTargetOrigin(module_name="none"))
    origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(location, "repository"), "arrivals")
    with dg.DagsterInstance.local_temp(str(tmp_path), overrides={"telemetry": {"enabled": False}}) as instance:
        future = time.time() + DAY_S
        data = SensorInstigatorData(
            last_tick_timestamp=future,
            cursor="kept",
            min_interval=1,
            last_tick_start_timestamp=future,
            last_sensor_start_timestamp=future,
        )
        kind, status = InstigatorType.SENSOR, InstigatorStatus.DECLARED_IN_CODE
        instance.add_instigator_state(InstigatorState(origin, kind, status, data))
        dagster_storage.forget_the_future(instance)
        (found,) = instance.all_instigator_state()
        assert found.instigator_data.last_tick_timestamp <= time.time()
        assert found.instigator_data.last_tick_start_timestamp <= time.time()
        assert found.instigator_data.cursor == "kept"
