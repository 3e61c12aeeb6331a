"""What operators do to the run directory reaches nothing else: real processes, in workflows that Dagster runs.

The process runner has no walls, so that its operators can reach all of the run directory, by ``$RUN``.
"""

import contextlib
import hashlib
import json
import stat
import subprocess
import threading
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest
from click.testing import CliRunner
from security.hostile import DEEP, LARGE, LEFT, SETTINGS
from workflows.conftest import environments, place, platform  # noqa: F401 - fixtures
from workflows.platform import POOL, Platform, rerun

from kaapana_assets.cli import cli
from kaapana_assets.errors import StoreUnavailable
from kaapana_assets.stores.files.retention import remove_left_behind
from kaapana_assets.stores.files.run_directory import RunDirectories
from kaapana_assets.stores.files.shelf import Origin, Shelf
from kaapana_assets.stores.objects.folder import FolderObjects

FLOW = """
from kaapana_assets.workflows import ContainerOperator, Workflow, put_objects
copy = ContainerOperator(name="copy", image="copy")
bad = ContainerOperator(name="bad", image="bad", input_operator=copy)
put = put_objects(name="put", bucket="results", input_operator=copy, parallel_id="copies")
last = ContainerOperator(name="last", image="last", input_operator=bad, inputs=(copy,))
pool = ContainerOperator(name="pool", image="pool", input_operator=last, level="cohort")
chain = Workflow(name="my-chain", operators=(copy, bad, put, last, pool))
"""
ONE, TWO = "1.2.3.1", "1.2.3.2"
SECRET = b"secret of the platform"
RUN = 'RUN=$(cd "$WORKFLOW_DIR/../.." && pwd -P)\n'


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A folder that only the platform's user reads, with a file in it."""
    folder = tmp_path / "outside"
    folder.mkdir(0o700)
    (folder / "all.bin").write_bytes(SECRET)
    (folder / "all.bin").chmod(0o600)
    return folder


@pytest.fixture
def flow(platform: Platform) -> Iterator[Platform]:  # noqa: F811
    platform.workflow(FLOW)
    platform.place.each("bad")
    platform.cohort("all", platform.place.series("1", "2"))
    yield platform
    # Deeper than pytest itself could remove.
    subprocess.run(["rm", "-rf", platform.place.home / "workflows"], check=True)


def attack(platform: Platform, script: str, *, name: str = "bad", on: str = ONE) -> None:  # noqa: F811
    """Let an operator do its work and, for one series, something else."""
    script = f'{RUN}if [ "$series" = {on} ]; then\n{script}\nfi'
    platform.place.each(name, f'cat "$in"/* > "$out/all.bin"\n{script}')


def state(platform: Platform, operator: str) -> tuple[list[str], list[str]]:  # noqa: F811
    """The series that an operator has done, and those that failed."""
    row = next(row for row in platform.report()["operators"] if row["operator"] == operator)
    return row["done"], sorted(row["failed"])


def leaked(platform: Platform, outside: Path) -> list[Path]:  # noqa: F811
    """Files that hold the secret or are it, but for the attacker's own."""
    home = platform.place.home
    views = [view for name in ("put", "last") for view in home.glob(f"workflows/data/*/launches/{name}-*")]
    files = [path for folder in (home / "assets", home / "objects", *views) for path in folder.rglob("*")]
    plain = [path for path in files if path.is_file() and not path.is_symlink()]
    return [path for path in plain if SECRET in path.read_bytes() or path.samefile(outside / "all.bin")]


def untouched(outside: Path) -> bool:
    file = outside / "all.bin"
    alone = list(outside.iterdir()) == [file]
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (outside, file)]
    return alone and file.read_bytes() == SECRET and modes == [0o700, 0o600]


INPUT_SWAPPED = {
    "folder": 'rm -r "$RUN/batch/{one}/copy"; ln -s "{outside}" "$RUN/batch/{one}/copy"',
    "file": 'rm "$RUN/batch/{one}/copy/all.bin"; ln -s "{outside}/all.bin" "$RUN/batch/{one}/copy/all.bin"',
    "series": 'mv "$RUN/batch/{one}" "$RUN/aside"; mkdir "$RUN/elsewhere"; '
    'ln -s "{outside}" "$RUN/elsewhere/copy"; ln -s "$RUN/elsewhere" "$RUN/batch/{one}"',
    "hard-link": 'ln -f "{outside}/all.bin" "$RUN/batch/{one}/copy/all.bin"',
    "pipe": 'rm "$RUN/batch/{one}/copy/all.bin"; mkfifo "$RUN/batch/{one}/copy/all.bin"',
}


