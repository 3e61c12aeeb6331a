"""Nothing is computed twice: an output is made again exactly when what it depends on is another."""

import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from kaapana_assets.containers.process.runner import ProcessRunner
from kaapana_assets.errors import OperatorFailed, WorkflowError
from kaapana_assets.execution.operator_run import run_operator
from kaapana_assets.stores.objects.folder import FolderObjects
from kaapana_assets.workflows import (
    ContainerOperator,
    OperatorContext,
    Parameter,
    PythonOperator,
    Workflow,
    put_objects,
)
from kaapana_assets.workflows.fingerprints import code_version

COPY = 'cat "$in"/* > "$out/all.bin"'


def workflow(**fields: Any) -> Workflow:
    operator = ContainerOperator(**{"name": "copy", "image": "copy", "parameters": ("level",), **fields})
    return Workflow(name="copies", operators=(operator,), parameters=(Parameter("level", 1), Parameter("speed", 1)))


def test_second_run_launches_nothing_and_gives_the_same(place) -> None:
    place.each("copy")
    series = place.series("1", "2")
    first = place.run(workflow(), series)["copy"]
    second = place.run(workflow(), series)["copy"]
    assert len(place.starts()) == 1
    assert (second.launches, set(second.done)) == (0, set(series))
    assert all(done.reused for done in second.done.values())
    assert {u: d.fingerprint for u, d in first.done.items()} == {u: d.fingerprint for u, d in second.done.items()}


def test_only_series_that_are_new_to_the_operator_are_computed(place) -> None:
    place.each("copy")
    place.run(workflow(), place.series("1", "2"))
    result = place.run(workflow(), place.series("1", "2", "3"))["copy"]
    assert place.starts()[1:] == [["copy", "1.2.3.3"]]
    assert [uid for uid, done in result.done.items() if not done.reused] == ["1.2.3.3"]


AGAIN: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "environment": ({"env_vars": {"A": "b"}}, {}),
    "command": ({"command": ("/bin/sh", "/app/run.sh")}, {}),
    "declared-parameter": ({}, {"parameters": {"level": 2}}),
    "expected-output": ({"output_patterns": ("*.bin",)}, {}),
    "force": ({}, {"force": True}),
}
NOT_AGAIN: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "nothing": ({}, {}),
    "parameter-it-does-not-see": ({}, {"parameters": {"speed": 2}}),
    "limits": ({"timeout_s": 60, "retries": 2, "memory_mb": 2000}, {}),
    "single-mode": ({}, {"mode": "single"}),
}


@pytest.mark.parametrize("case", [*AGAIN, *NOT_AGAIN])
def test_outputs_are_made_again_when_the_operator_changed_in_what_counts(place, case: str) -> None:
    fields, options = {**AGAIN, **NOT_AGAIN}[case]
    place.each("copy")
    series = place.series("1")
    place.run(workflow(), series)
    result = place.run(workflow(**fields), series, **options)["copy"]
    assert result.launches == (1 if case in AGAIN else 0)


def test_changed_image_computes_again(place) -> None:
    place.each("copy")
    series = place.series("1")
    place.run(workflow(), series)
    (place.images / "copy" / "files" / "weights.bin").write_bytes(b"new")
    assert place.run(workflow(), series)["copy"].launches == 1


def test_operator_that_sees_all_parameters_depends_on_all(place) -> None:
    place.each("copy")
    series = place.series("1")
    place.run(workflow(parameters=None), series)
    assert place.run(workflow(parameters=None), series, parameters={"speed": 2})["copy"].launches == 1


def test_late_slice_computes_just_that_series_again(place) -> None:
    place.each("copy")
    series = place.series("1", "2")
    place.run(workflow(), series)
    place.series("2", instances=2)
    place.run(workflow(), series)
    assert place.starts()[1:] == [["copy", "1.2.3.2"]]


