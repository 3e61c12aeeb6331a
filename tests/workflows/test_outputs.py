"""Success means verified outputs: what reaches the shelf is whole, and one bad series sinks no other."""

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from kaapana_assets.errors import NotFound, OperatorError, OperatorFailed
from kaapana_assets.execution.operator_run import run_operator, run_pooled
from kaapana_assets.workflows import ContainerOperator, OperatorContext, PythonOperator, Workflow

COPY = 'cat "$in"/* > "$out/all.bin"'
POOL = (
    'mkdir -p "$WORKFLOW_DIR/$OPERATOR_OUT_DIR"\n'
    'ls "$WORKFLOW_DIR/$BATCH_NAME" > "$WORKFLOW_DIR/$OPERATOR_OUT_DIR/series.txt"\n'
)


def one(name: str = "copy", **fields: Any) -> Workflow:
    return Workflow(name="copies", operators=(ContainerOperator(name=name, image=name, **fields),))


def test_batch_is_one_launch_for_all_series(place) -> None:
    place.each("copy")
    series = place.series("1", "2", "3")
    result = place.run(one(), series)["copy"]
    assert place.starts() == [["copy", *series]]
    assert (result.launches, set(result.done)) == (1, set(series))


def test_batch_larger_than_a_launch_may_be_is_cut_into_chunks(place) -> None:
    place.each("copy")
    series = place.series("1", "2", "3")
    result = place.run(one(), series, series_per_launch=2)["copy"]
    assert place.starts() == [["copy", *series[:2]], ["copy", series[2]]]
    assert set(result.done) == set(series)


def test_single_is_a_run_directory_and_a_launch_for_each_series(place) -> None:
    place.each("copy", 'echo "$WORKFLOW_DIR" > "$out/dir"')
    series = place.series("1", "2", "3")
    work = place.work(one(), series, mode="single")
    result = place.step(work)
    assert sorted(place.starts()) == [["copy", uid] for uid in series]
    assert result.launches == 3
    seen = {uid: (place.shelf.entry("copies", "copy", uid) / "dir").read_text().strip() for uid in series}
    run = {uid: view.partition("/launches/")[0] for uid, view in seen.items()}
    assert run == {uid: f"{work.directory.path}-{uid}" for uid in series}
    place.directories.remove(work.directory)
    assert [path.name for path in place.directories.folder.iterdir()] == [".runs"]


def test_container_sees_the_contract(place) -> None:
    place.each("show", 'env > "$out/env"; ls "$in" > "$out/input"; ls "$WORKFLOW_DIR/conf" > "$out/conf"')
    (uid,) = place.series("1", instances=2)
    place.run(one("show", env_vars={"OWN": "value", "RUN_ID": "mine"}), [uid])
    entry = place.shelf.entry("copies", "show", uid)
    env = dict(line.split("=", 1) for line in (entry / "env").read_text().splitlines())
    assert env["OWN"] == "value"
    assert env["RUN_ID"].startswith("copies-")
    assert (env["DAG_ID"], env["TASK_ID"], env["BATCH_NAME"]) == ("copies", "show", "batch")
    assert (env["OPERATOR_IN_DIR"], env["OPERATOR_OUT_DIR"]) == ("initial-input", "show")
    assert (entry / "input").read_text().split() == [f"{uid}.1.dcm", f"{uid}.2.dcm"]
    assert "conf.json" in (entry / "conf").read_text()


FAILS_FOR_2 = 'test "$series" != 1.2.3.2 || { echo bad header; exit 3; }\n' + COPY


@pytest.mark.parametrize("mode", ["batch", "single"])
def test_failing_series_does_not_sink_the_others(place, mode: str) -> None:
    place.each("copy", FAILS_FOR_2)
    series = place.series("1", "2", "3")
    result = place.run(one(), series, mode=mode)["copy"]
    assert set(result.done) == {"1.2.3.1", "1.2.3.3"}
    assert set(result.failed) == {"1.2.3.2"}
    assert "exit code 3" in result.failed["1.2.3.2"]
    assert "bad header" in result.failed["1.2.3.2"]
    assert not place.shelf.entry("copies", "copy", "1.2.3.2").exists()


