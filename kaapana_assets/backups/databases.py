"""Consistent copies of databases in use: SQLite by online backup, PostgreSQL by dump."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg2

from kaapana_assets.errors import ConfigurationError, DamagedBackup, StoreUnavailable
from kaapana_assets.stores.files.durable import free_bytes
from kaapana_assets.supervision.postgres import ROLE, Postgres, program
from kaapana_assets.withheld import without_secrets

_START_S = 60.0
_STOP_S = 30.0
_POLL_S = 0.05
_RESTORING_ROLE = "kaapana_restore"
# Dagster connects as the superuser, so code that runs implicitly in its connections could do everything
# that the server can. Dagster's schema has none of these objects. OIDs below 16384 are PostgreSQL's own.
_NOT_OF_DAGSTER = {
    "functions": "SELECT proname FROM pg_proc WHERE oid >= 16384",
    "operators": "SELECT oprname FROM pg_operator WHERE oid >= 16384",
    "triggers": "SELECT tgname FROM pg_trigger WHERE oid >= 16384 AND NOT tgisinternal",
    "event triggers": "SELECT evtname FROM pg_event_trigger",
    "rules": "SELECT rulename FROM pg_rewrite WHERE oid >= 16384",
    "policies": "SELECT polname FROM pg_policy",
    "checks": "SELECT conname FROM pg_constraint WHERE oid >= 16384 AND contype NOT IN ('p','u','f','n')",
    "statistics": "SELECT stxname FROM pg_statistic_ext",
    "settings": "SELECT setconfig::text FROM pg_db_role_setting",
    "relations": "SELECT relname FROM pg_class WHERE oid >= 16384 AND relkind NOT IN ('r','i','S','t','c')",
}
_DEFAULTS = "SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef"
_PLAIN_DEFAULT = re.compile(
    r"nextval\('[A-Za-z0-9_.\"]+'::regclass\)|CURRENT_TIMESTAMP|now\(\)|true|false|-?[0-9.]+|'[^']*'::[a-z ]+"
)


def copy_sqlite(source: Path, target: Path) -> None:
    """Copy a SQLite database consistently while others write to it.

    Raises:
        StoreUnavailable: the database is damaged, or was locked for a minute.
    """
    try:
        with (
            closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=rw", uri=True, timeout=60)) as reader,
            closing(sqlite3.connect(target)) as writer,
        ):
            reader.backup(writer)
    except sqlite3.Error as exc:
        raise StoreUnavailable(f"the database {source} cannot be copied: {exc}") from exc


def dump(socket_folder: Path, target: Path) -> None:
    """Dump the embedded PostgreSQL consistently, in pg_dump's custom format.

    Raises:
        StoreUnavailable: the server does not answer, or the dump failed.
    """
    argv = [str(program("pg_dump")), "-Fc", "-h", str(socket_folder), "-U", ROLE, "-d", ROLE]
    argv += ["--no-owner", "--no-privileges", "--no-password", f"--file={target}"]
    done = subprocess.run(
        argv, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=without_secrets(os.environ)
    )
    if done.returncode != 0:
        raise StoreUnavailable(f"the platform's PostgreSQL cannot be dumped: {done.stderr.strip()[-1000:]}")


@contextmanager
def served(data: Path) -> Iterator[Postgres]:
    """Run a PostgreSQL server on a data folder that no platform uses; creates a missing folder.

    The server ends with this process, even if the process is killed.

    Raises:
        ConfigurationError: the server does not start.
    """
    folder = Path(tempfile.mkdtemp(prefix="kaapana-"))
    watchdog = subprocess.Popen(
        [sys.executable, "-m", "kaapana_assets.supervision.watchdog", uuid.uuid4().hex, str(folder)],
        stdin=subprocess.PIPE,
        env=without_secrets(os.environ),
        start_new_session=True,
        text=True,
    )
    postgres = Postgres(data, folder / "postgres")
    try:
        postgres.prepare()
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(
                postgres.argv(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=without_secrets(os.environ),
                start_new_session=True,
            )
        try:
            if watchdog.stdin is not None:
                watchdog.stdin.write(f"group {server.pid}\n")
                watchdog.stdin.flush()
            _await(postgres, server, folder / "log")
            yield postgres
        finally:
            server.send_signal(signal.SIGINT)
            try:
                server.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
    finally:
        watchdog.communicate("done\n", timeout=_STOP_S)
        shutil.rmtree(folder, ignore_errors=True)


def load(postgres: Postgres, source: int, *, name: str) -> None:
    """Restore a dump into an empty server.

    A dump is SQL and cannot be trusted. A role that can do nothing but fill this database runs it, and
    objects that would later run code in the connections of Dagster are refused.

    Args:
        postgres: the server.
        source: descriptor of the dump.
        name: name of the dump, for messages.

    Raises:
        DamagedBackup: the dump is damaged, or holds objects that Dagster's storage does not have.
    """
    _execute(
        postgres,
        f"CREATE ROLE {_RESTORING_ROLE} LOGIN",
        f"ALTER DATABASE {ROLE} OWNER TO {_RESTORING_ROLE}",
    )
    argv = [str(program("pg_restore")), "-h", str(postgres.socket_folder), "-U", _RESTORING_ROLE, "-d", ROLE]
    argv += ["--no-owner", "--no-privileges", "--no-comments", "--no-password", "--exit-on-error"]
    done = subprocess.run(
        argv, check=False, capture_output=True, text=True, stdin=source, env=without_secrets(os.environ)
    )
    if done.returncode != 0:
        said = done.stderr.strip()[-1000:]
        raise DamagedBackup(f"the dump of Dagster's storage {name} cannot be restored: {said}")
    for what, query in _NOT_OF_DAGSTER.items():
        if found := _execute(postgres, query):
            raise DamagedBackup(f"{name} has {what} ({found[0]}), which Dagster's storage has not: do not trust it")
    for expression in _execute(postgres, _DEFAULTS):
        if not _PLAIN_DEFAULT.fullmatch(expression):
            raise DamagedBackup(f"{name} has a column that is computed by {expression}: do not trust it")
    _execute(
        postgres,
        f"REASSIGN OWNED BY {_RESTORING_ROLE} TO {ROLE}",
        f"DROP OWNED BY {_RESTORING_ROLE}",
        f"DROP ROLE {_RESTORING_ROLE}",
        "CHECKPOINT",
    )


def _execute(postgres: Postgres, *statements: str) -> list[str]:
    """Run statements as the superuser, with PostgreSQL's own schema as the only search path.

    Returns:
        The first column of the result of the last statement.
    """
    connection = psycopg2.connect(
        host=str(postgres.socket_folder), user=ROLE, dbname=ROLE, options="-c search_path=pg_catalog"
    )
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return [str(row[0]) for row in cursor.fetchall()] if cursor.description else []
    except psycopg2.Error as exc:
        raise StoreUnavailable(f"PostgreSQL in {postgres.data}: {' '.join(str(exc).split())}") from exc
    finally:
        connection.close()


def _await(postgres: Postgres, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while not postgres.is_ready():
        if server.poll() is not None or time.monotonic() > deadline:
            said = log.read_text(errors="replace").strip()[-1000:]
            raise ConfigurationError(f"PostgreSQL does not start on {postgres.data}: {said}")
        time.sleep(_POLL_S)


def free_of(folder: Path) -> int:
    """Free bytes on the file system of a folder, which need not exist yet."""
    while not folder.exists():
        folder = folder.parent
    return free_bytes(folder)
