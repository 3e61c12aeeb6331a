"""Outputs with odd modes, flags, names and numbers: each costs its own series, the others are done.

The platform is an ordinary user's where modes matter: root may do all.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path

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