def test_output_that_was_half_written_when_the_container_crashed_is_made_again(place) -> None:
    crashed = place.home / "crashed"
    place.each(
        "copy",
        f'if [ "$series" = 1.2.3.2 ] && [ ! -e "{crashed}" ]; then\n'
        f'  touch "{crashed}"; printf half > "$out/all.bin"; kill -9 $$\nfi\n' + COPY,
    )
    series = place.series("1", "2", "3")
    work = place.work(one(), series)
    result = place.step(work)
    assert set(result.done) == set(series)
    assert place.starts() == [["copy", *series], ["copy", *series[:2]], ["copy", series[2]]]
    for uid in series:
        assert (place.shelf.entry("copies", "copy", uid) / "all.bin").read_bytes() == _content(place, uid)


def test_output_of_a_series_that_always_crashes_half_way_never_reaches_the_shelf(place) -> None:
    place.each("copy", 'if [ "$series" = 1.2.3.2 ]; then printf half > "$out/all.bin"; kill -9 $$; fi\n' + COPY)
    result = place.run(one(), place.series("1", "2", "3"))["copy"]
    assert (set(result.done), set(result.failed)) == ({"1.2.3.1", "1.2.3.3"}, {"1.2.3.2"})
    assert not place.shelf.entry("copies", "copy", "1.2.3.2").exists()


def test_half_output_of_an_operator_that_went_on_and_failed_at_its_end_never_reaches_the_shelf(place) -> None:
    place.image(
        "copy",
        'code=0\nfor dir in "$WORKFLOW_DIR/$BATCH_NAME"/*; do\n'
        '  out="$dir/$OPERATOR_OUT_DIR"; mkdir -p "$out"\n'
        '  if [ "$(basename "$dir")" = 1.2.3.1 ]; then printf half > "$out/all.bin"; code=1; sleep 2.5\n'
        '  else cat "$dir/$OPERATOR_IN_DIR"/* > "$out/all.bin"; fi\ndone\nexit $code',
    )
    result = place.run(one(), place.series("1", "2", "3"))["copy"]
    assert (set(result.done), set(result.failed)) == ({"1.2.3.2", "1.2.3.3"}, {"1.2.3.1"})
    assert not place.shelf.entry("copies", "copy", "1.2.3.1").exists()


def _content(place: Any, uid: str) -> bytes:
    folder = place.home / "archive" / "1.2.3" / uid
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()))


@pytest.mark.parametrize("level", ["series", "cohort"])
def test_repeated_launch_finds_nothing_of_what_the_failed_one_wrote(place, level: str) -> None:
    out = '"$WORKFLOW_DIR/$OPERATOR_OUT_DIR"' if level == "cohort" else '"$WORKFLOW_DIR"/batch/1.2.3.1/copy'
    tried = place.home / "tried"
    place.image(
        "copy",
        f'mkdir -p {out}\nif [ ! -e "{tried}" ]; then touch "{tried}"; echo half > {out}/part; exit 1; fi\n'
        f"echo whole > {out}/all",
    )
    work = place.work(one(retries=1, level=level), place.series("1"))
    (partition,) = place.step(work).done
    kept = place.shelf.manifest("copies", "copy", partition)
    assert [file.path for file in kept.files] == ["all"]


def test_exit_code_126_is_skipped_and_neither_done_nor_failed(place) -> None:
    place.image("copy", "exit 126")
    series = place.series("1", "2")
    result = place.run(one(), series)["copy"]
    assert (set(result.skipped), result.done, result.failed) == (set(series), {}, {})


def test_series_without_output_of_an_operator_that_ended_well_has_failed(place) -> None:
    place.each("copy", 'test "$series" = 1.2.3.2 || ' + COPY)
    result = place.run(one(), place.series("1", "2"))["copy"]
    assert set(result.done) == {"1.2.3.1"}
    assert "holds no file" in result.failed["1.2.3.2"]


