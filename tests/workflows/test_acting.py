"""Operators that only act: exit code 0 is success, and they act in every run."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from kaapana_assets.errors import OperatorFailed, WorkflowError
from kaapana_assets.execution.report import Reported, RunState, make_report
from kaapana_assets.workflows import ContainerOperator, OperatorContext, PythonOperator, Workflow

ACT = 'ls "$WORKFLOW_DIR/$BATCH_NAME" > /dev/null\n'


def acting(**fields: Any) -> Workflow:
    operator = ContainerOperator(name="notify", image="notify", **{"outputs": None, **fields})
    return Workflow(name="notes", operators=(operator,))


@pytest.mark.parametrize("mode", ["batch", "single"])
def test_exit_code_0_is_success_for_all_series_and_there_is_an_entry_without_files(place, mode: str) -> None:
    place.image("notify", ACT)
    series = place.series("1", "2", "3")
    work = place.work(acting(), series, mode=mode)
    result = place.step(work)
    assert (set(result.done), result.failed, result.skipped) == (set(series), {}, {})
    assert {done.files for done in result.done.values()} == {0}
    assert all(place.shelf.manifest("notes", "notify", uid) is not None for uid in series)
    reported = Reported(
        workflow=work.workflow,
        request=work.request,
        run=work.directory.name,
        dagster_run_id=work.request.dagster_run_id,
        results={"notify": result},
        state=RunState(),
    )
    (row,) = make_report(reported, place.shelf)["operators"]
    assert (row["outputs"], row["done"], row["files"]) == (None, series, 0)


def test_it_acts_in_every_run_and_once_in_each(place) -> None:
    place.image("notify", ACT)
    series = place.series("1", "2")
    for _ in range(2):
        work = place.work(acting(), series)
        for _ in range(2):  # as a re-execution of the same run does
            result = place.step(work)
            assert set(result.done) == set(series)
    assert place.starts() == [["notify", *series]] * 2


def test_with_reuse_it_acts_once_for_what_is_the_same(place) -> None:
    place.image("notify", ACT)
    for names in (["1", "2"], ["1", "2"], ["2", "3"]):
        place.run(acting(reuse=True), place.series(*names))
    assert place.starts() == [["notify", "1.2.3.1", "1.2.3.2"], ["notify", "1.2.3.3"]]


def test_what_it_writes_is_dropped(place) -> None:
    place.each("notify", 'echo secret > "$out/x"')
    (uid,) = place.series("1")
    result = place.run(acting(), [uid])["notify"]
    assert result.done[uid].files == 0
    assert not (place.shelf.entry("notes", "notify", uid) / "x").exists()


def test_a_failure_is_one_of_each_series_that_fails_alone(place) -> None:
    place.each("notify", 'test "$series" != 1.2.3.2 || exit 3')
    result = place.run(acting(), place.series("1", "2", "3"))["notify"]
    assert (set(result.done), set(result.failed)) == ({"1.2.3.1", "1.2.3.3"}, {"1.2.3.2"})
    assert "exit code 3" in result.failed["1.2.3.2"]


def test_exit_code_126_is_skipped(place) -> None:
    place.image("notify", "exit 126\n")
    series = place.series("1", "2")
    result = place.run(acting(), series)["notify"]
    assert (set(result.skipped), result.done, result.failed) == (set(series), {}, {})


def test_a_pooled_one_acts_once_for_the_cohort_in_every_run(place) -> None:
    place.image("notify", ACT)
    series = place.series("1", "2")
    for _ in range(2):
        work = place.work(acting(level="cohort"), series)
        result = place.step(work)
        assert (list(result.done), result.launches) == (["all"], 1)
    assert place.starts() == [["notify", *series]] * 2
    place.image("notify", "exit 1\n")
    work = place.work(acting(level="cohort"), series)
    with pytest.raises(OperatorFailed, match="exit code 1"):
        place.step(work)


def after() -> Workflow:
    notify = ContainerOperator(name="notify", image="notify", outputs=None)
    copy = ContainerOperator(name="copy", image="copy", input_operator=notify, operator_in_dir="initial-input")
    return Workflow(name="notes", operators=(copy, notify))


def test_what_comes_after_it_waits_for_it_and_is_reused_although_it_acts_again(place) -> None:
    place.image("notify", ACT)
    place.each("copy", 'ls "$in" > "$out/seen"')
    assert [operator.name for operator in after().operators] == ["notify", "copy"]
    (uid,) = place.series("1")
    for _ in range(2):
        work = place.work(after(), [uid])
        for operator in work.workflow.operators:
            place.step(work, operator)
    assert place.starts() == [["notify", uid], ["copy", uid], ["notify", uid]]
    assert (place.shelf.entry("notes", "copy", uid) / "seen").read_text().split() == [f"{uid}.1.dcm"]


def test_a_function_may_only_act(place) -> None:
    log = place.home / "acted.log"
    workflow = Workflow(
        name="notes",
        operators=(PythonOperator(name="note", function=_note, settings={"log": str(log)}, outputs=None),),
    )
    for _ in range(2):
        place.run(workflow, place.series("1", "2"))
    assert shlex.split(log.read_text()) == ["1.2.3.1", "1.2.3.2"] * 2


def _note(context: OperatorContext) -> None:
    with Path(context.settings["log"]).open("a") as file:
        file.write(" ".join(context.series) + "\n")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        pytest.param({"output_patterns": ("*.json",)}, "what writes nothing has no patterns", id="patterns"),
        pytest.param({"outputs": "nothing"}, "outputs is 'folder' or None, not 'nothing'", id="value"),
    ],
)
def test_a_definition_that_cannot_be_meant_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(WorkflowError, match=said):
        acting(**fields)


@pytest.mark.parametrize("folder", [None, "notify"])
def test_an_operator_that_reads_what_nothing_writes_is_refused(folder: str | None) -> None:
    notify = ContainerOperator(name="notify", image="notify", outputs=None)
    copy = ContainerOperator(name="copy", image="copy", input_operator=notify, operator_in_dir=folder)
    with pytest.raises(WorkflowError, match=r"'copy': it reads the folder of 'notify', which writes nothing"):
        Workflow(name="notes", operators=(notify, copy))
