"""A run directory given to another user, on a real file system."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from kaapana_assets.containers.ownership import hand_over

UID = 1000
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders away")


def as_operator(script: str, folder: Path) -> int:
    """Exit code of a shell script, run by the operators' user in a folder that it could not reach otherwise."""
    command = ["sh", "-c", script]
    return subprocess.run(command, cwd=folder, user=UID, group=UID, extra_groups=[], check=False).returncode


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = tmp_path / "run"
    for folder in ("batch/1.2/initial-input", "conf/results", "launches/view/batch"):
        (run / folder).mkdir(parents=True)
        (run / folder).chmod(0o700)
    for folder in ("batch/1.2", "batch", "conf", "launches"):
        (run / folder).chmod(0o700)
    (run / "conf" / "conf.json").write_text("{}")
    (run / "conf" / "conf.json").chmod(0o600)
    (run / "batch" / "1.2" / "initial-input" / "1.dcm").write_text("x")
    (run / "batch" / "1.2" / "initial-input" / "1.dcm").chmod(0o444)
    return run


@as_root
def test_an_operator_can_make_and_remove_what_is_in_its_folders(run: Path) -> None:
    hand_over(run, UID)
    for script in (
        "mkdir made && rm -r made",
        "mkdir batch/1.2/made && touch batch/1.2/made/x",
        "rm batch/1.2/initial-input/1.dcm",
        "mv batch/1.2/made batch/1.2/other",
    ):
        assert as_operator(script, run) == 0, script


@as_root
def test_files_stay_the_platforms(run: Path) -> None:
    hand_over(run, UID)
    assert as_operator("cat batch/1.2/initial-input/1.dcm && cat conf/conf.json", run) == 0
    for script in ("echo y > batch/1.2/initial-input/1.dcm", "chmod 666 batch/1.2/initial-input/1.dcm"):
        assert as_operator(f"{script} 2>/dev/null", run) != 0, script


@as_root
@pytest.mark.parametrize("script", ["mv conf other", "rm -r conf", "touch conf/results/x", "rm conf/conf.json"])
def test_what_the_platform_wrote_down_cannot_be_replaced(run: Path, script: str) -> None:
    hand_over(run, UID)
    assert as_operator(f"{script} 2>/dev/null", run) != 0


@as_root
def test_links_are_not_followed(run: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "below").mkdir(parents=True)
    (run / "batch" / "1.2" / "link").symlink_to(outside)
    (run / "out").symlink_to(outside / "below")
    (run / "conf" / "link").symlink_to(outside)
    before = [(each.stat().st_uid, each.stat().st_mode) for each in (outside, outside / "below")]
    hand_over(run, UID)
    assert [(each.stat().st_uid, each.stat().st_mode) for each in (outside, outside / "below")] == before


@as_root
def test_it_may_be_done_again(run: Path) -> None:
    hand_over(run, UID)
    assert as_operator("mkdir batch/1.2/made && chmod 700 batch/1.2/made", run) == 0
    hand_over(run, UID)
    assert as_operator("touch batch/1.2/made/x", run) == 0


def test_nothing_is_done_for_our_own_user(run: Path) -> None:
    before = stat.S_IMODE((run / "batch").stat().st_mode)
    hand_over(run, os.geteuid())
    assert stat.S_IMODE((run / "batch").stat().st_mode) == before
