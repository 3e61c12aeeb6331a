"""Run directories are laid out as operators of Kaapana know them, found by their run, and cleaned."""

import os
import threading
from datetime import datetime, timezone
from pathlib import Path

import pytest

from kaapana_assets.errors import InvalidIdentifier, NotFound, TemporaryError
from kaapana_assets.stores.files.run_directory import RunDirectories, RunDirectory

NOW = datetime(2026, 3, 4, 5, 6, 7, 89, tzinfo=timezone.utc)


@pytest.fixture
def directories(tmp_path: Path) -> RunDirectories:
    return RunDirectories(tmp_path / "data")


def begun(directories: RunDirectories, run: str = "r1") -> RunDirectory:
    directory = directories.create("my-flow", run, NOW)
    directory.write_conf({"asked": "this"})
    return directory


def test_name_is_workflow_and_time(directories: RunDirectories) -> None:
    assert begun(directories).name == "my-flow-260304050607000089"


def test_two_runs_of_one_moment_have_their_own(directories: RunDirectories) -> None:
    assert begun(directories, "r1").path != begun(directories, "r2").path


def test_directory_is_found_by_its_run(directories: RunDirectories) -> None:
    directory = begun(directories)
    assert directories.find("r1") == directory
    assert directories.find("r1").conf() == {"asked": "this"}


@pytest.mark.parametrize("run", ["r2", "r1"], ids=["never-made", "cleaned"])
def test_run_without_a_directory_is_not_found(directories: RunDirectories, run: str) -> None:
    directory = begun(directories)
    directories.remove(directory)
    with pytest.raises(NotFound):
        directories.find(run)


@pytest.mark.parametrize("uid", ["../x", "a", "", "1." * 40])
def test_series_that_is_no_uid_gets_no_folder(directories: RunDirectories, uid: str) -> None:
    with pytest.raises(InvalidIdentifier):
        begun(directories).series_dir(uid, "out")


@pytest.mark.parametrize("run", ["../x", "a/b", ""])
def test_run_id_that_leads_elsewhere_is_refused(directories: RunDirectories, run: str) -> None:
    with pytest.raises(InvalidIdentifier):
        directories.create("flow", run, NOW)


def test_directory_of_a_series_has_its_own_batch_and_the_same_conf(directories: RunDirectories) -> None:
    directory = begun(directories)
    single = directory.for_series("1.2.3")
    assert single.name == f"{directory.name}-1.2.3"
    assert single.conf() == {"asked": "this"}
    assert list(single.batch.iterdir()) == []
    assert directory.for_series("1.2.3") == single


def test_results_of_operators_are_kept_until_the_directory_is_removed(directories: RunDirectories) -> None:
    directory = begun(directories)
    directory.write_result("op", {"done": 1})
    assert directories.find("r1").result("op") == {"done": 1}
    with pytest.raises(NotFound):
        directory.result("other")


def test_folder_on_another_disk_is_reached_by_a_link(tmp_path: Path) -> None:
    (tmp_path / "other-disk").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "other-disk")
    directories = RunDirectories(tmp_path / "data")
    directory = begun(directories)
    with directory.opened("batch", "1.2.3", "made", make=True) as folder:
        folder.write("x", b"x")
    assert directories.find("r1").for_series("1.2.3").conf() == {"asked": "this"}
    assert directories.remove(directory) == []
    assert list((tmp_path / "other-disk").glob("my-flow-*")) == []


def test_removing_a_run_removes_its_single_series_and_no_other_run(directories: RunDirectories) -> None:
    first, second = begun(directories, "r1"), begun(directories, "r2")
    first.for_series("1.2.3")
    directories.remove(first)
    assert [path for path in directories.folder.iterdir() if path.name != ".runs"] == [second.path]
    assert directories.find("r2") == second


def test_runs_that_end_at_once_do_not_disturb_each_other(directories: RunDirectories) -> None:
    runs = [begun(directories, f"r{number}") for number in range(30)]
    problems: list[Exception] = []

    def remove(directory: RunDirectory) -> None:
        try:
            directories.remove(directory)
        except OSError as exc:
            problems.append(exc)

    threads = [threading.Thread(target=remove, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert [path.name for path in directories.folder.iterdir()] == [".runs"]


def test_only_directories_that_nothing_was_written_to_for_so_long_are_old(directories: RunDirectories) -> None:
    old, new = begun(directories, "r1"), begun(directories, "r2")
    old.for_series("1.2.3")
    for folder in (old.path, old.batch, old.path / "conf", old.path / "conf" / "results"):
        os.utime(folder, (1, 1))
    assert directories.older_than(7) == [old]
    assert new not in directories.older_than(7)


def test_directory_is_used_by_one_run_at_a_time_and_by_all_its_processes(directories: RunDirectories) -> None:
    directory = begun(directories)
    with directories.used(directory, "r1"), directories.used(directory, "r1"):
        with pytest.raises(TemporaryError, match="run r1 works in"), directories.used(directory, "again"):
            pass
        with directories.used(begun(directories, "r2"), "r2"):
            pass
    with directories.used(directory, "again"):
        pass


def test_directory_that_is_used_is_not_old(directories: RunDirectories) -> None:
    directory = begun(directories)
    with directories.used(directory, "r1"):
        assert directories.older_than(0) == []
    assert directories.older_than(0) == [directory]


def test_run_that_ends_removes_its_mark(directories: RunDirectories) -> None:
    directory = begun(directories)
    with directories.used(directory, "r1"):
        directories.remove(directory)
    assert list((directories.folder / ".runs").iterdir()) == []


def test_view_is_an_empty_directory_with_the_same_conf(directories: RunDirectories) -> None:
    directory = begun(directories)
    view = directory.empty_view("op-1")
    assert view.path.is_relative_to(directory.path)
    assert (list(view.batch.iterdir()), view.conf()) == ([], {"asked": "this"})
