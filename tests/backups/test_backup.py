"""Backups of homes on which no platform runs, as a user takes and restores them."""

import hashlib
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import threading
import time
from pathlib import Path

import pytest
from backups.homes import LATE, ORIGIN, SPOOLED, UP, argv, environment, files_of, fill, kaapana, store

from kaapana_assets.backups.backup_folder import open_to_read, open_to_write
from kaapana_assets.backups.restoring import Restore
from kaapana_assets.backups.taking import Backup
from kaapana_assets.errors import ConfigurationError, DamagedBackup, StoreUnavailable, TemporaryError
from kaapana_assets.ingest.spool import Spool
from kaapana_assets.settings import load_settings
from kaapana_assets.stores.files.shelf import Shelf
from kaapana_assets.stores.pacs.folder import FolderPacs
from kaapana_assets.stores.sqlite_index import SqliteIndex


@pytest.fixture
def home(tmp_path: Path) -> Path:
    fill(tmp_path / "home")
    return tmp_path / "home"


def take(home: Path, folder: Path, **settings: object):
    with open_to_write(folder) as opened:
        backup = Backup(load_settings(home=home, min_free_bytes=0, **settings), opened)
        backup.sizes()
        return backup.run(lambda _: None)


def restore(folder: Path, home: Path, name: str = "") -> None:
    with open_to_read(folder) as opened:
        Restore(opened, home, name=name).run(lambda _: None)


def test_restored_home_has_all_that_the_platform_had(home: Path, tmp_path: Path) -> None:
    done = kaapana(home, "backup", tmp_path / "backup")
    assert done.returncode == 0, done.stderr
    done = kaapana(tmp_path / "elsewhere", "restore", tmp_path / "backup", "--into", tmp_path / "new" / "home")
    assert done.returncode == 0, done.stderr
    new = tmp_path / "new" / "home"

    left_out = ("scratch/", "logs/", "platform.json", "workflows/data/w-1/", "archive/.", "assets/.", "incoming/.taker")
    assert files_of(new) == {path: content for path, content in files_of(home).items() if not path.startswith(left_out)}
    assert FolderPacs(new / "archive").series(UP) == FolderPacs(home / "archive").series(UP)
    assert SqliteIndex(new / "index.sqlite").get(UP) == SqliteIndex(home / "index.sqlite").get(UP)
    assert len(Spool(new / "incoming", new / "quarantine").files(SPOOLED)) == 2
    manifest = Shelf(new / "assets").fetch("w", "op", UP, tmp_path / "fetched")
    assert (manifest.fingerprint, (tmp_path / "fetched" / "result.txt").read_text()) == ("fingerprint", "computed")
    archived = next((new / "archive").glob("*/*/*.dcm"))
    assert stat.S_IMODE(archived.stat().st_mode) == 0o444
    assert stat.S_IMODE(new.stat().st_mode) == 0o700


def test_backups_are_for_their_owner_only(home: Path, tmp_path: Path) -> None:
    former = os.umask(0)
    try:
        take(home, tmp_path / "backup")
    finally:
        os.umask(former)
    for path in [tmp_path / "backup", *(tmp_path / "backup").rglob("*")]:
        expected = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) & ~expected == 0, path


def test_second_backup_copies_only_what_is_new(home: Path, tmp_path: Path) -> None:
    first = take(home, tmp_path / "backup")
    store(home, LATE)
    inodes = {path.name: path.stat().st_ino for path in (tmp_path / "backup" / "files").glob("*/*")}
    second = take(home, tmp_path / "backup")
    assert second.files == first.files + 2
    assert all((tmp_path / "backup" / "files" / name[:2] / name).exists() for name in inodes)
    databases = sum((home / name).stat().st_size for name in ("index.sqlite", "archive/catalog.sqlite"))
    assert second.new_bytes < databases + 10_000 < first.new_bytes + 10_000

    restore(tmp_path / "backup", tmp_path / "now")
    restore(tmp_path / "backup", tmp_path / "before", first.name)
    assert FolderPacs(tmp_path / "now" / "archive").series_uids() == [UP, LATE]
    assert FolderPacs(tmp_path / "before" / "archive").series_uids() == [UP]


def test_only_the_newest_are_kept_if_asked(home: Path, tmp_path: Path) -> None:
    take(home, tmp_path / "backup")
    for path in (home / "archive").glob("*/*/*.dcm"):
        path.unlink()
    done = kaapana(home, "backup", tmp_path / "backup", "--keep", "1")
    assert done.returncode == 1  # the catalog lists what is not there
    assert "not in the archive" in done.stderr
    assert len(list((tmp_path / "backup" / "manifests").iterdir())) == 1
    assert "whole" in kaapana(home, "backup", "--verify", tmp_path / "backup").stdout
    restore(tmp_path / "backup", tmp_path / "new")
    assert not list((tmp_path / "new" / "archive").glob("*/*/*.dcm"))


