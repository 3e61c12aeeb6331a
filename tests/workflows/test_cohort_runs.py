"""A cohort sent to a workflow through Dagster: one run, and what it leaves."""

import logging
import threading
from pathlib import Path

import dagster as dg
import pytest
from workflows.platform import CHAIN, POOL, Platform, rerun

from kaapana_assets.defs.assembly import build_definitions
from kaapana_assets.settings import load_settings

FAILS_FOR_2 = 'test "$series" != 1.2.3.2 || test -e "{mended}" || exit 3\ncat "$in"/* > "$out/all.bin"'


def failing(platform: Platform) -> Path:
    """Makes operator ``copy`` fail for series 1.2.3.2 until the file given exists."""
    mended = platform.place.home / "mended"
    platform.place.each("copy", FAILS_FOR_2.format(mended=mended))
    return mended


@pytest.mark.parametrize("mode", ["batch", "single"])
def test_run_of_a_cohort_makes_every_series_and_the_pooled_output(platform: Platform, mode: str) -> None:
    series = platform.place.series("1", "2", "3")
    platform.cohort("all", series)
    assert platform.run(mode=mode).success
    assert platform.status("copy", series) == ["materialized"] * 3
    assert platform.status("last", series) == ["materialized"] * 3
    pooled = platform.place.shelf.entry("my-chain", "pool", "all") / "series.txt"
    assert pooled.read_text().split() == series
    launches = {row["operator"]: row["launches"] for row in platform.report()["operators"]}
    assert launches == ({"copy": 1, "last": 1, "pool": 1} if mode == "batch" else {"copy": 3, "last": 3, "pool": 1})
    assert platform.run_directories() == []


def test_second_run_launches_nothing_and_another_cohort_only_what_is_new(platform: Platform) -> None:
    series = platform.place.series("1", "2", "3")
    platform.cohort("two", series[:2])
    platform.cohort("three", series)
    platform.run("two")
    started = len(platform.place.starts())
    assert platform.run("two").success
    assert len(platform.place.starts()) == started
    assert platform.run("three").success
    assert platform.place.starts()[started:] == [["copy", series[2]], ["last", series[2]], ["pool", *series]]


def test_changed_parameter_computes_again_what_sees_it_and_what_comes_after(platform: Platform) -> None:
    platform.cohort("all", platform.place.series("1"))
    platform.run()
    platform.run(parameters={"level": 2})
    assert [start[0] for start in platform.place.starts()[3:]] == ["copy", "last", "pool"]


def test_forced_run_computes_all_again(platform: Platform) -> None:
    platform.cohort("all", platform.place.series("1"))
    platform.run()
    assert platform.run(force=True).success
    assert [start[0] for start in platform.place.starts()] == ["copy", "last", "pool"] * 2


def test_unknown_parameter_is_refused_before_anything_starts(platform: Platform) -> None:
    platform.cohort("all", platform.place.series("1"))
    with pytest.raises(dg.DagsterInvalidConfigError, match="speed"):
        platform.run(parameters={"speed": 1})
    assert platform.place.starts() == []


@pytest.mark.parametrize("mode", ["batch", "single"])
def test_failed_series_fails_the_run_and_only_its_partition_after_the_rest_is_pooled(
    platform: Platform, mode: str
) -> None:
    failing(platform)
    series = platform.place.series("1", "2", "3")
    platform.cohort("all", series)
    result = platform.run(mode=mode)
    assert not result.success
    assert platform.status("copy", series) == ["materialized", "failed", "materialized"]
    assert platform.status("last", series) == ["materialized", "-", "materialized"]
    pooled = platform.place.shelf.entry("my-chain", "pool", "all") / "series.txt"
    assert pooled.read_text().split() == [series[0], series[2]]
    report = platform.report()
    assert report["failed"].keys() == {series[1]}
    assert report["failed"][series[1]]["operator"] == "copy"
    failure = next(e for e in result.all_events if e.is_step_failure).step_failure_data.error
    assert failure is not None
    assert series[1] in str(failure)
    assert len([path for path in platform.run_directories() if (path / "conf" / "results").is_dir()]) == 1


