"""The embedded PostgreSQL: it starts on what any former server left, also a killed one."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import psycopg2
import pytest

from kaapana_assets.settings.user_ids import POSTGRES_UID
from kaapana_assets.supervision.postgres import Postgres


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, since the path of a socket is limited to about 100 characters."""
    path = Path(tempfile.mkdtemp(prefix="pg-"))
    yield path
    shutil.rmtree(path)


@contextmanager
def serving(postgres: Postgres) -> Iterator[subprocess.Popen[bytes]]:
    postgres.prepare()
    process = subprocess.Popen(postgres.argv(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while not postgres.is_ready():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)


def query(postgres: Postgres, sql: str) -> list[tuple[object, ...]]:
    connection = psycopg2.connect(postgres.url.replace("+psycopg2", ""))
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def is_left(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_what_was_written_outlives_a_clean_stop_and_a_kill(folder):
    postgres = Postgres(folder / "data", folder / "socket")
    with serving(postgres) as process:
        query(postgres, "create table seen (what text)")
        query(postgres, "insert into seen values ('first')")
    assert process.returncode == 0
    with serving(postgres) as process:
        query(postgres, "insert into seen values ('second')")
        process.kill()
        process.wait()
    assert (folder / "data" / "postmaster.pid").exists()
    with serving(postgres):
        assert query(postgres, "select what from seen") == [("first",), ("second",)]


def test_workers_that_outlive_a_killed_server_do_not_hinder_the_next(folder):
    postgres = Postgres(folder / "data", folder / "socket")
    with serving(postgres) as process:
        workers = psutil.Process(process.pid).children()
        # Stopped, none notices the end of the server. One that served pg_isready may end before.
        for worker in workers:
            with suppress(psutil.NoSuchProcess):
                worker.suspend()
        process.kill()
        process.wait()
        assert any(is_left(worker) for worker in workers)
    with serving(postgres):
        assert query(postgres, "select 1") == [(1,)]
    assert not any(is_left(worker) for worker in workers)


def test_a_stale_pid_of_a_process_that_is_something_else_does_not_hinder(folder):
    postgres = Postgres(folder / "data", folder / "socket")
    with serving(postgres):
        pid_file = folder / "data" / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
    other = subprocess.Popen(["sleep", "60"])
    try:
        lines[0] = str(other.pid)
        pid_file.write_text("\n".join(lines) + "\n")
        with serving(postgres):
            assert query(postgres, "select 1") == [(1,)]
    finally:
        other.kill()
        other.wait()


def test_files_whose_making_was_cut_short_are_made_anew(folder):
    postgres = Postgres(folder / "data", folder / "socket")
    (folder / ".unfinished").touch()
    (folder / "data").mkdir()
    (folder / "data" / "PG_VERSION").write_text("18\n")
    with serving(postgres):
        assert query(postgres, "select 1") == [(1,)]
    assert not (folder / ".unfinished").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has a server of another user")
def test_files_that_an_earlier_version_gave_to_nobody_are_handed_over(folder):
    as_before = Postgres(folder / "data", folder / "socket", uid=65534)
    with serving(as_before):
        query(as_before, "create table seen (what text)")
        query(as_before, "insert into seen values ('first')")
    outside = folder / "outside"
    outside.touch()
    (folder / "data" / "link").symlink_to(outside)
    assert (folder / "data" / "PG_VERSION").stat().st_uid == 65534
    now = Postgres(folder / "data", folder / "socket")
    with serving(now) as process:
        assert query(now, "select what from seen") == [("first",)]
        assert psutil.Process(process.pid).uids().real == POSTGRES_UID
    assert {path.lstat().st_uid for path in (folder / "data").rglob("*")} == {POSTGRES_UID}
    assert outside.stat().st_uid == 0


def test_it_listens_on_no_network_and_only_its_user_reaches_the_socket(folder):
    postgres = Postgres(folder / "data", folder / "socket")
    with serving(postgres):
        assert query(postgres, "show listen_addresses") == [("",)]
        assert (folder / "socket").stat().st_mode & 0o077 == 0
        assert (folder / "socket").stat().st_uid == os.geteuid()
