"""A home is found from anywhere below it, never made by who only reads, and never taken from another user."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kaapana_assets.errors import ConfigurationError, NotFound
from kaapana_assets.home import MARKER, NAME, check_home, find_site, is_home, make_home
from kaapana_assets.settings import load_settings


@pytest.fixture
def project(monkeypatch, tmp_path) -> Path:
    """An empty folder to work in, without settings of the machine."""
    for name in list(os.environ):
        if name.startswith("KAAPANA_"):
            monkeypatch.delenv(name)
    folder = tmp_path / "project"
    (folder / "deep" / "below").mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


def kaapana(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kaapana_assets", *arguments],
        cwd=folder,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_home_is_the_same_from_every_folder_below(project, monkeypatch):
    make_home(project / NAME)
    for folder in (project, project / "deep", project / "deep" / "below", project / NAME):
        monkeypatch.chdir(folder)
        assert load_settings().home == project / NAME


def test_nearest_home_counts_and_the_variable_before_it(project, monkeypatch, tmp_path):
    make_home(project / NAME)
    make_home(project / "deep" / NAME)
    monkeypatch.chdir(project / "deep" / "below")
    assert load_settings().home == project / "deep" / NAME
    monkeypatch.setenv("KAAPANA_HOME", str(tmp_path / "named"))
    assert load_settings().home == tmp_path / "named"


@pytest.mark.parametrize(
    "left", ["platform.lock", "index.sqlite", "images.json", "incoming", "archive", "cohorts", "workflows"]
)
def test_home_of_an_earlier_version_is_one(project, left):
    (project / NAME / left).mkdir(parents=True)
    assert find_site(project / "deep").folder == project


def test_folder_that_only_has_the_name_is_no_home(project):
    (project / NAME).mkdir()
    assert not is_home(project / NAME)
    assert find_site(project / "deep").folder == project / "deep"


def test_settings_file_beside_the_home_counts_from_below_and_paths_begin_there(project, monkeypatch):
    make_home(project / NAME)
    (project / ".env").write_text("KAAPANA_IMAGES=my-images\nKAAPANA_SERIES_QUIET_S=7\n")
    monkeypatch.chdir(project / "deep" / "below")
    settings = load_settings()
    assert (settings.images, settings.series_quiet_s) == (project / "my-images", 7)
    monkeypatch.setenv("KAAPANA_ENVIRONMENTS", "cache")
    assert load_settings().environments == project / "cache"


def test_settings_file_of_another_program_is_none_of_ours(project, monkeypatch):
    make_home(project / NAME)
    (project / "deep" / ".env").write_text("OTHER=1\n")
    monkeypatch.chdir(project / "deep")
    assert load_settings().home == project / NAME


def test_settings_file_may_name_the_home_from_below(project, monkeypatch, tmp_path):
    make_home(tmp_path / "data")
    (project / ".env").write_text(f"KAAPANA_HOME={tmp_path / 'data'}\n")
    monkeypatch.chdir(project / "deep")
    assert load_settings().home == tmp_path / "data"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
@pytest.mark.parametrize("what", ["home", "settings"])
def test_what_belongs_to_another_user_is_not_taken_from_a_folder_above(project, what):
    taken = project / NAME if what == "home" else project / ".env"
    if what == "home":
        make_home(taken)
    else:
        taken.write_text("KAAPANA_RUNNER=docker\n")
    os.chown(taken, 12345, 12345)
    with pytest.raises(ConfigurationError, match="belongs to another user"):
        find_site(project / "deep")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
@pytest.mark.parametrize("what", [NAME, ".env"])
def test_link_of_another_user_is_not_taken_from_a_folder_above_though_it_leads_to_own_files(project, tmp_path, what):
    own = tmp_path / "own"
    if what == NAME:
        make_home(own)
    else:
        own.write_text("KAAPANA_RUNNER=docker\n")
    (project / what).symlink_to(own)
    assert find_site(project / "deep").folder == project
    os.chown(project / what, 12345, 12345, follow_symlinks=False)
    with pytest.raises(ConfigurationError, match="belongs to another user"):
        find_site(project / "deep")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give folders to another user")
def test_home_that_another_user_owns_is_refused_until_it_is_given_to_the_platform(project):
    home = project / NAME
    home.mkdir(mode=0o700)
    os.chown(home, 12345, 12345)
    command = ("import", str(project / "deep"))
    refused = kaapana(project, *command)
    assert (refused.returncode, "chown -R 0" in refused.stderr, "Traceback" in refused.stderr) == (2, True, False)
    assert list(home.iterdir()) == []
    os.chown(home, 0, 0)
    assert kaapana(project, *command).returncode == 0


READING = [
    ("status",),
    ("query",),
    ("workflows",),
    ("run", "dcm2nrrd", "--cohort", "all"),
    ("cohort", "list"),
    ("cohort", "show", "all"),
    ("clean",),
    ("health", "--port", "0"),
    ("images", "list"),
    ("index", "rebuild"),
    ("down",),
]


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_command_that_reads_makes_no_home_and_says_where_it_looked(project, command):
    done = kaapana(project / "deep", *command)
    assert done.returncode == 2
    assert f"no home: {project / 'deep' / NAME} is not there" in done.stderr
    assert "KAAPANA_HOME" in done.stderr
    assert "Traceback" not in done.stderr
    assert list((project / "deep").iterdir()) == [project / "deep" / "below"]


def test_command_that_reads_says_which_home_it_read(project):
    make_home(project / NAME)
    for command in (("query",), ("cohort", "list"), ("clean",)):
        done = kaapana(project / "deep", *command)
        assert done.returncode == 0, done.stderr
        assert f"home {project / NAME}" in done.stderr


def test_command_that_writes_makes_the_home_that_others_then_find(project):
    (project / "files").mkdir()
    assert kaapana(project, "import", "files").returncode == 0
    assert (project / NAME / MARKER).exists()
    assert kaapana(project / "deep", "query").stdout == "0 series\n"
    kaapana(project / "deep", "import", str(project / "files"))
    assert not (project / "deep" / NAME).exists()


def test_empty_folder_that_is_named_is_not_taken_for_a_home(project, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFound, match="is no home of a platform"):
        check_home(tmp_path / "empty")