def test_series_of_the_cohort_that_the_pacs_does_not_have_is_named_and_the_rest_is_done(platform: Platform) -> None:
    series = platform.place.series("1", "2")
    platform.cohort("all", [*series, "1.2.3.9"])
    assert not platform.run().success
    assert platform.status("last", series) == ["materialized"] * 2
    report = platform.report()
    assert "not in the PACS" in report["failed"]["1.2.3.9"]["reason"]
    assert report["failed"]["1.2.3.9"]["operator"] == "initial-input"


def test_run_stops_at_the_operator_that_failed_where_the_workflow_says_so(platform: Platform) -> None:
    platform.workflow(CHAIN % ', on_failure="stop"')
    failing(platform)
    series = platform.place.series("1", "2", "3")
    platform.cohort("all", series)
    assert not platform.run().success
    assert platform.status("copy", series) == ["materialized", "failed", "materialized"]
    assert platform.status("last", series) == ["-", "-", "-"]
    assert {start[0] for start in platform.place.starts()} == {"copy"}


def test_run_in_which_every_series_fails_ends_at_that_operator(platform: Platform) -> None:
    platform.place.image("copy", "echo out of order; exit 5")
    series = platform.place.series("1", "2")
    platform.cohort("all", series)
    result = platform.run()
    assert not result.success
    assert platform.status("copy", series) == ["failed", "failed"]
    assert {start[0] for start in platform.place.starts()} == {"copy"}
    failed = [event.step_key for event in result.all_events if event.is_step_failure]
    assert failed == ["my_chain_cohort.my_chain_copy"]


def test_skipped_series_is_neither_made_nor_failed(platform: Platform) -> None:
    platform.place.image("copy", "exit 126")
    series = platform.place.series("1")
    platform.cohort("all", series)
    result = platform.run()
    assert platform.status("copy", series) == ["-"]
    assert [event.step_key for event in result.all_events if event.is_step_failure] == ["my_chain_cohort.my_chain_pool"]


def test_run_repeated_from_failure_makes_only_what_failed_in_the_same_directory(platform: Platform) -> None:
    mended = failing(platform)
    series = platform.place.series("1", "2", "3")
    platform.cohort("all", series)
    first = platform.run()
    (directory,) = platform.run_directories()
    mended.touch()
    started = len(platform.place.starts())
    assert rerun(platform, first.run_id).success
    again = platform.place.starts()[started:]
    assert again == [["copy", series[1]], ["last", series[1]], ["pool", *series]]
    assert platform.status("copy", series) == ["materialized"] * 3
    assert platform.status("last", series) == ["materialized"] * 3
    assert platform.report()["failed"] == {}
    assert platform.report()["run"] == directory.name
    assert platform.run_directories() == []


def test_run_repeated_while_another_repeats_it_leaves_the_directory_alone(platform: Platform) -> None:
    failing(platform).touch()
    platform.place.image("pool", "exit 1")
    platform.cohort("all", platform.place.series("1"))
    first = platform.run()
    (directory,) = platform.run_directories()
    started = len(platform.place.starts())
    with platform.place.directories.used(platform.place.directories.find(first.run_id), "other"):
        assert not rerun(platform, first.run_id).success
    assert len(platform.place.starts()) == started
    assert platform.run_directories() == [directory]


def test_run_repeated_from_a_failed_operator_begins_there(platform: Platform) -> None:
    switch = platform.place.home / "mended"
    platform.place.image("pool", f'test -e "{switch}" || exit 1\n' + POOL)
    series = platform.place.series("1", "2")
    platform.cohort("all", series)
    first = platform.run()
    assert not first.success
    switch.touch()
    started = len(platform.place.starts())
    assert rerun(platform, first.run_id).success
    assert platform.place.starts()[started:] == [["pool", *series]]


def test_forced_run_repeated_from_failure_makes_only_what_failed(platform: Platform) -> None:
    mended = failing(platform)
    series = platform.place.series("1", "2")
    platform.cohort("all", series)
    first = platform.run(force=True)
    mended.touch()
    started = len(platform.place.starts())
    assert rerun(platform, first.run_id).success
    assert platform.place.starts()[started:] == [["copy", series[1]], ["last", series[1]], ["pool", *series]]


