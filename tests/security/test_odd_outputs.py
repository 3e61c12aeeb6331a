"""Outputs with odd modes, flags, names and numbers: each costs its own series, the others are done.

The platform is an ordinary user's where modes matter: root may do all.
"""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner
from security.ordinary_user import ordinary_user
from security.test_hostile_operators import ONE, TWO, attack, flow, state  # noqa: F401 - a fixture
from workflows.conftest import environments, place, platform  # noqa: F401 - fixtures
from workflows.platform import POOL, Platform

from kaapana_assets.cli import cli
from kaapana_assets.untrusted import opened


@pytest.fixture
def user() -> Iterator[None]:
    with ordinary_user():
        yield


# What is done to the output of one series, and what is said of it; "" where it is taken.
MODES = {
    "output without w": ('chmod 555 "$out"', ""),
    "series without w": ('chmod 555 "$folder"', ""),
    "batch without w": ('chmod 555 "$WORKFLOW_DIR/batch"', ""),
    "view without w": ('chmod 555 "$WORKFLOW_DIR"', ""),
    "folder without w": ('mkdir "$out/a"; : > "$out/a/x"; chmod 555 "$out/a"', ""),
    "links without w": ('mkdir "$out/a"; ln "$out/all.bin" "$out/a/x"; chmod 555 "$out/a" "$out"', ""),
    "output without all": ('chmod 000 "$out"', "bad cannot be read"),
    "output without r": ('chmod 333 "$out"', "bad cannot be read"),
    "output without x": ('chmod 600 "$out"', "cannot be read"),
    "folder without all": ('mkdir "$out/a"; chmod 000 "$out/a"', "a cannot be read"),
    "file without r": ('chmod 000 "$out/all.bin"', "all.bin cannot be read"),
    "series without all": ('chmod 000 "$folder"', "cannot be read"),
    "view without all": ('chmod 000 "$WORKFLOW_DIR"', "cannot be read"),
    "input without all": ('chmod 000 "$in"', "cannot be read"),
}


@pytest.mark.parametrize("case", MODES)
def test_modes_of_an_output_cost_at_most_its_series(flow: Platform, user: None, case: str):  # noqa: F811
    script, said = MODES[case]
    attack(flow, script)
    assert flow.run().success == (not said)
    assert state(flow, "bad") == (([TWO], [ONE]) if said else ([ONE, TWO], []))
    assert said in flow.report()["failed"].get(ONE, {"reason": ""})["reason"]
    assert_cleaned(flow)


@pytest.mark.parametrize("flag", ["i", "a"])
@pytest.mark.parametrize("level", ["series", "cohort"])
def test_output_that_nobody_may_move_costs_at_most_its_series(flow: Platform, flag: str, level: str):  # noqa: F811
    if subprocess.run(["chattr", f"+{flag}", flow.place.home], capture_output=True, check=False).returncode:
        pytest.skip("needs a file system with the flags of chattr, and root")
    subprocess.run(["chattr", f"-{flag}", flow.place.home], check=True)
    if level == "series":
        attack(flow, f'chattr +{flag} "$out"')
    else:
        flow.place.image("pool", f'{POOL}\nchattr +{flag} "$WORKFLOW_DIR/$OPERATOR_OUT_DIR"\n')
    try:
        assert not flow.run().success
        name = "bad" if level == "series" else "pool"
        assert state(flow, name) == (([TWO], [ONE]) if level == "series" else ([], ["all"]))
        assert "Operation not permitted" in next(iter(flow.report()["failed"].values()), flow.report())["reason"]
    finally:
        subprocess.run(["chattr", "-R", f"-{flag}", flow.place.home], check=True, capture_output=True)


def assert_cleaned(platform: Platform) -> None:  # noqa: F811
    cleaned = CliRunner().invoke(cli, ["clean", "--days", "0"])
    assert (cleaned.exit_code, platform.run_directories()) == (0, []), cleaned.output


@pytest.mark.parametrize("where", ["$RUN", "$RUN/conf", "$RUN/batch", "$RUN/launches"])
@pytest.mark.parametrize("mode", ["000", "555"])
def test_folders_of_a_run_without_rights_keep_nobody_from_cleaning(
    flow: Platform,  # noqa: F811
    user: None,
    where: str,
    mode: str,
):
    attack(flow, f'chmod {mode} "{where}"; exit 1')
    assert not flow.run().success
    flow.place.each("bad", "exit 1")
    assert not flow.run().success
    assert len(flow.run_directories()) == 2
    assert_cleaned(flow)


def test_read_only_folders_deep_in_a_tree_are_removed(user: None, tmp_path: Path):
    deep = tmp_path.joinpath("tree", *["d"] * 100)
    deep.mkdir(parents=True)
    (deep / "x").touch()
    for folder in (deep, *deep.parents):
        if folder == tmp_path:
            break
        folder.chmod(0o555)
    with opened(tmp_path) as folder:
        assert folder.remove("tree") == []
    assert not (tmp_path / "tree").exists()