@pytest.mark.parametrize(
    ("body", "patterns", "missing"),
    [
        ('touch "$out/a.json"', ("*.json",), None),
        ('touch "$out/a.json"', ("*.nrrd",), "*.nrrd"),
        ('touch "$out/a.json"', ("*.json", "*.png"), "*.png"),
        ('mkdir "$out/deep"; touch "$out/deep/a.json"', ("*.json",), "*.json"),
        ('mkdir "$out/deep"; touch "$out/deep/a.json"', ("**/*.json",), None),
        ('mkdir "$out/a.json"', ("*.json",), "*.json"),
        ('mkdir "$out/deep"; touch "$out/deep/x"', (), None),
        ('mkdir "$out/empty"', (), "**/*"),
    ],
    ids=["fits", "other", "one-of-two", "deeper", "any-depth", "folder-is-no-file", "any-file", "only-a-folder"],
)
def test_output_must_hold_a_file_for_each_pattern(place, body: str, patterns: Any, missing: str | None) -> None:
    place.each("copy", body)
    result = place.run(one(output_patterns=patterns), place.series("1"))["copy"]
    if missing is None:
        assert set(result.done) == {"1.2.3.1"}
    else:
        assert f"no file that fits {missing}" in result.failed["1.2.3.1"]


LINKS = {
    "file": 'ln -s /etc/hostname "$out/x"; touch "$out/y"',
    "folder": 'ln -s /etc "$out/x"; touch "$out/y"',
    "dangling": 'ln -s /nowhere "$out/x"; touch "$out/y"',
    "output-folder": 'rmdir "$out"; mkdir -p "$WORKFLOW_DIR/aside"; touch "$WORKFLOW_DIR/aside/x"; '
    'ln -s "$WORKFLOW_DIR/aside" "$out"',
    "series-folder": 'mkdir -p "$WORKFLOW_DIR/aside"; mv "$folder" "$WORKFLOW_DIR/aside"; '
    'touch "$WORKFLOW_DIR/aside/$series/copy/x"; ln -s "$WORKFLOW_DIR/aside/$series" "$folder"',
    "pipe": 'mkfifo "$out/x"; touch "$out/y"',
}


@pytest.mark.parametrize("case", LINKS)
def test_output_with_a_link_or_special_file_is_refused(place, case: str) -> None:
    place.each("copy", f'if [ "$series" = 1.2.3.2 ]; then {LINKS[case]}; else {COPY}; fi')
    result = place.run(one(), place.series("1", "2"))["copy"]
    assert set(result.done) == {"1.2.3.1"}
    assert "link" in result.failed["1.2.3.2"]
    assert not place.shelf.entry("copies", "copy", "1.2.3.2").exists()


def test_operator_that_left_a_link_for_its_output_can_be_run_again(place) -> None:
    place.each("copy", LINKS["output-folder"])
    work = place.work(one(), place.series("1"))
    for _ in range(2):
        result = place.step(work)
        assert set(result.failed) == {"1.2.3.1"}
    (aside,) = work.directory.path.glob("launches/*/aside/x")
    assert aside.exists()


def test_operator_that_runs_too_long_is_ended_and_its_series_fail(place) -> None:
    place.each("copy", 'test "$series" != 1.2.3.2 || sleep 60\n' + COPY)
    began = time.monotonic()
    result = place.run(one(timeout_s=0.5), place.series("1", "2", "3"))["copy"]
    assert time.monotonic() - began < 20
    assert set(result.done) == {"1.2.3.1", "1.2.3.3"}
    assert "longer than its limit of 0.5 s" in result.failed["1.2.3.2"]


def test_failed_launch_is_repeated_as_often_as_the_operator_says(place) -> None:
    place.image("copy", "exit 1")
    result = place.run(one(retries=2), place.series("1"))["copy"]
    assert (result.launches, len(place.starts())) == (3, 3)


def test_launch_that_works_on_its_second_try_is_a_success(place) -> None:
    tried = place.home / "tried"
    place.each("copy", COPY, after=f'\ntest -e "{tried}" || {{ touch "{tried}"; exit 1; }}')
    result = place.run(one(retries=1), place.series("1", "2"))["copy"]
    assert (set(result.done), result.launches) == ({"1.2.3.1", "1.2.3.2"}, 2)


def test_image_that_is_not_there_is_no_failure_of_series_but_ends_the_run(place) -> None:
    with pytest.raises(NotFound, match="copy"):
        place.run(one(), place.series("1"))


