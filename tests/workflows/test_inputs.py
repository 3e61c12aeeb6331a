"""An operator finds what it declared, fresh and again from the shelf, and never anything else."""

from pathlib import Path
from typing import Any

import pytest

from kaapana_assets.errors import OperatorFailed, WorkflowError
from kaapana_assets.workflows import (
    INITIAL_INPUT,
    ContainerOperator,
    OperatorContext,
    Parameter,
    PythonOperator,
    Workflow,
    folder_of,
)
from kaapana_assets.workflows.fingerprints import series_fingerprint

MODES = pytest.mark.parametrize("mode", ["batch", "single"])
NOTE = 'cd "$folder"; found=$(ls -d */*); echo "$found" > "$out/seen.txt"'


def both(name: str = "both", **fields: Any) -> ContainerOperator:
    return ContainerOperator(name=name, image="both", **fields)


def copy(name: str = "copy", **fields: Any) -> ContainerOperator:
    return ContainerOperator(name=name, image="copy", **fields)


def seen(place, workflow: Workflow, uid: str, operator: str = "both") -> list[str]:
    return (place.shelf.entry(workflow.name, operator, uid) / "seen.txt").read_text().split()


COPIED, SECOND, DICOM = "copy/all.bin", "second/all.bin", "initial-input/{uid}.1.dcm"
DECLARED = {
    "dicom": ({}, [DICOM]),
    "one": ({"input_operator": "copy"}, [COPIED]),
    "dicom-besides": ({"input_operator": "copy", "inputs": (INITIAL_INPUT,)}, [COPIED, DICOM]),
    "besides-dicom": ({"inputs": ("copy",)}, [COPIED, DICOM]),
    "several": ({"input_operator": "copy", "inputs": ("second", INITIAL_INPUT)}, [COPIED, DICOM, SECOND]),
    "the-same-twice": ({"input_operator": "copy", "inputs": ("copy",)}, [COPIED]),
    "folder-of-another": ({"input_operator": "copy", "operator_in_dir": "second"}, [COPIED, SECOND]),
    "dicom-after-one": ({"input_operator": "copy", "operator_in_dir": INITIAL_INPUT}, [COPIED, DICOM]),
    "folder-alone": ({"operator_in_dir": "second"}, [SECOND]),
    "dicom-by-name": ({"input_operator": INITIAL_INPUT}, [DICOM]),
}


@MODES
@pytest.mark.parametrize("case", DECLARED)
def test_operator_sees_what_it_declared_fresh_and_when_all_else_is_reused(place, case: str, mode: str) -> None:
    fields, expected = DECLARED[case]
    place.each("copy")
    place.each("both", NOTE)
    uid, other = place.series("1", "2")
    workflow = Workflow(name="w", operators=(copy(), copy("second"), both(**fields)))
    wanted = sorted(path.format(uid=uid) for path in expected)
    place.run(workflow, [uid, other], mode=mode)
    assert sorted(seen(place, workflow, uid)) == wanted
    (place.images / "both" / "files" / "new").touch()
    results = place.run(workflow, [uid, other], mode=mode)
    assert [result.launches for result in results.values()] == [0, 0, 2 if mode == "single" else 1]
    assert sorted(seen(place, workflow, uid)) == wanted


def test_run_directory_itself_is_never_seen(place) -> None:
    place.each("copy")
    place.each("both", 'ls "$WORKFLOW_DIR" > "$out/seen.txt"; ls "$folder" >> "$out/seen.txt"')
    (uid,) = place.series("1")
    workflow = Workflow(name="w", operators=(copy(), both(input_operator="copy")))
    place.run(workflow, [uid])
    assert seen(place, workflow, uid) == ["batch", "conf", "both", "copy"]