LONG = (
    'n=$(printf "d%.0s" $(seq 250)); for i in $(seq 7); do mkdir $n; cd $n; done; for i in $(seq 700); do : > $i; done'
)
NUMBERS = {
    "long paths": (f'cd "$out"; {LONG}', "characters"),
    "beside the output": (
        'mkdir "$folder/a"; cd "$folder/a"; for i in $(seq 1010); do : > $i; done',
        "more than 1000 files",
    ),
    "in the view": (
        'mkdir "$WORKFLOW_DIR/a"; cd "$WORKFLOW_DIR/a"; for i in $(seq 1010); do : > $i; done',
        "1000 files",
    ),
    "below batch": ('mkdir -p "$folder/../a"; cd "$folder/../a"; for i in $(seq 1010); do : > $i; done', "1000 files"),
}


@pytest.mark.parametrize("case", NUMBERS)
def test_names_that_fill_the_memory_cost_their_series(
    flow: Platform,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    case: str,
):
    monkeypatch.setenv("KAAPANA_OUTPUT_FILES", "1000")
    script, said = NUMBERS[case]
    attack(flow, script)
    assert not flow.run().success
    assert state(flow, "bad") == ([TWO], [ONE])
    assert said in flow.report()["failed"][ONE]["reason"]


NAMES = {
    "invalid UTF-8": r"\377\376",
    "a line feed": r"a\n  error: b",
    "a terminal's escapes": r"\033[31m\033]0;x\007",
    "writing turned round": r"\342\200\256fed",
    "all of 255 bytes": "d" * 255,
    "of the platform": ".0123456789abcdef.partial",
    "of a removal": ".deep-0123456789abcdef",
    "a dash": "-rf",
    "three dots": "...",
    "a backslash": r"a\\..\\b",
    "a record's": "conf.json",
    "capitals": "ALL.BIN",
}


@pytest.mark.parametrize("case", NAMES)
def test_odd_names_are_kept_on_the_shelf(flow: Platform, case: str):  # noqa: F811
    attack(
        flow, f'name=$(printf -- "{NAMES[case]}"); : > "$out/$name"; mkdir "$out/d"; ln "$out/all.bin" "$out/d/$name"'
    )
    flow.run()
    assert state(flow, "bad") == ([ONE, TWO], [])
    assert len(list(flow.place.shelf.fetch("my-chain", "bad", ONE, flow.place.home / "there").files)) == 3


def said_by(platform: Platform, run_id: str) -> list[str]:  # noqa: F811
    """What Dagster has of a run."""
    return [record.user_message for record in platform.instance.all_logs(run_id)]


@pytest.mark.parametrize("case", ["invalid UTF-8", "a terminal's escapes", "writing turned round"])
def test_odd_names_in_refusals_can_be_shown_everywhere(flow: Platform, case: str):  # noqa: F811
    attack(flow, f'ln -s x "$out/$(printf "{NAMES[case]}")"')
    result = flow.run()
    assert state(flow, "bad") == ([TWO], [ONE])
    assert_shown([*said_by(flow, result.run_id), flow.report()["failed"][ONE]["reason"]])


def assert_shown(texts: list[str]) -> None:
    for text in texts:
        assert text.replace("\n", "").replace("\t", "").isprintable(), text


@pytest.mark.parametrize("case", ["invalid UTF-8", "a terminal's escapes"])
def test_odd_names_of_what_cannot_be_removed_can_be_shown_everywhere(flow: Platform, case: str):  # noqa: F811
    attack(flow, f'name="$folder/$(printf "{NAMES[case]}")"; : > "$name"; chattr +i "$name" || exit 77')
    try:
        result = flow.run()
        if any("exit code 77" in said for said in said_by(flow, result.run_id)):
            pytest.skip("needs a file system with the flags of chattr, and root")
        warned = [said for said in said_by(flow, result.run_id) if "not removed" in said]
        assert warned
        assert_shown(warned)
    finally:
        subprocess.run(["chattr", "-R", "-i", flow.place.home], check=False, capture_output=True)


MARKUP = {
    "picture": "![x](http://192.0.2.1/?patient)",
    "HTML": "<img src=http://192.0.2.1/?patient>",
    "link": "[here](http://192.0.2.1/)",
    "reference": "![x][a] [a]: http://192.0.2.1/",
    "row": "a | b | c",
    "escaped": r"\![x](http://192.0.2.1/)\\",
}


@pytest.mark.parametrize("said", MARKUP.values(), ids=MARKUP)
def test_what_an_operator_says_is_no_markup_in_the_web_ui(flow: Platform, said: str):  # noqa: F811
    attack(flow, f"cat << 'END'\nError: {said}\nEND\nexit 1")
    flow.run()
    event = flow.instance.get_latest_materialization_event(dg.AssetKey(["my_chain", "report"]))
    table = event.asset_materialization.metadata["operators"].value
    (row,) = [line for line in table.splitlines() if line.startswith("| bad |")]
    bare = re.sub(r"\\.", "", row)  # what is escaped is text
    assert not set(bare) & set("[]<>`*_")
    assert bare.count("|") == table.splitlines()[0].count("|")