@pytest.mark.parametrize("case", INPUT_SWAPPED)
def test_swapped_input_reaches_neither_the_object_store_nor_the_next_view(flow: Platform, secret: Path, case: str):
    attack(flow, INPUT_SWAPPED[case].format(one=ONE, outside=secret))
    assert not flow.run().success
    assert leaked(flow, secret) == []
    assert untouched(secret)
    assert state(flow, "put-copies") == ([TWO], [ONE])
    assert state(flow, "last")[0] == [TWO]
    assert "link" in flow.report()["failed"][ONE]["reason"]
    names = [item.name for item in FolderObjects(flow.place.home / "objects").list("results")]
    assert names == [f"{TWO}/all.bin"]


RUN_SWAPPED = {
    "batch": 'mv "$RUN/batch" "$RUN/aside"; ln -s "{outside}" "$RUN/batch"',
    "series": 'mv "$RUN/batch/{two}" "$RUN/aside"; ln -s "{outside}" "$RUN/batch/{two}"',
    "conf": 'rm -r "$RUN/conf"; ln -s "{outside}" "$RUN/conf"',
    "report": 'ln -s "{outside}" "$RUN/report"',
}


@pytest.mark.parametrize("case", RUN_SWAPPED)
def test_link_in_place_of_a_folder_of_the_run_is_written_through_by_nobody(flow: Platform, secret: Path, case: str):
    attack(flow, RUN_SWAPPED[case].format(two=TWO, outside=secret))
    first = flow.run()
    assert first.success == (case in ("conf", "report"))
    assert untouched(secret)
    if not first.success:
        rerun(flow, first.run_id)
    remove_everything(flow)
    assert untouched(secret)


def test_link_in_place_of_the_views_empties_no_folder_elsewhere(flow: Platform, tmp_path: Path):
    both = hashlib.sha256("\n".join((ONE, TWO)).encode()).hexdigest()
    name = f"put-copies-{both[:16]}"
    precious = tmp_path / "outside" / name / "precious"
    precious.parent.mkdir(parents=True)
    precious.touch()
    attack(flow, f'mv "$RUN/launches" "$RUN/aside"; ln -s "{tmp_path}/outside" "$RUN/launches"')
    assert not flow.run().success
    assert [path.name for path in precious.parent.iterdir()] == ["precious"]
    assert "launches is a link" in flow.report()["reason"]
    remove_everything(flow)
    assert precious.exists()


def remove_everything(platform: Platform) -> None:  # noqa: F811
    list(remove_left_behind(platform.place.home, days=0))
    assert platform.run_directories() == []


FORGED = {
    "conf": 'sed -i "s/\\"cohort\\": \\"all\\"/\\"cohort\\": \\"other\\"/" "$RUN/conf/conf.json"',
    "pipe": 'rm "$RUN/conf/conf.json"; mkfifo "$RUN/conf/conf.json"',
    "result": 'sed -i "s/{two}/9.9.9/" "$RUN/conf/results/copy.json"',
    "removed": 'rm "$RUN/conf/results/copy.json"',
}


@pytest.mark.parametrize("case", FORGED)
def test_forged_records_change_nothing(flow: Platform, case: str):
    attack(flow, FORGED[case].format(two=TWO))
    assert flow.run().success
    assert flow.report()["cohort"] == "all"
    assert state(flow, "copy") == state(flow, "last") == ([ONE, TWO], [])
    reports = flow.place.home / "assets" / "my-chain" / "report"
    assert [path.name for path in reports.iterdir()] == ["all"]


def test_report_that_is_a_link_or_a_pipe_in_the_run_directory_holds_up_nobody(flow: Platform, secret: Path):
    attack(flow, f'mkdir "$RUN/report"; ln -s "{secret}/all.bin" "$RUN/report/report.json"; mkfifo "$RUN/report/x"')
    assert flow.run().success
    assert untouched(secret)
    assert flow.report()["status"] == "success"


REACHED = {
    "link-in-view": ('ln -s "$outside" "$WORKFLOW_DIR/other"', "other is a link"),
    "hard-link": ('ln "$archive"/*.dcm "$out/x.dcm"', "x.dcm is a hard link"),
    "hard-link-for-input": ('ln -f "$outside/all.bin" "$in/all.bin"', "all.bin is a hard link"),
}
ALL_LEFT = LEFT | REACHED
POOLED = [("link-for-input", "cohort"), ("link-deep", "cohort"), ("hard-link", "cohort")]


