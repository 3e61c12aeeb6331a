"""Every run of a cohort that began has a report with a row for each operator, however the run ended."""

import contextlib
import threading
from typing import Any

import dagster as dg
import pytest
from workflows.platform import Platform, rerun

from kaapana_assets.defs.assembly import build_definitions
from kaapana_assets.settings import load_settings

FLOW = """
import time
from kaapana_assets.workflows import ContainerOperator, PythonOperator, Workflow

def interrupted(context):
    home = context.directory.parents[4]
    (home / "waiting").touch()
    while not (home / "go").exists():
        time.sleep(0.05)
    raise KeyboardInterrupt

copy = ContainerOperator(name="copy", image="copy", output_patterns=("all.bin",))
last = ContainerOperator(name="last", image="last", input_operator=copy)
pool = ContainerOperator(name="pool", image="pool", input_operator=last, level="cohort")
other = ContainerOperator(name="other", image="last")
stopped = PythonOperator(name="stopped", function=interrupted, input_operator=other)
chain = Workflow(name="my-chain", operators=(copy, last, pool, other%s))
"""
TRACEBACK = "printf 'Traceback (most recent call last):\\n  File \"x\", line 1\\nValueError: no slices\\n'; exit 1"


@pytest.fixture
def flow(platform: Platform) -> Platform:
    platform.workflow(FLOW % "")
    platform.cohort("all", platform.place.series("1", "2"))
    return platform


def rows(platform: Platform) -> dict[str, str]:
    found = {}
    for row in platform.report()["operators"]:
        counts = " ".join(f"{len(row[key])} {key}" for key in ("done", "reused", "failed") if row[key])
        found[row["operator"]] = ", ".join(filter(None, (counts, row["state"], row["reason"])))
    return found


def look(platform: Platform, run_id: str) -> None:
    """The sensor of the run's end, as Dagster's daemon evaluates it."""
    run = platform.instance.get_run_by_id(run_id)
    assert run is not None
    names = {dg.DagsterRunStatus.FAILURE: "failed", dg.DagsterRunStatus.CANCELED: "cancelled"}
    name = f"report_of_{names[run.status]}_runs"
    definitions = build_definitions(load_settings())
    sensor: Any = definitions.resolve_sensor_def(name)
    ends = ("PIPELINE_FAILURE", "PIPELINE_CANCELED")
    events = [entry.dagster_event for entry in platform.instance.all_logs(run_id)]
    event = next(event for event in events if event is not None and event.event_type_value in ends)
    context = dg.build_run_status_sensor_context(
        sensor_name=name,
        dagster_instance=platform.instance,
        dagster_run=run,
        dagster_event=event,
        resources=definitions.resources,
    )
    sensor(context)


@pytest.mark.parametrize("earlier", [False, True], ids=["fresh", "after-a-success"])
def test_operator_that_fails_for_all_series_is_told_and_so_is_what_ran_later(flow: Platform, earlier: bool) -> None:
    if earlier:
        assert flow.run().success
    flow.place.image("copy", TRACEBACK)
    run = flow.run()
    assert not run.success
    other = "2 done 2 reused, done" if earlier else "2 done, done"
    reason = "2 failed, first 1.2.3.1: ValueError: no slices (exit code 1)"
    whole = {
        "copy": f"2 failed, failed, {reason}",
        "other": other,
        "last": "not begun, copy failed for all series",
        "pool": "not begun, copy failed for all series",
    }
    assert rows(flow) == whole
    report = flow.report()
    assert (report["status"], report["reason"]) == ("failed", f"copy: {reason}")
    assert report["dagster_run_id"] == run.run_id
    assert report["failed"]["1.2.3.2"]["line"] == "ValueError: no slices (exit code 1)"
    look(flow, run.run_id)
    assert flow.report() == report


@pytest.mark.parametrize("mode", ["batch", "single"])
def test_pooled_operator_that_fails_is_told_fresh_and_with_reused_inputs(flow: Platform, mode: str) -> None:
    flow.place.image("pool", "echo 'no place left'; exit 4")
    for reused in ("", " 2 reused"):
        assert not flow.run(mode=mode).success
        done = f"2 done{reused}, done"
        failed = "1 failed, failed, 1 failed, first all: no place left (exit code 4)"
        assert rows(flow) == {"copy": done, "last": done, "other": done, "pool": failed}
        assert flow.report()["status"] == "failed"