def test_pooled_operator_sees_only_the_series_that_came_so_far(place) -> None:
    place.each("copy", FAILS_FOR_2)
    place.image("pool", POOL)
    copy = ContainerOperator(name="copy", image="copy")
    pool = ContainerOperator(name="pool", image="pool", input_operator=copy, level="cohort")
    results = place.run(Workflow(name="pooling", operators=(copy, pool)), place.series("1", "2", "3"))
    assert set(results["pool"].done) == {"all"}
    pooled = place.shelf.entry("pooling", "pool", "all") / "series.txt"
    assert pooled.read_text().split() == ["1.2.3.1", "1.2.3.3"]


@pytest.mark.parametrize("script", ["exit 1", "exit 126", "exit 0"], ids=["failed", "skipped", "no-output"])
def test_pooled_operator_without_output_fails(place, script: str) -> None:
    place.image("pool", script)
    pool = ContainerOperator(name="pool", image="pool", level="cohort")
    work = place.work(Workflow(name="pooling", operators=(pool,)), place.series("1"))
    with pytest.raises(OperatorError, match="pool"):
        place.step(work)
    assert not place.shelf.entry("pooling", "pool", "all").exists()


def test_pooled_operator_that_no_series_reached_fails(place) -> None:
    place.image("pool", POOL)
    pool = ContainerOperator(name="pool", image="pool", level="cohort")
    work = place.work(Workflow(name="pooling", operators=(pool,)), place.series("1"))
    with pytest.raises(OperatorFailed, match="no series of cohort all"):
        run_pooled(work.of(pool), {"initial-input": {}})


def test_pooled_operator_after_a_pooled_one_reads_its_folder(place) -> None:
    place.image("pool", POOL)
    place.image(
        "count",
        'out="$WORKFLOW_DIR/$OPERATOR_OUT_DIR"; mkdir "$out"\n'
        'wc -l < "$WORKFLOW_DIR/$OPERATOR_IN_DIR/series.txt" > "$out/n"',
    )
    pool = ContainerOperator(name="pool", image="pool", level="cohort")
    count = ContainerOperator(name="count", image="count", level="cohort", input_operator=pool)
    workflow = Workflow(name="pooling", operators=(pool, count))
    series = place.series("1", "2")
    place.run(workflow, series)
    assert (place.shelf.entry("pooling", "count", "all") / "n").read_text().split() == ["2"]
    results = place.run(workflow, series)
    assert [result.launches for result in results.values()] == [0, 0]


def bad_for_2(context: OperatorContext) -> None:
    for uid in context.series:
        if uid.endswith(".2"):
            raise ZeroDivisionError("no slices")
        (context.output_of(uid) / "n.txt").write_text("1")


def test_exception_of_a_python_operator_is_a_failure_of_the_series(place) -> None:
    operator = PythonOperator(name="count", function=bad_for_2)
    result = place.run(Workflow(name="counts", operators=(operator,)), place.series("1", "2", "3"))["count"]
    assert set(result.done) == {"1.2.3.1", "1.2.3.3"}
    assert result.failed["1.2.3.2"] == "operator count: ZeroDivisionError: no slices"


VANDAL = (
    'for file in "$in"/*; do chmod 666 "$file"; echo broken >> "$file"; echo broken > "$file"; done\n'
    'rm "$in"/*; chmod 777 "$in"; echo x > "$out/done"\n'
)


def test_operator_that_overwrites_its_inputs_changes_neither_archive_nor_shelf(place) -> None:
    place.each("copy")
    place.each("vandal", VANDAL)
    copy = ContainerOperator(name="copy", image="copy")
    vandal = ContainerOperator(name="vandal", image="vandal", input_operator=copy)
    on_dicom = ContainerOperator(name="vandal", image="vandal", parallel_id="dicom")
    (uid,) = place.series("1", instances=2)
    before = _tree(place.home / "archive")
    kept = _content(place, uid)
    place.run(Workflow(name="first", operators=(copy, vandal)), [uid])
    again = ContainerOperator(name="vandal", image="vandal", input_operator=copy, parallel_id="again")
    place.run(Workflow(name="first", operators=(copy, again)), [uid])
    place.run(Workflow(name="second", operators=(on_dicom,)), [uid])
    assert _tree(place.home / "archive") == before
    entry = place.shelf.entry("first", "copy", uid)
    assert (entry / "all.bin").read_bytes() == kept
    place.shelf.fetch("first", "copy", uid, place.home / "fetched")