def test_each_input_counts_for_what_is_computed_again(place) -> None:
    place.each("copy")
    place.each("both", NOTE)
    (uid,) = place.series("1")

    def workflow(**second: Any) -> Workflow:
        operators = (copy(), copy("second", **second), both(input_operator="copy", inputs=("second", INITIAL_INPUT)))
        return Workflow(name="w", operators=operators)

    place.run(workflow(), [uid])
    launches = [
        place.run(workflow(**second), [uid])["both"].launches
        for second in ({}, {"env_vars": {"A": "b"}}, {"env_vars": {"A": "b"}})
    ]
    assert launches == [0, 1, 0]
    place.series("1", instances=2)
    assert place.run(workflow(env_vars={"A": "b"}), [uid])["both"].launches == 1


def test_one_input_has_the_fingerprint_that_it_always_had(place) -> None:
    place.each("copy")
    (uid,) = place.series("1")
    result = place.run(Workflow(name="w", operators=(copy(),)), [uid])["copy"]
    assert result.done[uid].input_fingerprint == place.pacs.series(uid).digest
    assert result.done[uid].fingerprint == series_fingerprint(result.code_version, place.pacs.series(uid).digest)


@MODES
def test_series_that_lacks_one_of_several_inputs_does_not_reach_the_operator(place, mode: str) -> None:
    place.each("copy")
    place.image(
        "second",
        'cd "$WORKFLOW_DIR/batch"; [ "$(ls)" != 1.2.3.2 ] || exit 126; [ "$(ls)" != 1.2.3.3 ] || exit 4\n'
        "for s in 1.2.3.1; do [ -d $s ] || exit 4; mkdir $s/second; echo x > $s/second/all.bin; done\n",
    )
    place.each("both", NOTE)
    series = place.series("1", "2", "3")
    second = ContainerOperator(name="second", image="second")
    workflow = Workflow(name="w", operators=(copy(), second, both(input_operator="copy", inputs=(second,))))
    for _ in range(2):
        results = place.run(workflow, series, mode=mode)
        assert set(results["both"].done) == {series[0]}
        assert set(results["copy"].done) == set(series)


POOL = """
out="$WORKFLOW_DIR/$OPERATOR_OUT_DIR"; mkdir -p "$out"; cd "$WORKFLOW_DIR"
found=$(find . -type f ! -path './conf/*' | sort); echo "$found" > "$out/seen.txt"
"""


@MODES
def test_pooled_operator_reads_pooled_and_series_outputs_together(place, mode: str) -> None:
    place.each("copy")
    place.image("pool", POOL)
    series = place.series("1", "2")
    first = ContainerOperator(name="first", image="pool", level="cohort", input_operator="copy")
    last = ContainerOperator(
        name="last", image="pool", level="cohort", input_operator=first, inputs=("copy", INITIAL_INPUT)
    )
    workflow = Workflow(name="w", operators=(copy(), first, last))
    expected = ["./first/seen.txt"]
    expected += [f"./batch/{uid}/{name}" for uid in series for name in ("copy/all.bin", f"initial-input/{uid}.1.dcm")]
    for last_launches in (1, 0, 1):
        results = place.run(workflow, series, mode=mode)
        assert results["last"].launches == last_launches
        assert sorted(seen(place, workflow, "all", "last")) == sorted(expected)
        if not last_launches:
            (place.shelf.entry("w", "last", "all") / ".manifest.json").unlink()


def test_pooled_operator_after_a_pooled_one_sees_no_series_that_it_did_not_declare(place) -> None:
    place.each("copy")
    place.image("pool", POOL)
    first = ContainerOperator(name="first", image="pool", level="cohort", input_operator="copy")
    last = ContainerOperator(name="last", image="pool", level="cohort", input_operator=first)
    workflow = Workflow(name="w", operators=(copy(), first, last))
    place.run(workflow, place.series("1"))
    assert seen(place, workflow, "all", "last") == ["./first/seen.txt"]


VANDAL = 'for f in "$folder"/*/*; do chmod 666 "$f"; echo broken >> "$f"; done; mkdir -p "$out"; echo x > "$out/x"\n'