def test_what_the_copied_catalog_does_not_have_is_received_again(home: Path, tmp_path: Path) -> None:
    """An ingest that was not at its end, or came after the catalog was copied."""
    kept = tmp_path / "catalog"
    shutil.copy(home / "archive" / "catalog.sqlite", kept)
    store(home, LATE)
    for path in (home / "archive").glob("catalog.sqlite*"):
        path.unlink()
    kept.rename(home / "archive" / "catalog.sqlite")
    take(home, tmp_path / "backup")
    restore(tmp_path / "backup", tmp_path / "new")
    new = tmp_path / "new"
    assert FolderPacs(new / "archive").series_uids() == [UP]
    assert len(Spool(new / "incoming", new / "quarantine").files(LATE)) == 2
    assert not list((new / "archive").glob(f"*/{LATE}/*"))


def test_backup_waits_for_the_ingest_that_runs(home: Path, tmp_path: Path) -> None:
    spool = Spool(home / "incoming", home / "quarantine")
    thread = threading.Thread(target=take, args=(home, tmp_path / "backup"))
    with spool.ingest_lock():
        thread.start()
        time.sleep(0.5)
        assert not list((tmp_path / "backup").glob("manifests/*"))
        store(home, LATE)
    thread.join(30)
    restore(tmp_path / "backup", tmp_path / "new")
    assert FolderPacs(tmp_path / "new" / "archive").series_uids() == [UP, LATE]


def test_databases_are_copied_while_others_write(home: Path, tmp_path: Path) -> None:
    stop = threading.Event()

    def write() -> None:
        number = 0
        index = SqliteIndex(home / "index.sqlite")
        while not stop.is_set():
            number += 1
            index.put([{"SeriesInstanceUID": f"1.{number}", "Modality": "CT"}])
        index.close()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for number in range(3):
            take(home, tmp_path / f"backup{number}")
    finally:
        stop.set()
        thread.join()
    for number in range(3):
        restore(tmp_path / f"backup{number}", tmp_path / f"new{number}")
        with sqlite3.connect(tmp_path / f"new{number}" / "index.sqlite") as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        connection.close()


def test_shelf_entry_that_is_replaced_meanwhile_is_of_one_moment(home: Path, tmp_path: Path) -> None:
    shelf, stop = Shelf(home / "assets"), threading.Event()

    def replace() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            output = tmp_path / "made" / str(number)
            output.mkdir(parents=True)
            for name in ("a", "b", "c"):
                (output / name).write_text(str(number))
            shelf.publish(ORIGIN, {UP: (output, str(number))})

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        for number in range(5):
            take(home, tmp_path / f"backup{number}")
    finally:
        stop.set()
        thread.join()
    for number in range(5):
        restore(tmp_path / f"backup{number}", tmp_path / f"new{number}")
        Shelf(tmp_path / f"new{number}" / "assets").fetch("w", "op", UP, tmp_path / f"fetched{number}")


@pytest.mark.parametrize("after_files", [1, 5, 9])
def test_killed_backup_goes_on_with_what_it_copied(home: Path, tmp_path: Path, after_files: int) -> None:
    for number in range(20):
        store(home, f"2.25.9{number}")
    folder = tmp_path / "backup"
    process = subprocess.Popen(argv("backup", folder), env=environment(home), cwd=tmp_path, stderr=subprocess.DEVNULL)
    while len(list(folder.glob("files/*/*"))) < after_files and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    take(home, folder)
    assert list((folder / "tmp").iterdir()) == []
    restore(folder, tmp_path / "new")
    assert len(FolderPacs(tmp_path / "new" / "archive").series_uids()) == 21
    assert files_of(tmp_path / "new").keys() >= {"cohorts/first.json", "workflows/dags/mine.py"}


def test_killed_restore_is_no_home_and_goes_on(home: Path, tmp_path: Path) -> None:
    for number in range(20):
        store(home, f"2.25.9{number}")
    folder, new = tmp_path / "backup", tmp_path / "new"
    take(home, folder)
    arguments = argv("restore", folder, "--into", new)
    process = subprocess.Popen(arguments, env=environment(home), cwd=tmp_path, stderr=subprocess.DEVNULL)
    while not list(new.glob("archive/*/*/*.dcm")) and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if (new / ".restoring").exists():  # else it was too fast
        said = kaapana(new, "status")
        assert said.returncode == 2
        assert "kaapana-assets restore" in said.stderr
    else:
        shutil.rmtree(new)
    restore(folder, new)
    assert len(FolderPacs(new / "archive").series_uids()) == 21
    assert not (new / ".restoring").exists()