@pytest.mark.parametrize(("case", "level"), [*((case, "series") for case in ALL_LEFT), *POOLED])
def test_what_a_launch_left_is_refused_whatever_its_level(flow: Platform, secret: Path, case: str, level: str):
    script, said = ALL_LEFT[case]
    script = f'outside="{secret}" archive="{flow.place.home}/archive/1.2.3/{TWO}"\n{script}'
    if level == "series":
        attack(flow, script)
    else:
        where = f'series={ONE} folder="$WORKFLOW_DIR/batch/{ONE}" in="$WORKFLOW_DIR/batch/{ONE}/$OPERATOR_IN_DIR"'
        flow.place.image("pool", f'{POOL}\n{where} out="$WORKFLOW_DIR/$OPERATOR_OUT_DIR"\n{script}\n')
    assert not flow.run().success
    name = "bad" if level == "series" else "pool"
    # Tried again one by one, a launch without the series of the attack leaves nothing bad.
    assert state(flow, name) == (([TWO], [ONE]) if level == "series" else ([], ["all"]))
    row = next(row for row in flow.report()["operators"] if row["operator"] == name)
    assert said in row["reason"]
    assert leaked(flow, secret) == []
    assert untouched(secret)


@pytest.mark.parametrize("folder", ["$WORKFLOW_DIR", "$WORKFLOW_DIR/batch", "$RUN/launches"])
def test_operator_that_removes_its_own_folders_fails_only_for_its_series(flow: Platform, folder: str):
    attack(flow, f'rm -r "{folder}"; exit 0')
    assert not flow.run().success
    assert state(flow, "bad") == ([TWO], [ONE])


def test_hard_links_within_a_launch_are_copied(flow: Platform):
    attack(flow, 'cp -l "$in/all.bin" "$out/input.bin"; mkdir "$out/a"; ln "$out/all.bin" "$out/a/own.bin"')
    assert flow.run().success
    entry = flow.place.shelf.entry("my-chain", "bad", ONE)
    names = ("all.bin", "input.bin", "a/own.bin")
    assert len({(entry / name).read_bytes() for name in names}) == 1
    assert [(entry / name).stat().st_nlink for name in names] == [1, 1, 1]


OVER_LIMIT = LARGE | {
    "deep": LEFT["deep"],
    "deep-set": ('mkdir -p "$out/a/b/c/d/e/f/g/h/i/j"', "deeper than 9"),
}


@pytest.mark.parametrize(("case", "level"), [*((case, "series") for case in OVER_LIMIT), ("deep", "cohort")])
def test_output_over_a_limit_fails_only_its_series(
    flow: Platform, monkeypatch: pytest.MonkeyPatch, case: str, level: str
):
    script, said = OVER_LIMIT[case]
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    if case == "deep-set":
        monkeypatch.setenv("KAAPANA_OUTPUT_DEPTH", "9")
    if level == "series":
        attack(flow, script)
    else:
        flow.place.image("pool", f'{POOL}\nout="$WORKFLOW_DIR/$OPERATOR_OUT_DIR"\n{script}\n')
    assert not flow.run().success
    name = "bad" if level == "series" else "pool"
    assert state(flow, name) == (([TWO], [ONE]) if level == "series" else ([], ["all"]))
    row = next(row for row in flow.report()["operators"] if row["operator"] == name)
    assert said in row["reason"]
    cleaned = CliRunner().invoke(cli, ["clean", "--days", "0"])
    assert (cleaned.exit_code, flow.run_directories()) == (0, [])


OF_THE_SHELF = {
    "a folder with the name of the manifest": ('mkdir "$out/.manifest.json"; : > "$out/.manifest.json/x"', "manifest"),
    "a path that no program can open": (
        'cd "$out"; n=$(printf "d%.0s" $(seq 200)); for i in $(seq 30); do mkdir "$n"; cd "$n"; done; : > x',
        "longer than 2048 bytes",
    ),
}


@pytest.mark.parametrize(("script", "said"), OF_THE_SHELF.values(), ids=OF_THE_SHELF)
def test_output_that_the_shelf_cannot_hold_fails_only_its_series(flow: Platform, script: str, said: str):
    attack(flow, script)
    for _ in range(2):  # what was taken in the first run is looked at in the second
        assert not flow.run().success
        assert state(flow, "bad") == ([TWO], [ONE])
        assert said in flow.report()["failed"][ONE]["reason"]