@MODES
@pytest.mark.parametrize("kind", ["container", "python"])
def test_operator_that_changes_its_input_changes_it_for_no_other(place, kind: str, mode: str) -> None:
    place.each("copy")
    place.each("vandal", VANDAL)
    place.each("both", 'cat "$folder"/initial-input/* "$folder"/copy/* > "$out/seen.bin"')
    fields: dict[str, Any] = {"name": "vandal", "input_operator": "copy", "inputs": (INITIAL_INPUT,)}
    vandal = (
        ContainerOperator(image="vandal", **fields)
        if kind == "container"
        else PythonOperator(function=change_input, **fields)
    )
    last = both(input_operator="copy", inputs=(INITIAL_INPUT, vandal))
    (uid,) = place.series("1")
    workflow = Workflow(name="w", operators=(copy(), vandal, last))
    results = place.run(workflow, [uid], mode=mode)
    assert [len(result.done) for result in results.values()] == [1, 1, 1]
    archived = next((place.home / "archive").rglob("*.dcm")).read_bytes()
    assert (place.shelf.entry("w", "both", uid) / "seen.bin").read_bytes() == archived * 2


def change_input(context: OperatorContext) -> None:
    for uid in context.series:
        for folder in ("copy", INITIAL_INPUT):
            for path in context.input_of(uid, folder).iterdir():
                path.chmod(0o666)
                path.write_bytes(b"broken")
        (context.output_of(uid) / "x").write_text("x")


def test_repeated_launch_finds_its_input_as_it_was(place) -> None:
    tried = place.home / "tried"
    place.each("copy", f'cat "$in"/* > "$out/all.bin"; rm "$in"/*; test -e "{tried}" || {{ touch "{tried}"; exit 1; }}')
    (uid,) = place.series("1")
    place.run(Workflow(name="w", operators=(copy(retries=1),)), [uid])
    archived = next((place.home / "archive").rglob("*.dcm")).read_bytes()
    assert (place.shelf.entry("w", "copy", uid) / "all.bin").read_bytes() == archived


def test_empty_folder_and_hidden_file_are_seen_as_they_will_be_from_the_shelf(place) -> None:
    place.each("copy", 'mkdir "$out/empty"; touch "$out/.hidden"; mkdir "$out/deep"; touch "$out/deep/x"')
    place.each("both", 'cd "$in"; find . | sort > "$out/seen.txt"')
    (uid,) = place.series("1")
    workflow = Workflow(name="w", operators=(copy(), both(input_operator="copy")))
    for _ in range(2):
        place.run(workflow, [uid])
        assert seen(place, workflow, uid) == [".", "./.hidden", "./deep", "./deep/x"]
        (place.images / "both" / "files" / "new").touch()


def test_view_of_a_launch_is_at_the_same_place_for_the_same_series(place) -> None:
    place.each("copy", 'echo "$WORKFLOW_DIR"; exit 3')
    work = place.work(Workflow(name="w", operators=(copy(),)), place.series("1"))
    for _ in range(2):
        place.step(work)
    views = [line for line in place.lines if "/launches/" in line]
    assert len(views) == 2
    assert len(set(views)) == 1


def test_views_of_launches_that_ended_well_are_removed(place) -> None:
    place.each("copy", 'test "$series" != 1.2.3.2 || exit 3; ' + 'cat "$in"/* > "$out/all.bin"')
    work = place.work(Workflow(name="w", operators=(copy(),)), place.series("1", "2", "3"))
    place.step(work)
    (kept,) = (work.directory.path / "launches").iterdir()
    assert [path.name for path in (kept / "batch").iterdir()] == ["1.2.3.2"]


def test_names_of_folders_reach_operators_through_the_model(place) -> None:
    place.each("copy")
    place.each("both", 'ls "$folder/$DICOM_DIR" "$folder/$OTHER" > "$out/seen.txt"')
    first = copy(parallel_id="x", operator_out_dir="made")
    names = {"DICOM_DIR": folder_of(INITIAL_INPUT), "OTHER": folder_of(first)}
    assert names == {"DICOM_DIR": "initial-input", "OTHER": "made-x"}
    (uid,) = place.series("1")
    last = both(input_operator=first, inputs=(INITIAL_INPUT,), env_vars=names)
    for _ in range(2):
        assert set(place.run(Workflow(name="w", operators=(first, last)), [uid])["both"].done) == {uid}
        (place.images / "both" / "files" / "new").touch()