def test_changed_operator_computes_what_comes_after_it_again(place) -> None:
    place.each("copy")
    place.each("last")

    def chain(**fields: Any) -> Workflow:
        first = ContainerOperator(name="copy", image="copy", **fields)
        return Workflow(
            name="chain", operators=(first, ContainerOperator(name="last", image="last", input_operator=first))
        )

    series = place.series("1")
    place.run(chain(), series)
    place.run(chain(env_vars={"A": "b"}), series)
    assert [start[0] for start in place.starts()] == ["copy", "last"] * 2


def test_damaged_entry_of_the_shelf_is_made_again(place) -> None:
    place.each("copy")
    series = place.series("1")
    place.run(workflow(), series)
    (place.shelf.entry("copies", "copy", series[0]) / "all.bin").write_bytes(b"cut")
    assert place.run(workflow(), series)["copy"].launches == 1


def test_python_operator_is_computed_again_for_other_settings(place) -> None:
    series = place.series("1")
    for settings, launches in (({"a": "1"}, 1), ({"a": "1"}, 0), ({"a": "2"}, 1)):
        operator = PythonOperator(name="note", function=note, settings=settings)
        assert place.run(Workflow(name="notes", operators=(operator,)), series)["note"].launches == launches


def note(context: OperatorContext) -> None:
    for uid in context.series:
        (context.output_of(uid) / "seen.txt").write_text(repr(sorted(context.parameters)))


def test_python_operator_sees_only_the_parameters_that_it_declares(place) -> None:
    series = place.series("1")
    operator = PythonOperator(name="note", function=note, parameters=("level",))
    place.run(
        Workflow(name="notes", operators=(operator,), parameters=(Parameter("level", 1), Parameter("speed", 1))), series
    )
    assert (place.shelf.entry("notes", "note", series[0]) / "seen.txt").read_text() == "['level']"


def _without_source() -> Callable[[OperatorContext], None]:
    names: dict[str, Any] = {}
    exec("def made(context): pass", names)
    function: Callable[[OperatorContext], None] = names["made"]
    return function


def test_python_operator_whose_source_cannot_be_read_is_refused_by_name(place) -> None:
    operator = PythonOperator(name="odd", function=_without_source())
    with pytest.raises(WorkflowError, match=r"odd.*source"):
        place.run(Workflow(name="notes", operators=(operator,)), place.series("1"))


def test_forced_run_that_is_repeated_makes_only_what_failed(place) -> None:
    mended = place.home / "mended"
    place.each("copy", f'test -e "{mended}" || test "$series" != 1.2.3.2 || exit 1\n' + 'cat "$in"/* > "$out/all.bin"')
    series = place.series("1", "2")
    place.run(workflow(), series[:1])
    work = place.work(workflow(), series, force=True)
    first = place.step(work)
    assert (set(first.done), set(first.failed)) == ({"1.2.3.1"}, {"1.2.3.2"})
    mended.touch()
    before = len(place.starts())
    second = place.step(work)
    assert set(second.done) == set(series)
    assert place.starts()[before:] == [["copy", "1.2.3.2"]]


def test_half_output_of_a_killed_run_is_not_read_when_the_run_is_repeated(place) -> None:
    place.each("copy")
    place.each("last", 'cat "$in"/* > "$out/all.bin"')
    copy = ContainerOperator(name="copy", image="copy")
    chain = Workflow(name="w", operators=(copy, ContainerOperator(name="last", image="last", input_operator=copy)))
    (uid,) = place.series("1")
    killed = place.work(chain, [uid])
    half = killed.directory.series_dir(uid, "copy")
    half.mkdir(parents=True)
    (half / "all.bin").write_bytes(b"half")
    whole = place.step(place.work(chain, [uid]))
    again = place.step(killed)
    assert again.done[uid].reused
    run_operator(killed.of(chain.operators[1]), {"copy": {uid: whole.done[uid].fingerprint}})
    made = [(place.shelf.entry("w", name, uid) / "all.bin").read_bytes() for name in ("copy", "last")]
    assert made[0] == made[1]


MODULE = """
import {plugin}

LIMIT = {limit}

def helper(value):
    return {helper}

def make(bound):
    def bounded(context, extra={extra}):
        for uid in context.series:
            (context.output_of(uid) / "seen").write_text(str((helper(1), bound, LIMIT, extra, {plugin}.FACTOR)))
    return bounded

made = make({bound})
"""