def test_deep_tree_in_the_temporary_folder_is_removed(flow: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    attack(flow, DEEP.replace("$out", "$TMPDIR"))
    assert flow.run().success
    assert list(temporary.glob("operator-*")) == []


def test_deep_tree_in_a_failed_run_does_not_keep_the_nightly_clean_from_the_next_one(flow: Platform):
    flow.place.image("copy", f'out="$WORKFLOW_DIR/batch/{ONE}"\n{DEEP.replace("990", "1500")}\nexit 1')
    for _ in range(2):
        assert not flow.run().success
    assert len(flow.run_directories()) == 2
    remove_everything(flow)


def test_cleaning_goes_on_past_what_it_cannot_remove_and_says_so(flow: Platform, secret: Path):
    flow.place.image("copy", "exit 1")
    for _ in range(2):
        assert not flow.run().success
    first, _ = sorted(flow.run_directories())
    kept = first / "batch" / "kept"
    kept.mkdir()
    (kept / "x").touch()
    with immovable(kept / "x"):
        cleaned = CliRunner().invoke(cli, ["clean", "--days", "0"])
        assert cleaned.exit_code == 1
        assert f"not removed: {kept / 'x'}" in cleaned.output
        assert flow.run_directories() == [first]
        assert [path.name for path in kept.iterdir()] == ["x"]
        assert not (first / "conf").exists()
    remove_everything(flow)


@contextlib.contextmanager
def immovable(path: Path) -> Iterator[None]:
    made = subprocess.run(["chattr", "+i", path], capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"needs chattr +i: {made.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", path], check=True)


def test_special_bits_survive_nowhere(flow: Platform):
    attack(flow, 'cp /bin/true "$out/tool"; chmod 6755 "$out/tool"')
    flow.place.each("last", 'stat -c %a "$WORKFLOW_DIR/$BATCH_NAME/$series/bad"/* > "$out/modes"')
    flow.place.image("pool", "exit 1")
    assert not flow.run().success
    assert state(flow, "last") == ([ONE, TWO], [])
    modes = (flow.place.shelf.entry("my-chain", "last", ONE) / "modes").read_text().split()
    assert set(modes) == {"644"}
    special = [path for path in flow.place.home.rglob("*") if path.is_file() and path.lstat().st_mode & 0o6000]
    assert special == []


def test_run_that_an_earlier_version_began_goes_on(flow: Platform):
    mended = flow.place.home / "mended"
    flow.place.each("bad", f'test "$series" != {ONE} -o -e "{mended}" && cat "$in"/* > "$out/all.bin"')
    first = flow.run()
    assert not first.success
    (directory,) = flow.run_directories()
    records = flow.place.home / "workflows" / "data" / ".runs" / ".records"
    assert json.loads((directory / "conf" / "conf.json").read_text())["cohort"] == "all"
    subprocess.run(["rm", "-r", records], check=True)
    mended.touch()
    started = len(flow.place.starts())
    assert rerun(flow, first.run_id).success
    assert ["bad", ONE] in flow.place.starts()[started:]
    assert "copy" not in {start[0] for start in flow.place.starts()[started:]}
    assert flow.report()["failed"] == {}
    assert flow.run_directories() == []


def test_directory_of_an_earlier_version_is_cleaned(flow: Platform):
    flow.place.image("copy", "exit 1")
    assert not flow.run().success
    subprocess.run(["rm", "-r", flow.place.home / "workflows" / "data" / ".runs" / ".records"], check=True)
    remove_everything(flow)


@pytest.fixture
def swapping(tmp_path: Path, secret: Path) -> Iterator[Path]:
    """The directory of a run in which a link and a folder change places all the time."""
    directories = RunDirectories(tmp_path / "data")
    run = directories.create("my-flow", "r1", datetime.now(timezone.utc))
    output = run.series_dir("1.2", "out")
    (output / "sub").mkdir(parents=True)
    (output / "sub" / "all.bin").write_bytes(b"good")
    aside = tmp_path / "aside"
    aside.symlink_to(secret)
    ended = threading.Event()

    def swap() -> None:
        sub, other = output / "sub", tmp_path / "folder"
        while not ended.is_set():
            with contextlib.suppress(OSError):
                sub.rename(other)
                aside.rename(sub)
                sub.rename(aside)
                other.rename(sub)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield output
    finally:
        ended.set()
        thread.join()


def test_link_that_is_swapped_in_while_the_platform_walks_is_not_followed(swapping: Path, secret: Path, tmp_path: Path):
    shelf = Shelf(tmp_path / "assets")
    origin = Origin(workflow="w", operator="o", run="r", dagster_run_id="d", created="now")
    for _ in range(300):
        with contextlib.suppress(StoreUnavailable):
            shelf.publish(origin, {"1.2": (swapping, "f")})
        found = [path.read_bytes() for path in shelf.entry("w", "o", "1.2").glob("**/all.bin")]
        assert SECRET not in found
    assert untouched(secret)