def test_folder_of_takes_an_operator_or_the_dicom_files() -> None:
    with pytest.raises(WorkflowError, match="not 'copy'"):
        folder_of("copy")


def test_pooled_operator_that_lacks_one_of_its_inputs_fails(place) -> None:
    place.each("copy")
    place.image("pool", POOL)
    pool = ContainerOperator(name="pool", image="pool", level="cohort", inputs=("copy",))
    work = place.work(Workflow(name="w", operators=(copy(), pool)), place.series("1"))
    with pytest.raises(OperatorFailed, match="no series of cohort all"):
        place.step(work, pool)


ALONE = (copy(), copy("second"))
MISTAKES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "text": ({"inputs": "copy"}, ["inputs=(extract,)"]),
    "operator": ({"inputs": copy()}, ["inputs=(extract,)"]),
    "number": ({"inputs": (3,)}, ["not 3"]),
    "unknown": ({"inputs": ("other",)}, ["'other' is not in the workflow", "copy, second, both"]),
    "itself": ({"inputs": ("both",)}, ["circle"]),
    "variable": ({"env_vars": {"A": "copy"}}, ["variable A", "folder 'copy'", "inputs=('copy',)"]),
    "variable-of-dicom": (
        {"input_operator": "copy", "env_vars": {"A": "initial-input"}},
        ["variable A", "inputs=(INITIAL_INPUT,)"],
    ),
    "parameter": ({"input_operator": "second"}, ["parameter 'which'", "folder 'copy'", "parameters=(...)"]),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistake_in_what_is_declared_is_told_with_what_to_write(case: str) -> None:
    fields, told = MISTAKES[case]
    parameters = (Parameter("which", "none", choices=("none", "copy")),) if case == "parameter" else ()
    alone = tuple(copy(name, parameters=()) for name in ("copy", "second"))
    with pytest.raises(WorkflowError) as caught:
        Workflow(name="w", operators=(*alone, both(**fields)), parameters=parameters)
    for text in ("test_inputs.py", "'both'", *told):
        assert text in str(caught.value)


def test_series_operator_cannot_have_a_pooled_output_among_its_inputs() -> None:
    with pytest.raises(WorkflowError, match="single series"):
        Workflow(name="w", operators=(copy(level="cohort"), both(inputs=("copy",))))


def test_value_that_names_a_declared_or_its_own_folder_is_no_mistake() -> None:
    values = {"A": "copy", "B": "both", "C": "initial-input", "D": "elsewhere"}
    operator = both(input_operator="copy", inputs=(INITIAL_INPUT,), env_vars=values)
    Workflow(name="w", operators=(*ALONE, operator))


def test_input_of_a_launch_shares_no_file_with_the_archive_where_nothing_isolates(place, tmp_path: Path) -> None:
    noted = tmp_path / "links"
    place.each("copy", f'stat -c %h "$in"/* >> "{noted}"; cat "$in"/* > "$out/all.bin"')
    place.run(Workflow(name="w", operators=(copy(),)), place.series("1"))
    assert noted.read_text().split() == ["1"]


def test_operator_that_only_acts_is_waited_for_and_has_no_folder(place) -> None:
    place.image("notify", 'test "$(ls "$WORKFLOW_DIR/batch")" = 1.2.3.1')
    place.each("copy")
    place.each("both", NOTE)
    notify = ContainerOperator(name="notify", image="notify", outputs=None)
    workflow = Workflow(name="w", operators=(both(input_operator="copy", inputs=(notify,)), copy(), notify))
    series = place.series("1", "2")
    for _ in range(2):
        results = place.run(workflow, series)
        assert set(results["both"].done) == {series[0]}
        assert seen(place, workflow, series[0]) == [COPIED]
    assert results["both"].launches == 0
