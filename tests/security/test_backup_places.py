"""Backups and restores by somebody in a hurry: wrong folders, wrong clocks, two at once, files with holes."""

import json
import subprocess
import time
from datetime import datetime, timezone
from pathlib import Path

import pytest
from backups.homes import UP, argv, environment, fill, kaapana

from kaapana_assets.backups.backup_folder import open_to_read, open_to_write
from kaapana_assets.backups.folders import names_in, opened, walk
from kaapana_assets.backups.names import next_name
from kaapana_assets.backups.restoring import Restore
from kaapana_assets.backups.taking import Backup
from kaapana_assets.errors import StoreUnavailable
from kaapana_assets.settings import load_settings
from kaapana_assets.stores.forgotten import ForgottenRecords
from kaapana_assets.stores.pacs.folder import FolderPacs

HOLES = 1 << 40


@pytest.fixture
def home(tmp_path: Path) -> Path:
    fill(tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture
def backup(home: Path, tmp_path: Path) -> Path:
    done = kaapana(home, "backup", tmp_path / "backup")
    assert done.returncode == 0, done.stderr
    return tmp_path / "backup"


def take(home: Path, folder: Path, advance=lambda _: None):
    with open_to_write(folder) as opened:
        backup = Backup(load_settings(home=home, min_free_bytes=0), opened)
        backup.sizes()
        return backup.run(advance)


def restore(folder: Path, home: Path, advance=lambda _: None) -> None:
    with open_to_read(folder) as opened:
        Restore(opened, home).run(advance)


def all_of(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def test_backup_that_is_refused_in_a_home_leaves_nothing_there(home: Path) -> None:
    before = all_of(home)
    for where in (home / "backup", home / "archive" / "a" / "b", home):
        done = kaapana(home, "backup", where)
        assert done.returncode == 2
        assert "may not be in the home" in done.stderr
    assert all_of(home) == before


@pytest.mark.parametrize("inside", ["", "backup", "deep/er"])
def test_backup_where_a_link_of_the_home_leads_is_refused(home: Path, tmp_path: Path, inside: str) -> None:
    """It would copy itself, each night twice as much."""
    (home / "objects").rename(tmp_path / "disk")
    (home / "objects").symlink_to(tmp_path / "disk")
    before = all_of(tmp_path / "disk")
    done = kaapana(home, "backup", tmp_path / "disk" / inside)
    assert done.returncode == 2
    assert "may not be in the home" in done.stderr
    assert all_of(tmp_path / "disk") == before


def test_clock_that_was_ahead_costs_no_backup(home: Path, backup: Path, tmp_path: Path) -> None:
    (ahead,) = (backup / "manifests").iterdir()
    ahead.rename(ahead.with_name("20990101T000000.000000Z.jsonl"))
    (home / "cohorts" / "new.json").write_text("{}")
    done = kaapana(home, "backup", backup, "--keep", "1")
    assert done.returncode == 0, done.stderr
    (kept,) = (backup / "manifests").iterdir()
    assert kept.stem in done.stdout
    restore(backup, tmp_path / "new")
    assert (tmp_path / "new" / "cohorts" / "new.json").exists()


def test_backup_that_somebody_named_is_kept_and_is_not_the_newest(home: Path, backup: Path, tmp_path: Path) -> None:
    (first,) = (backup / "manifests").iterdir()
    first.rename(first.with_name("before-the-upgrade.jsonl"))
    (home / "cohorts" / "first.json").write_text('{"later": 1}')
    for _ in range(2):
        assert kaapana(home, "backup", backup, "--keep", "1").returncode == 0
    assert len(list((backup / "manifests").iterdir())) == 2
    assert kaapana(home, "backup", "--verify", backup).returncode == 0
    restore(backup, tmp_path / "new")
    assert (tmp_path / "new" / "cohorts" / "first.json").read_text() == '{"later": 1}'
    done = kaapana(home, "restore", backup, "--into", tmp_path / "old", "--at", "before-the-upgrade")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "old" / "cohorts" / "first.json").read_text() == "{}"


def test_names_are_in_the_order_in_which_backups_were_taken() -> None:
    now = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=timezone.utc)
    first = next_name(now, ["zz", "99999999T999999.000000Z", "2025"])
    assert first == "20260102T030405.000006Z"
    assert next_name(now, [first]) == "20260102T030405.000007Z"
    assert next_name(now, ["20991231T235959.999999Z", first]) == "21000101T000000.000000Z"


