"""Dagster's storage in a backup: the embedded PostgreSQL, also when no platform runs, and SQLite of `dagster dev`."""

import os
import sqlite3
from pathlib import Path

import psycopg2
import pytest
from backups.homes import fill, kaapana

from kaapana_assets.backups.databases import served
from kaapana_assets.supervision.postgres import Postgres
from kaapana_assets.supervision.record import lock_home


def query(postgres: Postgres, sql: str) -> list[tuple[object, ...]]:
    connection = psycopg2.connect(host=str(postgres.socket_folder), user="postgres", dbname="postgres")
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    fill(tmp_path / "home")
    return tmp_path / "home"


def test_database_of_a_stopped_platform_is_dumped_and_restored(home: Path, tmp_path: Path) -> None:
    with served(home / "dagster" / "postgres" / "data") as postgres:
        query(postgres, "CREATE TABLE dynamic_partitions (id bigserial PRIMARY KEY, partition text NOT NULL)")
        query(postgres, "INSERT INTO dynamic_partitions (partition) VALUES ('2.25.1')")
    done = kaapana(home, "backup", tmp_path / "backup")
    assert done.returncode == 0, done.stderr
    done = kaapana(home, "restore", tmp_path / "backup", "--into", tmp_path / "new")
    assert done.returncode == 0, done.stderr
    with served(tmp_path / "new" / "dagster" / "postgres" / "data") as postgres:
        assert query(postgres, "INSERT INTO dynamic_partitions (partition) VALUES ('2.25.2') RETURNING id") == [(2,)]
        assert query(postgres, "SELECT partition FROM dynamic_partitions ORDER BY id") == [("2.25.1",), ("2.25.2",)]
        assert query(postgres, "SELECT rolname FROM pg_roles WHERE rolname LIKE 'kaapana%'") == []
    if os.geteuid() != 0:
        assert (tmp_path / "new" / "dagster" / "postgres" / "data").stat().st_uid == os.geteuid()


def test_platform_that_starts_or_stops_is_said(home: Path, tmp_path: Path) -> None:
    (home / "dagster" / "postgres" / "data" / "base").mkdir(parents=True)
    (home / "dagster" / "postgres" / "data" / "PG_VERSION").write_text("18\n")
    (home / "platform.json").unlink()
    with lock_home(home):
        done = kaapana(home, "backup", tmp_path / "backup")
    assert done.returncode == 2
    assert "starts or stops" in done.stderr


def test_sqlite_of_dagster_dev_is_copied_with_what_is_in_its_log(home: Path, tmp_path: Path) -> None:
    file = home / "dagster" / "history" / "runs.db"
    file.parent.mkdir(parents=True)
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE runs (id TEXT)")
    connection.execute("INSERT INTO runs VALUES ('one')")
    connection.commit()
    try:
        assert kaapana(home, "backup", tmp_path / "backup").returncode == 0
    finally:
        connection.close()
    assert kaapana(home, "restore", tmp_path / "backup", "--into", tmp_path / "new").returncode == 0
    assert not list((tmp_path / "new" / "dagster" / "history").glob("*-*"))
    with sqlite3.connect(tmp_path / "new" / "dagster" / "history" / "runs.db") as copy:
        assert copy.execute("SELECT id FROM runs").fetchall() == [("one",)]
    copy.close()