@pytest.mark.parametrize("changed", ["helper", "limit", "bound", "extra", "factor"])
def test_python_operator_is_computed_again_when_what_its_function_uses_changed(
    place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    series = place.series("1")
    values = {"helper": "value", "limit": "1", "bound": "1", "extra": "1", "factor": "1"}
    for number, new in enumerate(({}, {}, {changed: "value + 1" if changed == "helper" else "2"})):
        # Each time as a new process would load it, from a folder of its own.
        folder = tmp_path / str(number)
        folder.mkdir()
        plugin = "plugin_of_the_user"
        monkeypatch.delitem(sys.modules, plugin, raising=False)
        monkeypatch.syspath_prepend(str(folder))
        (folder / f"{plugin}.py").write_text(f"FACTOR = {(values | new)['factor']}\n")
        (folder / "flow.py").write_text(MODULE.format(plugin=plugin, **(values | new)))
        spec = importlib.util.spec_from_file_location("flow_of_the_user", folder / "flow.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "flow_of_the_user", module)
        spec.loader.exec_module(module)
        operator = PythonOperator(name="note", function=module.made)
        launches = place.run(Workflow(name="notes", operators=(operator,)), series)["note"].launches
        assert launches == (0 if number == 1 else 1)


def test_python_operator_stands_for_the_code_that_was_loaded_not_for_what_its_file_says_now(
    place, tmp_path: Path
) -> None:
    file = tmp_path / "edited.py"
    text = "def function(context):\n    return 1\n"
    file.write_text(text)
    spec = importlib.util.spec_from_file_location("edited", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules["edited"] = module
    spec.loader.exec_module(module)
    flow = Workflow(name="notes", operators=(PythonOperator(name="note", function=module.function),))
    runner = ProcessRunner(place.images, place.environments)
    before = code_version(flow, flow.operators[0], runner, {})
    file.write_text(text.replace("1", "2"))
    assert code_version(flow, flow.operators[0], runner, {}) == before
    del sys.modules["edited"]


@pytest.mark.parametrize("level", ["series", "cohort"])
@pytest.mark.parametrize("lost", ["nothing", "one object", "another content", "the whole store"])
def test_objects_that_are_no_longer_in_their_bucket_are_put_again(place, tmp_path: Path, level, lost: str) -> None:
    place.each("copy")
    if level == "cohort":
        place.image(
            "copy", 'mkdir -p "/$WORKFLOW_DIR/$OPERATOR_OUT_DIR"; echo 1 > "/$WORKFLOW_DIR/$OPERATOR_OUT_DIR/all.bin"'
        )
    copy = ContainerOperator(name="copy", image="copy", level=level)
    flow = Workflow(
        name="copies", operators=(copy, put_objects(name="put", bucket="results", input_operator=copy, level=level))
    )
    series = place.series("1", "2")
    place.run(flow, series)
    objects = FolderObjects(place.home / "objects")
    names = [item.name for item in objects.list("results")]
    other = tmp_path / "other"
    other.write_text("other")
    if lost == "one object":
        objects.delete("results", names[0])
    elif lost == "another content":
        objects.put_file("results", names[0], other)
    elif lost == "the whole store":
        (place.home / "objects").rename(place.home / "before")
    result = place.run(flow, series)["put"]
    again = {key for key, done in result.done.items() if not done.reused}
    entries = {name.partition("/")[0] for name in names}
    assert again == {"nothing": set(), "the whole store": entries}.get(lost, {names[0].partition("/")[0]})
    assert [item.name for item in objects.list("results")] == names
    assert other.read_bytes() not in [(place.home / "objects" / "results" / name).read_bytes() for name in names]


def test_image_that_is_changed_while_it_runs_publishes_nothing(place) -> None:
    image = place.images / "copy" / "files" / "run.sh"
    place.each("copy", f'{COPY}; echo "# changed" >> "{image}"')
    series = place.series("1")
    with pytest.raises(OperatorFailed, match="image copy was changed"):
        place.run(workflow(), series)
    assert place.shelf.manifest("copies", "copy", series[0]) is None
