"""Backups that somebody else made or changed, and folders that others can reach: nothing leads out of a home."""

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import psycopg2
import pytest
from backups.homes import UP, files_of, fill, kaapana

from kaapana_assets.backups.backup_folder import open_to_read, open_to_write
from kaapana_assets.backups.databases import dump, load, served
from kaapana_assets.backups.manifest import Entry
from kaapana_assets.backups.restoring import Restore
from kaapana_assets.backups.taking import Backup
from kaapana_assets.errors import ConfigurationError, DamagedBackup, StoreUnavailable
from kaapana_assets.settings import load_settings

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user and devices")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    fill(tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture
def backup(home: Path, tmp_path: Path) -> Path:
    take(home, tmp_path / "backup")
    return tmp_path / "backup"


def take(home: Path, folder: Path, advance=lambda _: None):
    with open_to_write(folder) as opened:
        return Backup(load_settings(home=home, min_free_bytes=0), opened).run(advance)


def restore(folder: Path, home: Path) -> None:
    with open_to_read(folder) as opened:
        Restore(opened, home).run(lambda _: None)


def rewrite(folder: Path, change) -> None:
    """Make another manifest, of which all digests are right."""
    with open_to_read(folder) as opened, opened.manifest() as manifest:
        entries, name = list(manifest.entries()), opened.names()[-1]
    file = folder / "manifests" / f"{name}.jsonl"
    changed = [asdict(entry) for entry in change(entries)]
    lines = file.read_bytes().splitlines(keepends=True)[0] + b"".join(line_of(entry) for entry in changed)
    end = {
        "end": True,
        "files": sum(entry["kind"] != "folder" for entry in changed),
        "bytes": sum(entry["size"] for entry in changed if isinstance(entry["size"], int)),
        "sha256": hashlib.sha256(lines).hexdigest(),
    }
    file.write_bytes(lines + line_of(end))


def line_of(values: dict[str, object]) -> bytes:
    return json.dumps(values).encode() + b"\n"


def planted(folder: Path, content: bytes) -> Entry:
    digest = hashlib.sha256(content).hexdigest()
    file = folder / "files" / digest[:2] / digest
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    return Entry("", "file", digest, len(content), 0o600, 0)


@pytest.mark.parametrize(
    "path",
    [
        "../outside",
        "cohorts/../../outside",
        "/tmp/outside-of-a-backup",
        "cohorts//x",
        "./x",
        "cohorts/.",
        "",
        "a\0b",
        "platform.json",  # a record of processes, which `up` would end
        "platform.lock",
        ".restoring",
        "dagster/postgres/data/pg_hba.conf",
        "dagster/postgres.dump",  # as a file
    ],
)
def test_paths_that_no_backup_holds_are_refused_before_anything_is_written(backup: Path, path: str) -> None:
    evil = planted(backup, b"evil")
    rewrite(backup, lambda entries: [*entries, replace(evil, path=path)])
    before = files_of(backup.parent)
    with pytest.raises(DamagedBackup, match=r"do not trust|has dagster/postgres.dump"):
        restore(backup, backup.parent / "new")
    assert files_of(backup.parent) == before
    assert not Path("/tmp/outside-of-a-backup").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"mode": 0o4755},
        {"mode": -1},
        {"size": -1},
        {"size": "1"},
        {"size": True},
        {"sha256": "../../../../etc/passwd"},
        {"sha256": "A" * 64},
        {"kind": "link"},
        {"kind": "device"},
        {"mtime_ns": 1 << 70},
        {"path": ["cohorts"]},
        {"path": "x" * 70_000},
    ],
    ids=str,
)
def test_entries_that_are_none_are_refused(backup: Path, change: dict[str, object]) -> None:
    evil = planted(backup, b"evil")
    rewrite(backup, lambda entries: [*entries, replace(replace(evil, path="cohorts/evil.json"), **change)])
    with pytest.raises(DamagedBackup):
        restore(backup, backup.parent / "new")
    assert not (backup.parent / "new").exists()


def test_file_that_is_a_folder_as_well_is_refused(backup: Path) -> None:
    evil = planted(backup, b"evil")
    both = [replace(evil, path="cohorts/a"), replace(evil, path="cohorts/a/b")]
    rewrite(backup, lambda entries: [*entries, *both])
    with pytest.raises(DamagedBackup, match="as a file and as a folder"):
        restore(backup, backup.parent / "new")


def test_deeply_nested_manifest_is_refused(backup: Path) -> None:
    manifest = next((backup / "manifests").iterdir())
    manifest.write_bytes(b"[" * 60_000 + b"\n" + manifest.read_bytes())
    with pytest.raises(DamagedBackup):
        restore(backup, backup.parent / "new")