def _tree(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = (path for path in folder.rglob("*.dcm") if path.is_file())
    return {str(path): (path.read_bytes(), path.stat().st_mode) for path in files}


def test_writing_into_the_run_directory_after_the_run_does_not_reach_the_shelf(place) -> None:
    place.each("copy")
    (uid,) = place.series("1")
    work = place.work(one(), [uid])
    place.step(work)
    made = work.directory.series_dir(uid, "copy") / "all.bin"
    kept = made.read_bytes()
    made.write_bytes(b"other")
    assert (place.shelf.entry("copies", "copy", uid) / "all.bin").read_bytes() == kept


def test_series_that_changed_in_the_pacs_since_the_run_began_fails_and_says_so(place) -> None:
    place.each("copy")
    series = place.series("1", "2")
    work = place.work(one(), series)
    place.series("2", instances=2)
    result = place.step(work)
    assert set(result.done) == {"1.2.3.1"}
    assert "changed in the PACS" in result.failed["1.2.3.2"]


def test_two_runs_at_once_end_with_one_whole_output(place) -> None:
    place.each("copy", 'echo $$ > "$out/a"; echo $$ > "$out/b"')
    series = place.series("1", "2", "3")
    works = [place.work(one(), series, force=True) for _ in range(4)]
    threads = [threading.Thread(target=place.step, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    runs = set()
    for uid in series:
        manifest = place.shelf.fetch("copies", "copy", uid, place.home / "fetched" / uid)
        fetched = place.home / "fetched" / uid
        assert (fetched / "a").read_bytes() == (fetched / "b").read_bytes()
        runs.add(manifest.run)
    assert runs <= {work.directory.name for work in works}


def test_input_that_another_run_replaced_meanwhile_is_not_taken_for_ours(place) -> None:
    place.each("copy", 'echo "$LEVEL" > "$out/level"')
    place.each("last", 'cat "$in/level" > "$out/seen"')

    def chain(level: str) -> Workflow:
        copy = ContainerOperator(name="copy", image="copy", env_vars={"LEVEL": level})
        return Workflow(name="w", operators=(copy, ContainerOperator(name="last", image="last", input_operator=copy)))

    (uid,) = place.series("1")
    ours = place.step(place.work(chain("1"), [uid]))
    other = place.work(chain("2"), [uid])
    place.step(other)
    work = place.work(chain("1"), [uid])
    result = run_operator(work.of(work.workflow.operators[1]), {"copy": {uid: ours.done[uid].fingerprint}})
    assert not result.done
    assert "another run" in result.failed[uid]


def test_cancelled_run_ends_its_containers_and_publishes_nothing(place) -> None:
    place.image("copy", "echo started; sleep 60")
    series = place.series("1", "2")
    started = threading.Event()
    work = place.work(one(), series, mode="single", output=lambda _: started.set())
    caught: list[BaseException] = []

    def run() -> None:
        try:
            place.step(work)
        except OperatorFailed as exc:
            caught.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(10)
    work.cancelled.set()
    thread.join(15)
    assert not thread.is_alive()
    assert len(caught) == 1
    assert not place.shelf.entry("copies", "copy", series[0]).exists()


def test_what_operators_print_is_given_on_line_by_line(place) -> None:
    place.each("copy", f'echo "working on $series"; {COPY}')
    place.run(one(), place.series("1", "2"))
    assert [line for line in place.lines if line.startswith("working")] == ["working on 1.2.3.1", "working on 1.2.3.2"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_output_that_cannot_be_read_fails_only_its_series(place) -> None:
    place.each("copy", COPY + '\ntest "$series" != 1.2.3.2 || chmod 0 "$out/all.bin"')
    result = place.run(one(), place.series("1", "2"))["copy"]
    assert (set(result.done), set(result.failed)) == ({"1.2.3.1"}, {"1.2.3.2"})