@pytest.mark.parametrize("where", ["home/new", "home/archive/new", "backup/files/new"])
def test_restore_into_another_home_or_the_backups_is_refused(home: Path, backup: Path, where: str) -> None:
    before = all_of(home.parent)
    done = kaapana(home, "restore", backup, "--into", home.parent / where)
    assert done.returncode == 2
    assert "name a folder outside of it" in done.stderr
    assert all_of(home.parent) == before


def test_restore_over_a_home_is_refused_while_a_platform_locks_it(home: Path, backup: Path) -> None:
    before = {path: path.read_bytes() for path in all_of(home) if path.is_file()}
    done = kaapana(home, "restore", backup, "--into", home)
    assert done.returncode == 2
    assert "a restore replaces nothing" in done.stderr
    assert {path: path.read_bytes() for path in all_of(home) if path.is_file()} == before


def test_second_restore_into_a_folder_is_refused_while_the_first_goes_on(backup: Path, tmp_path: Path) -> None:
    new, said = tmp_path / "new", []

    def ask(_: int) -> None:
        if not said:
            said.append(kaapana(tmp_path / "home", "restore", backup, "--into", new))

    restore(backup, new, ask)
    assert said[0].returncode == 2
    assert "another process restores" in said[0].stderr
    assert not (new / ".restoring").exists()
    assert FolderPacs(new / "archive").series_uids() == [UP]
    done = kaapana(tmp_path / "home", "restore", backup, "--into", new)
    assert "is not empty" in done.stderr
    assert not (new / ".restoring").exists()


def test_file_with_holes_takes_no_more_in_backup_and_restored_home(home: Path, tmp_path: Path) -> None:
    sparse = home / "objects" / "bucket" / "sparse.bin"
    with sparse.open("wb") as file:
        file.write(b"begin")
        file.seek(40 << 20)
        file.write(b"middle")
        file.truncate(64 << 20)
    take(home, tmp_path / "backup")
    restore(tmp_path / "backup", tmp_path / "new")
    restored = tmp_path / "new" / "objects" / "bucket" / "sparse.bin"
    assert restored.read_bytes() == sparse.read_bytes()
    (kept,) = (path for path in (tmp_path / "backup" / "files").glob("*/*") if path.stat().st_size == 64 << 20)
    for path in (kept, restored):
        assert path.stat().st_blocks * 512 < 8 << 20
    with open_to_read(tmp_path / "backup") as opened:
        assert opened.names()


def test_holes_are_not_counted_as_room_that_a_backup_needs(home: Path, tmp_path: Path) -> None:
    with (home / "objects" / "huge.bin").open("wb") as file:
        try:
            file.truncate(HOLES)
        except OSError:
            pytest.skip("this file system has no files of a TiB")
    with open_to_write(tmp_path / "backup") as opened:
        found = Backup(load_settings(home=home, min_free_bytes=0), opened).sizes()
    assert found.all_bytes > HOLES
    assert found.new_bytes < 1 << 30
    with pytest.raises(StoreUnavailable), open_to_write(tmp_path / "backup") as opened:
        Backup(load_settings(home=home, min_free_bytes=1 << 60), opened).sizes()


def test_nothing_is_forgotten_while_a_backup_is_taken(home: Path, tmp_path: Path) -> None:
    """Else its catalog would list what its archive has not, and it would say that the archive is damaged."""
    said = []

    def ask(_: int) -> None:
        if not said:
            said.append(kaapana(home, "forget", "--series", UP, "--yes"))

    taken = take(home, tmp_path / "backup", ask)
    assert said[0].returncode == 2
    assert "a backup of" in said[0].stderr
    assert taken.missing == []
    assert FolderPacs(home / "archive").series_uids() == [UP]
    done = kaapana(home, "forget", "--series", UP, "--yes")
    assert "forgotten: 1 series" in done.stdout, done.stderr
    assert FolderPacs(home / "archive").series_uids() == []