@pytest.mark.parametrize("kind", ["link", "link to the same", "fifo", "folder", pytest.param("device", marks=as_root)])
def test_contents_that_are_no_files_are_refused(backup: Path, home: Path, kind: str) -> None:
    archived = next((home / "archive").glob("*/*/*.dcm"))
    digest = hashlib.sha256(archived.read_bytes()).hexdigest()
    content = backup / "files" / digest[:2] / digest
    content.unlink()
    if kind == "link":
        content.symlink_to("/etc/passwd")
    elif kind == "link to the same":
        content.symlink_to(archived)
    elif kind == "fifo":
        os.mkfifo(content)
    elif kind == "folder":
        content.mkdir()
    else:
        os.mknod(content, 0o20600, os.makedev(1, 5))
    with pytest.raises(DamagedBackup, match=archived.name):
        restore(backup, backup.parent / "new")
    said = kaapana(home, "backup", "--verify", backup)
    assert said.returncode == 1
    assert archived.name in said.stderr


@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_manifests_that_are_no_files_are_refused(backup: Path, kind: str) -> None:
    manifest = next((backup / "manifests").iterdir())
    manifest.rename(backup.parent / "manifest")
    if kind == "link":
        manifest.symlink_to(backup.parent / "manifest")
    else:
        os.mkfifo(manifest)
    with pytest.raises(DamagedBackup, match="manifests"):
        restore(backup, backup.parent / "new")