def test_backfill_over_a_range_is_one_launch_and_cleans_up(platform: Platform) -> None:
    series = platform.place.series("1", "2", "3")
    platform.cohort("all", series)
    assert platform.backfill("copy", series[0], series[-1]).success
    assert platform.place.starts() == [["copy", *series]]
    assert platform.status("copy", series) == ["materialized"] * 3
    assert platform.backfill("last", series[0], series[1]).success
    assert platform.place.starts()[1:] == [["last", *series[:2]]]
    assert platform.run_directories() == []


def test_backfill_with_a_failing_series_makes_the_others(platform: Platform) -> None:
    failing(platform)
    series = platform.place.series("1", "2", "3")
    platform.cohort("all", series)
    assert not platform.backfill("copy", series[0], series[-1]).success
    assert platform.status("copy", series) == ["materialized", "failed", "materialized"]


def test_many_series_that_are_gone_are_in_the_report_and_the_first_in_the_log(platform: Platform) -> None:
    gone = [f"1.2.9.{number}" for number in range(50)]
    platform.cohort("gone", gone)
    result = platform.run("gone")
    assert not result.success
    assert set(gone) < set(platform.report("gone")["failed"])
    logged = [entry for entry in platform.instance.all_logs(result.run_id) if entry.level == logging.ERROR]
    named = [entry for entry in logged if entry.user_message.startswith("series 1.2.9.")]
    assert len(named) == 20
    assert any("50 series in all cannot be worked on" in entry.user_message for entry in logged)


def test_backfill_of_an_operator_whose_input_is_not_there_fails_and_says_so(platform: Platform) -> None:
    series = platform.place.series("1")
    platform.cohort("all", series)
    result = platform.backfill("last", series[0], series[0])
    assert not result.success
    failure = next(e for e in result.all_events if e.is_step_failure).step_failure_data.error
    assert "input is not there" in str(failure)


def test_operators_of_a_backfill_take_turns(platform: Platform) -> None:
    """The last one removes the directory that all of them work in."""
    job = build_definitions(load_settings()).get_repository_def().get_implicit_global_asset_job_def()
    assert job.executor_def.name == "in_process"


def test_run_and_backfill_share_what_they_make(platform: Platform) -> None:
    series = platform.place.series("1", "2")
    platform.cohort("all", series)
    platform.backfill("copy", series[0], series[0])
    platform.run()
    assert [start for start in platform.place.starts() if start[0] == "copy"] == [
        ["copy", series[0]],
        ["copy", series[1]],
    ]


def test_step_waits_for_a_store_that_is_away_says_so_and_makes_nothing_twice(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAAPANA_STEP_REPEAT_PAUSE_S", "1")
    platform.workflow(
        "from kaapana_assets.workflows import ContainerOperator, Workflow, put_objects\n"
        'copy = ContainerOperator(name="copy", image="copy")\n'
        'put = put_objects(bucket="results", input_operator=copy, name="put")\n'
        'chain = Workflow(name="my-chain", operators=(copy, put))\n'
    )
    series = platform.place.series("1", "2")
    platform.cohort("all", series)
    objects = platform.place.home / "objects"
    objects.write_text("in the way: this store cannot be written")
    ended = threading.Event()

    def bring_back_once_it_was_missed() -> None:
        while not ended.wait(0.1):
            runs = platform.instance.get_runs(limit=1)
            if runs and any(
                entry.dagster_event is not None and entry.dagster_event.event_type_value == "STEP_UP_FOR_RETRY"
                for entry in platform.instance.all_logs(runs[0].run_id)
            ):
                objects.unlink()
                return

    back = threading.Thread(target=bring_back_once_it_was_missed)
    back.start()
    try:
        result = platform.run()
    finally:
        ended.set()
        back.join()
    assert result.success
    repeated = [event.message for event in result.all_events if event.event_type_value == "STEP_UP_FOR_RETRY"]
    assert repeated
    assert platform.place.starts() == [["copy", *series]]
    assert platform.status("put", series) == ["materialized"] * 2
    assert {path.name for path in objects.rglob("*.bin")} == {"all.bin"}