def test_backup_without_end_is_none(home: Path, tmp_path: Path) -> None:
    take(home, tmp_path / "backup")
    manifest = next((tmp_path / "backup" / "manifests").iterdir())
    manifest.write_bytes(b"\n".join(manifest.read_bytes().split(b"\n")[:-3]) + b"\n")
    with pytest.raises(DamagedBackup, match=f"{manifest.name} was cut short"):
        restore(tmp_path / "backup", tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("how", ["changed", "shorter", "gone"])
def test_damaged_file_is_named_and_copied_again(home: Path, tmp_path: Path, how: str) -> None:
    take(home, tmp_path / "backup")
    archived = next((home / "archive").glob("*/*/*.dcm"))
    digest = hashlib.sha256(archived.read_bytes()).hexdigest()
    content = tmp_path / "backup" / "files" / digest[:2] / digest
    data = bytearray(content.read_bytes())
    data[-1] ^= 1
    if how == "gone":
        content.unlink()
    else:
        content.write_bytes(data if how == "changed" else data[:-1])
    with pytest.raises(DamagedBackup, match=archived.name):
        restore(tmp_path / "backup", tmp_path / "new")
    verified = kaapana(home, "backup", "--verify", tmp_path / "backup")
    assert verified.returncode == 1
    assert archived.name in verified.stderr

    take(home, tmp_path / "backup")
    assert kaapana(home, "backup", "--verify", tmp_path / "backup").returncode == 0
    restore(tmp_path / "backup", tmp_path / "whole")


def test_restore_replaces_nothing(home: Path, tmp_path: Path) -> None:
    take(home, tmp_path / "backup")
    before = files_of(home)
    with pytest.raises(ConfigurationError, match="is not empty"):
        restore(tmp_path / "backup", home)
    assert files_of(home) == before


def test_full_disk_is_said_before_anything_is_copied(home: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="make room"), open_to_write(tmp_path / "backup") as opened:
        Backup(load_settings(home=home, min_free_bytes=1 << 60), opened).sizes()
    assert not list((tmp_path / "backup").glob("files/*/*"))


def test_two_backups_at_once_are_refused(home: Path, tmp_path: Path) -> None:
    with open_to_write(tmp_path / "backup"), pytest.raises(TemporaryError, match="another process"):
        take(home, tmp_path / "backup")


@pytest.mark.parametrize("where", ["backup", "."])
def test_backup_in_its_own_home_is_refused(home: Path, where: str) -> None:
    with pytest.raises(ConfigurationError):
        take(home, home / where)


def test_two_homes_have_a_folder_each(home: Path, tmp_path: Path) -> None:
    take(home, tmp_path / "backup")
    restore(tmp_path / "backup", tmp_path / "new")
    with pytest.raises(ConfigurationError, match="has backups of"):
        take(tmp_path / "new", tmp_path / "backup")


def test_folder_of_something_else_is_refused(home: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir(mode=0o700)
    (tmp_path / "other" / "thesis.tex").write_text("")
    with pytest.raises(ConfigurationError, match="no folder of backups"):
        take(home, tmp_path / "other")


def test_servers_are_named_and_secrets_stay_away(home: Path, tmp_path: Path) -> None:
    more = {
        "KAAPANA_OBJECTS": "s3",
        "KAAPANA_S3_ENDPOINT": "minio.example:9000",
        "KAAPANA_S3_ACCESS_KEY": "the-key",
        "KAAPANA_S3_SECRET_KEY": "very-hidden",
        "KAAPANA_POSTGRES_URL": "postgresql://db.example/dagster",
    }
    done = kaapana(home, "backup", tmp_path / "backup", **more)
    assert done.returncode == 0, done.stderr
    assert "the object store at minio.example:9000" in done.stdout
    assert "Dagster's storage at postgresql://db.example/dagster" in done.stdout
    manifest = next((tmp_path / "backup" / "manifests").iterdir()).read_text()
    assert '"KAAPANA_S3_ENDPOINT": "minio.example:9000"' in manifest
    assert "very-hidden" not in manifest
    assert "the-key" not in manifest


def test_top_folder_on_another_disk_is_followed_and_other_links_are_named(home: Path, tmp_path: Path) -> None:
    (home / "archive").rename(tmp_path / "large-disk")
    (home / "archive").symlink_to(tmp_path / "large-disk")
    (home / "workflows" / "dags" / "linked.py").symlink_to("/etc/passwd")
    os.mkfifo(home / "cohorts" / "pipe")
    taken = take(home, tmp_path / "backup")
    assert sorted(taken.passed_over) == ["cohorts/pipe", "workflows/dags/linked.py"]
    restore(tmp_path / "backup", tmp_path / "new")
    assert FolderPacs(tmp_path / "new" / "archive").series_uids() == [UP]