def test_folder_that_is_a_link_is_neither_written_nor_read(home: Path, backup: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(backup)
    before = files_of(backup)
    for use in (lambda: take(home, tmp_path / "link"), lambda: restore(tmp_path / "link", tmp_path / "new")):
        with pytest.raises(ConfigurationError, match="is a link"):
            use()
    assert files_of(backup) == before


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_folder_that_others_can_reach_is_refused(home: Path, backup: Path, mode: int) -> None:
    backup.chmod(mode)
    for use in (lambda: take(home, backup), lambda: restore(backup, backup.parent / "new")):
        with pytest.raises(ConfigurationError, match="chmod 700"):
            use()


@as_root
def test_folder_of_another_user_is_refused(home: Path, backup: Path) -> None:
    os.chown(backup, NOBODY, NOBODY)
    for use in (lambda: take(home, backup), lambda: restore(backup, backup.parent / "new")):
        with pytest.raises(ConfigurationError, match="belongs to user 65534"):
            use()


def test_folder_that_is_swapped_for_a_link_meanwhile_is_not_followed(home: Path, tmp_path: Path) -> None:
    folder, victim = tmp_path / "backup", tmp_path / "victim"
    victim.mkdir()

    def swap(_: int) -> None:
        if not folder.is_symlink():
            folder.rename(tmp_path / "moved")
            folder.symlink_to(victim)

    with pytest.raises(StoreUnavailable, match=r"known\.sqlite cannot be used"):
        take(home, folder, swap)
    assert list(victim.iterdir()) == []
    folder.unlink()
    (tmp_path / "moved").rename(folder)
    take(home, folder)
    restore(folder, tmp_path / "new")
    assert (tmp_path / "new" / "cohorts" / "first.json").exists()


def test_home_that_is_a_link_is_refused(backup: Path, tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "new").symlink_to(tmp_path / "victim")
    with pytest.raises(ConfigurationError, match="is a link"):
        restore(backup, tmp_path / "new")
    assert list((tmp_path / "victim").iterdir()) == []


def test_links_in_an_unfinished_home_are_not_followed(home: Path, backup: Path, tmp_path: Path) -> None:
    new, victim = tmp_path / "new", tmp_path / "victim"
    victim.mkdir()
    with open_to_read(backup) as opened, opened.manifest() as manifest:
        list(manifest.entries())
        digest = manifest.digest
    new.mkdir()
    (new / ".restoring").write_text(digest)
    (new / "cohorts").symlink_to(victim)
    with pytest.raises(DamagedBackup):
        restore(backup, new)
    assert list(victim.iterdir()) == []


def test_file_of_the_home_that_becomes_a_link_is_not_read(home: Path, tmp_path: Path) -> None:
    """What operators can write to lies in the home: a link in its place must not bring another file along."""
    secret = tmp_path / "secret"
    secret.write_text("only for root")
    target = home / "objects" / "bucket" / "deep"

    def swap(_: int) -> None:
        if not target.is_symlink():
            target.rename(tmp_path / "deep")
            target.symlink_to(tmp_path)
            (home / "assets" / "link").symlink_to(secret)

    take(home, tmp_path / "backup", swap)
    contents = [path.read_bytes() for path in (tmp_path / "backup" / "files").glob("*/*")]
    assert b"only for root" not in contents


@pytest.mark.parametrize(("name", "depth"), [("d", 990), ("d" * 200, 30)], ids=["deep", "long"])
def test_tree_that_no_backup_can_hold_is_named_and_the_rest_is_copied(
    home: Path, tmp_path: Path, name: str, depth: int
) -> None:
    folder = os.open(home / "objects", os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=folder)
        below = os.open(name, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.close(folder)
    taken = take(home, tmp_path / "backup")
    assert [path[:9] for path in taken.passed_over] == ["objects/d"]
    restore(tmp_path / "backup", tmp_path / "new")
    assert (tmp_path / "new" / "archive" / f"{UP}.1" / UP).is_dir()
    assert (tmp_path / "new" / "objects" / "bucket" / "deep" / "object.bin").exists()
    subprocess.run(["rm", "-rf", home / "objects", tmp_path / "new"], check=True)


def test_names_with_line_ends_cannot_forge_what_is_said(home: Path, tmp_path: Path) -> None:
    (home / "cohorts" / "x\nbackup whole\x1b[31m").symlink_to("/")
    said = kaapana(home, "backup", tmp_path / "backup")
    assert "x\\nbackup whole\\x1b[31m" in said.stderr


# What a dump of Dagster's storage brings is run by the server, and later by Dagster as its superuser.

ATTACKS = {
    "runs a program while it is restored": """
        CREATE FUNCTION evil(i int) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN true; END';
        CREATE TABLE bait (i int CHECK (evil(i)));
        INSERT INTO bait VALUES (1);
        CREATE OR REPLACE FUNCTION evil(i int) RETURNS boolean LANGUAGE plpgsql AS
            'BEGIN COPY (SELECT 1) TO PROGRAM ''touch MARK''; RETURN true; END'
    """,
    "runs a program when Dagster writes": """
        CREATE TABLE runs (i int);
        CREATE FUNCTION evil() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN COPY (SELECT 1) TO PROGRAM ''touch MARK''; RETURN NEW; END';
        CREATE TRIGGER evil AFTER INSERT ON runs FOR EACH ROW EXECUTE FUNCTION evil()
    """,
    "reads a file when Dagster writes": "CREATE TABLE runs (i int, t text DEFAULT pg_read_file('/etc/passwd'))",
    "answers in the place of a table": "CREATE VIEW runs AS SELECT pg_read_file('/etc/passwd')",
    "writes when Dagster reads": """
        CREATE TABLE runs (i int);
        ALTER TABLE runs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY evil ON runs USING (lo_export(1, 'MARK') = 1)
    """,
}


@pytest.fixture(scope="module")
def dumps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("dumps")
    with served(folder / "source") as postgres:
        for number, attack in enumerate(ATTACKS.values()):
            connection = psycopg2.connect(host=str(postgres.socket_folder), user="postgres", dbname="postgres")
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public AUTHORIZATION pg_database_owner")
                cursor.execute(attack.replace("MARK", f"{folder}/mark"))
            connection.close()
            dump(postgres.socket_folder, folder / f"{number}.dump")
    folder.chmod(0o777)
    yield folder


@pytest.mark.parametrize("number", range(len(ATTACKS)), ids=list(ATTACKS))
def test_dump_that_brings_code_is_refused(dumps: Path, tmp_path: Path, number: int) -> None:
    source = os.open(dumps / f"{number}.dump", os.O_RDONLY)
    try:
        with served(tmp_path / "data") as postgres, pytest.raises(DamagedBackup):
            load(postgres, source, name="dump")
    finally:
        os.close(source)
    assert not (dumps / "mark").exists()


def test_attacks_are_written_as_real_backups_are(backup: Path) -> None:
    """Else what is refused above would be refused for another reason."""
    good = replace(planted(backup, b"{}"), path="cohorts/good.json")
    rewrite(backup, lambda entries: [*entries, good])
    restore(backup, backup.parent / "new")
    assert (backup.parent / "new" / "cohorts" / "good.json").read_bytes() == b"{}"
    assert asdict(good)["kind"] == "file"


def test_files_with_odd_names_times_and_endings_are_backed_up_and_restored(home: Path, tmp_path: Path) -> None:
    """One file that an operator or another program left must not keep a site without any backup."""
    bucket = os.fsencode(home / "objects" / "bucket")
    odd = [
        (bucket + b"/\xff\xfe.txt", 0),
        (bucket + b"/" + b"x" * 255, 0),
        (bucket + b"/2120", 4_733_510_400),  # a time in ns over 2 ** 62
        (bucket + b"/2400", 13_569_465_600),  # over 2 ** 63
        (bucket + b"/1930", -1_262_304_000),
        (os.fsencode(home / "Thumbs.db"), 0),
        (os.fsencode(home / "archive" / "Thumbs.db"), 0),
    ]
    for path, mtime in odd:
        Path(os.fsdecode(path)).write_bytes(path)
        os.utime(path, (mtime, mtime))
    assert take(home, tmp_path / "backup").passed_over == []
    assert take(home, tmp_path / "backup").new_bytes < 10**6
    restore(tmp_path / "backup", tmp_path / "new")
    for path, _ in odd:
        assert Path(os.fsdecode(path.replace(os.fsencode(home), os.fsencode(tmp_path / "new")))).read_bytes() == path


def test_name_that_no_file_can_have_is_refused(backup: Path) -> None:
    evil = planted(backup, b"evil")
    rewrite(backup, lambda entries: [*entries, replace(evil, path="cohorts/\ud800")])
    with pytest.raises(DamagedBackup, match="do not trust"):
        restore(backup, backup.parent / "new")