@pytest.mark.parametrize("earlier", [False, True], ids=["fresh", "after-a-success"])
def test_environment_that_cannot_be_made_is_told_with_the_installers_words(flow: Platform, earlier: bool) -> None:
    if earlier:
        assert flow.run().success
    (flow.place.images / "copy" / "requirements.txt").write_text("not a requirement\n")
    run = flow.run()
    found = rows(flow)
    assert found["copy"].startswith("failed, environment ")
    assert "cannot be made: uv ended with exit code" in found["copy"]
    assert found["other"].endswith("done")
    assert found["pool"] == "not begun, copy failed for all series"
    assert flow.report()["dagster_run_id"] == run.run_id


@pytest.mark.parametrize("earlier", [False, True], ids=["fresh", "after-a-success"])
def test_run_that_could_not_be_prepared_is_told_by_who_looks_next(flow: Platform, earlier: bool) -> None:
    if earlier:
        assert flow.run().success
    cohort = flow.place.home / "cohorts" / "all.json"
    cohort.write_text("{")
    run = flow.run()
    assert not run.success
    for _ in range(2):
        look(flow, run.run_id)
        for said in rows(flow).values():
            assert said.startswith("not begun, preparing the run failed: the file of cohort all")
        report = flow.report()
        assert (report["status"], report["dagster_run_id"]) == ("failed", run.run_id)


ENDS = {
    "cancelled": ("cancelled", "cancelled, the run was cancelled while it ran"),
    "interrupted": ("failed", "failed, "),
}


@pytest.mark.parametrize("earlier", [False, True], ids=["fresh", "after-a-success"])
@pytest.mark.parametrize("end", ENDS)
def test_run_that_was_ended_is_told_by_who_looks_next(flow: Platform, end: str, earlier: bool) -> None:
    if earlier:
        assert flow.run().success
    flow.workflow(FLOW % ", stopped")
    flow.place.image("copy", "exit 3")
    ended = threading.Event()

    def ask_for_the_end() -> None:
        while not ended.wait(0.05):
            if (flow.place.home / "waiting").exists():
                if end == "cancelled":
                    flow.instance.report_run_canceling(flow.instance.get_runs(limit=1)[0])
                (flow.place.home / "go").touch()
                return

    asking = threading.Thread(target=ask_for_the_end)
    asking.start()
    try:
        with contextlib.suppress(KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
            flow.run()
    finally:
        ended.set()
        asking.join()
    (run,) = flow.instance.get_runs(limit=1)
    assert (flow.report()["status"], flow.report()["dagster_run_id"]) == ("running", run.run_id)
    for _ in range(2):
        look(flow, run.run_id)
        found = rows(flow)
        assert flow.report()["status"] == ENDS[end][0]
        assert found["stopped"].startswith(ENDS[end][1])
        assert found["last"] == "not begun, copy failed for all series"
        assert found["other"].endswith("done")


def test_report_of_a_later_run_is_left_alone(flow: Platform) -> None:
    (flow.place.home / "cohorts" / "all.json").rename(flow.place.home / "aside")
    run = flow.run()
    (flow.place.home / "aside").rename(flow.place.home / "cohorts" / "all.json")
    later = flow.run()
    look(flow, run.run_id)
    assert flow.report()["dagster_run_id"] == later.run_id


def test_re_execution_has_a_report_of_its_own(flow: Platform) -> None:
    mended = flow.place.home / "mended"
    flow.place.each("copy", f'test -e "{mended}" || exit 3; cat "$in"/* > "$out/all.bin"')
    first = flow.run()
    assert flow.report()["status"] == "failed"
    again = rerun(flow, first.run_id)
    assert (flow.report()["status"], flow.report()["dagster_run_id"]) == ("failed", again.run_id)
    mended.touch()
    last = rerun(flow, again.run_id)
    assert last.success
    assert (flow.report()["status"], flow.report()["dagster_run_id"]) == ("success", last.run_id)
    assert {row["state"] for row in flow.report()["operators"]} == {"done"}


def test_workflow_that_stops_at_a_failure_says_so(flow: Platform) -> None:
    flow.workflow((FLOW % "").replace("other))", 'other), on_failure="stop")'))
    flow.place.each("copy", 'test "$series" != 1.2.3.2 || exit 3; cat "$in"/* > "$out/all.bin"')
    for _ in range(2):
        assert not flow.run().success
        found = rows(flow)
        assert found["last"] == "not begun, copy failed for some series, and the workflow says to stop then"
        assert "partly failed" in found["copy"]