def test_backup_waits_for_the_end_of_a_forgetting(home: Path, tmp_path: Path) -> None:
    with ForgottenRecords(home).alone():
        process = subprocess.Popen(
            argv("backup", tmp_path / "backup"), env=environment(home), stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        while "waiting for the end of a forgetting" not in (line := process.stderr.readline()):
            assert line, process.wait()
        time.sleep(0.5)
        assert process.poll() is None
    assert process.wait(60) == 0
    process.stderr.close()


def test_two_who_forget_at_once_wait_for_each_other(home: Path) -> None:
    argv_of_each = argv("forget", "--series", UP, "--yes")
    commands = [
        subprocess.Popen(argv_of_each, env=environment(home), stderr=subprocess.PIPE, text=True) for _ in range(3)
    ]
    for process in commands:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    assert FolderPacs(home / "archive").series_uids() == []
    records = [json.loads(path.read_text()) for path in (home / "forgotten").glob("*.json")]
    assert sorted(record["removed"]["archive"] for record in records) == [0, 0, 2]
    assert list((home / "forgotten" / ".pending").iterdir()) == []


EVIL = {
    "series": {"series": ["../../victim"]},
    "pattern": {"series": ["*"]},
    "cohort": {"cohorts": ["../../../victim"], "pooled": [["w", "op", "../../../victim"]]},
    "operator": {"pooled": [["..", "..", "victim"]]},
    "id": {"id": "../../victim"},
}


@pytest.mark.parametrize("change", EVIL.values(), ids=EVIL)
def test_begun_forgetting_that_a_backup_brings_leads_out_of_no_home(home: Path, tmp_path: Path, change: dict) -> None:
    """It is a list of folders to be removed, and `up` goes on with it."""
    victim = tmp_path / "victim"
    (victim / "w").mkdir(parents=True)
    (home / "assets" / ".staging" / "x").mkdir(parents=True)
    pending = home / "forgotten" / ".pending"
    pending.mkdir(parents=True)
    begun = {"id": "a", "kind": "series", "asked_by": "x", "asked": "2026-01-01", "series": ["1.2"], "cohorts": []}
    (pending / "a.json").write_text(json.dumps(begun | {"pooled": [], "done": {}, "remains": []} | change))
    done = kaapana(home, "forget", "--go-on")
    assert done.returncode == 2
    assert "is damaged" in done.stderr
    assert "Traceback" not in done.stderr
    assert (victim / "w").is_dir()


def test_folder_that_is_removed_while_it_is_read_keeps_no_backup_from_its_end(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with opened(tmp_path / "run") as folder:
        (tmp_path / "run").rmdir()
        assert names_in(folder) == []
        assert list(walk(folder, "", lambda _: True)) == []


def test_disk_that_fills_while_a_backup_is_taken_is_said_and_the_same_command_goes_on(tmp_path: Path) -> None:
    from security.disks import on_small_disk

    home, disk = tmp_path / "home", tmp_path / "disk"
    fill(home)
    code = f"""
import os, subprocess, sys
from pathlib import Path
from kaapana_assets.backups.backup_folder import open_to_write
from kaapana_assets.backups.taking import Backup
from kaapana_assets.errors import KaapanaAssetsError
from kaapana_assets.settings import load_settings
disk = Path({str(disk)!r})
def filled(_):
    with open(disk / "filler", "ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1024))
        except OSError:
            pass
try:
    with open_to_write(disk / "backup") as folder:
        Backup(load_settings(home={str(home)!r}, min_free_bytes=0), folder).run(filled)
except KaapanaAssetsError as exc:
    print("said:", exc)
(disk / "filler").unlink()
argv = [sys.executable, "-m", "kaapana_assets", "backup", str(disk / "backup")]
done = subprocess.run(argv, env=os.environ | {{"KAAPANA_MIN_FREE_BYTES": "0"}}, capture_output=True, text=True)
print("then", done.returncode, done.stderr)
"""
    said = on_small_disk(disk, code, size="2m", KAAPANA_HOME=str(home))
    assert "No space left on device: make room; the same command then goes on where it was" in said
    assert "then 0" in said
