"""Homes and files of settings in and below folders where other users may write, as a person types commands there."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kaapana_assets.home import make_home
from kaapana_assets.settings.user_ids import NOBODY_UID

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
SETTINGS = "KAAPANA_WEBSERVER_PORT=no-number\n"  # whoever takes them says so
TAKEN = "KAAPANA_WEBSERVER_PORT"


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A folder where every user may make files, and remove their own only, as the system's temporary folder."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    return folder


def kaapana(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("KAAPANA_", "DAGSTER_"))}
    return subprocess.run(
        [sys.executable, "-m", "kaapana_assets", *arguments],
        cwd=folder,
        env=clean | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def plant(path: Path, text: str = SETTINGS) -> None:
    path.write_text(text)
    os.chown(path, NOBODY_UID, NOBODY_UID)


@as_root
@pytest.mark.parametrize("below", ["", "work"])
def test_settings_that_another_user_put_into_a_shared_folder_are_refused(shared: Path, below: str) -> None:
    plant(shared / ".env")
    (shared / below).mkdir(exist_ok=True)
    done = kaapana(shared / below, "cohort", "list")
    assert done.returncode == 2
    assert "belongs to another user" in done.stderr
    assert TAKEN not in done.stderr


@as_root
def test_settings_of_another_user_are_refused_also_where_the_home_is_named(shared: Path, tmp_path: Path) -> None:
    make_home(tmp_path / "home")
    plant(shared / ".env")
    done = kaapana(shared, "cohort", "list", KAAPANA_HOME=str(tmp_path / "home"))
    assert done.returncode == 2
    assert "belongs to another user" in done.stderr
    assert kaapana(tmp_path, "cohort", "list", KAAPANA_HOME=str(tmp_path / "home")).returncode == 0


@as_root
def test_workflow_files_of_a_home_that_another_user_put_into_a_shared_folder_are_not_executed(shared: Path) -> None:
    dags = shared / "kaapana-home" / "workflows" / "dags"
    dags.mkdir(parents=True)
    (dags / "evil.py").write_text(f"open({str(shared / 'executed')!r}, 'w')\n")
    for path in (shared / "kaapana-home", *(shared / "kaapana-home").rglob("*")):
        os.chown(path, NOBODY_UID, NOBODY_UID)
    done = kaapana(shared, "workflows")
    assert done.returncode == 2
    assert "belongs to another user" in done.stderr
    assert not (shared / "executed").exists()


@as_root
def test_folder_of_another_user_is_worked_in_by_who_goes_there(tmp_path: Path) -> None:
    """As with ``sudo``, or in a container that has the folder from its host."""
    plant(tmp_path / ".env")
    os.chown(tmp_path, NOBODY_UID, NOBODY_UID)
    assert TAKEN in kaapana(tmp_path, "cohort", "list").stderr


@pytest.mark.parametrize(("mode", "refused"), [(0o666, True), (0o602, True), (0o664, False), (0o644, False)])
@pytest.mark.parametrize("below", ["", "work"])
def test_settings_that_others_may_change_are_refused(tmp_path: Path, below: str, mode: int, refused: bool) -> None:
    (tmp_path / ".env").write_text(SETTINGS)
    (tmp_path / ".env").chmod(mode)
    (tmp_path / below).mkdir(exist_ok=True)
    done = kaapana(tmp_path / below, "cohort", "list")
    assert done.returncode == 2
    assert (TAKEN in done.stderr) == (not refused)
    for line in re.findall(r"^\s*(chmod .*)$", done.stderr, re.M):
        subprocess.run(["sh", "-c", line], check=True)
    assert TAKEN in kaapana(tmp_path / below, "cohort", "list").stderr


@as_root
def test_settings_that_a_group_of_several_may_change_are_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(SETTINGS)
    os.chown(tmp_path / ".env", -1, 54321)
    (tmp_path / ".env").chmod(0o664)
    assert TAKEN not in kaapana(tmp_path, "cohort", "list").stderr


@pytest.mark.parametrize("kind", ["pipe", "endless", "large", "folder"])
@pytest.mark.parametrize("below", ["", "work"])
def test_what_is_no_file_of_settings_holds_up_nobody(shared: Path, below: str, kind: str) -> None:
    (shared / below).mkdir(exist_ok=True)
    match kind:
        case "pipe":
            os.mkfifo(shared / ".env")
        case "endless":
            (shared / ".env").symlink_to("/dev/zero")
        case "large":
            with (shared / ".env").open("wb") as file:
                file.truncate(1 << 40)
        case _:
            (shared / ".env").mkdir()
    done = kaapana(shared / below, "cohort", "list")
    assert done.returncode == 2
    assert "no home" in done.stderr


@pytest.mark.parametrize("command", ["import", "cohort list", "workflows", "clean"])
@pytest.mark.parametrize("through", ["itself", "link"])
def test_home_that_others_may_put_aside_is_refused_with_the_command_that_ends_it(
    tmp_path: Path, command: str, through: str
) -> None:
    """Who may rename a folder above it can have the platform write into one of his own."""
    where = tmp_path / "a" / "b"
    where.mkdir(parents=True)
    named = where / "home"
    if through == "link":
        (tmp_path / "elsewhere").mkdir()
        named.symlink_to(tmp_path / "elsewhere")
    make_home(named)
    where.parent.chmod(0o777)
    words = [*command.split(), *([str(where)] if command == "import" else [])]
    done = kaapana(tmp_path, *words, KAAPANA_HOME=str(named))
    assert done.returncode == 2, done.stdout
    (line,) = re.findall(r"^\s*(chmod o-w .*)$", done.stderr, re.M)
    subprocess.run(["sh", "-c", line], check=True)
    assert kaapana(tmp_path, *words, KAAPANA_HOME=str(named)).returncode == 0
    where.parent.chmod(0o1777)
    assert kaapana(tmp_path, *words, KAAPANA_HOME=str(named)).returncode == 0
