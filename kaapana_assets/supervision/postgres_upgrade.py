"""Upgrades the database files of an older major version of PostgreSQL by a dump.

A server reads only files of its own major version. If the version of the files is installed too, its server is
started once more, and its dump is loaded into new files. The old files are kept beside them.

    <folder>/data          the files in use
    <folder>/data-<major>  the old files, never used again; may be removed
    <folder>/data.new      the new files while they are made; made again after a crash, unless marked as complete
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kaapana_assets.durable import sync_folder
from kaapana_assets.errors import ConfigurationError
from kaapana_assets.withheld import without_secrets

_WHOLE = ".kaapana-whole"
_START_S = 120
_STOP_S = 60
_INSTALLED = ("/usr/lib/postgresql/{major}/bin", "/usr/pgsql-{major}/bin", "/opt/homebrew/opt/postgresql@{major}/bin")


@dataclass(frozen=True)
class Upgrade:
    """Upgrades the database files in a folder.

    Attributes:
        data: the folder of the database files.
        socket_folder: the folder for the sockets of both servers.
        binaries: the folder with the programs of the new version.
        prefix: the start of each command, which makes it run as the owner of the files.
        create: initializes an empty database in a folder.
    """

    data: Path
    socket_folder: Path
    binaries: Path
    prefix: Sequence[str]
    role: str
    create: Callable[[Path], None]

    def finish_interrupted(self) -> None:
        """Move new files into place that were complete when an upgrade was interrupted."""
        new = self._new
        if (new / _WHOLE).exists() and not self.data.exists():
            new.rename(self.data)
            sync_folder(self.data.parent)
        (self.data / _WHOLE).unlink(missing_ok=True)

    def run(self, *, wanted: int) -> None:
        """Upgrade the files if they are of an older major version.

        Raises:
            ConfigurationError: the files are of a newer version or of an older version that is not installed, or the
                dump cannot be made or loaded; the files stay as they are.
        """
        major = int((self.data / "PG_VERSION").read_text().strip())
        if major == wanted:
            return
        if major > wanted:
            raise ConfigurationError(
                f"{self.data} was made by PostgreSQL {major}, and this program has {wanted}: use a newer program, or "
                "restore a backup from before"
            )
        old = self._binaries_of(major)
        dump = self.data.parent / "upgrade.sql"
        shutil.rmtree(self._new, ignore_errors=True)
        dump.unlink(missing_ok=True)
        try:
            with self._serving(old, self.data):
                self._do("pg_dump", "--dbname", self.role, "--file", str(dump))
            self.create(self._new)
            with self._serving(self.binaries, self._new):
                options = ("--quiet", "--no-psqlrc", "--single-transaction", "--set", "ON_ERROR_STOP=1")
                self._do("psql", "--dbname", self.role, *options, "--file", str(dump))
        finally:
            dump.unlink(missing_ok=True)
        (self._new / _WHOLE).touch()
        sync_folder(self._new)
        kept = self.data.with_name(f"data-{major}")
        shutil.rmtree(kept, ignore_errors=True)
        self.data.rename(kept)
        self.finish_interrupted()

    @property
    def _new(self) -> Path:
        return self.data.with_name("data.new")

    def _binaries_of(self, major: int) -> Path:
        beside = self.binaries.parents[1] / f"pginstall{major}" / "bin"
        on_path = shutil.which("postgres")
        places = [beside, *(Path(each.format(major=major)) for each in _INSTALLED)]
        if on_path:
            places.append(Path(on_path).resolve().parent)
        for place in places:
            if _major_of(place / "postgres") == major:
                return place
        raise ConfigurationError(
            f"{self.data} was made by PostgreSQL {major}, and this program has another version: install PostgreSQL "
            f"{major} beside it ({_INSTALLED[0].format(major=major)}) for one start, in which its data is taken over"
        )

    @contextmanager
    def _serving(self, binaries: Path, data: Path) -> Iterator[None]:
        log = self.data.parent / "upgrade.log"
        argv = [*self.prefix, str(binaries / "postgres"), "-D", str(data), "-h", "", "-k", str(self.socket_folder)]
        with log.open("ab") as output:
            server = subprocess.Popen(
                argv, stdout=output, stderr=output, env=without_secrets(os.environ), start_new_session=True
            )
        try:
            deadline = time.monotonic() + _START_S
            ask = [str(self.binaries / "pg_isready"), "-q", "-h", str(self.socket_folder), "-U", self.role]
            while subprocess.run(ask, check=False, env=without_secrets(os.environ)).returncode:
                if server.poll() is not None or time.monotonic() > deadline:
                    raise ConfigurationError(f"PostgreSQL in {binaries} does not start on {data}; see {log}")
                time.sleep(0.1)
            yield
        finally:
            server.terminate()
            try:
                server.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()

    def _do(self, program: str, *arguments: str) -> None:
        argv = [str(self.binaries / program), "-h", str(self.socket_folder), "-U", self.role, *arguments]
        # The umask keeps the dump private: it holds the whole database.
        done = subprocess.run(
            argv, capture_output=True, text=True, check=False, env=without_secrets(os.environ), umask=0o077
        )
        if done.returncode:
            raise ConfigurationError(f"{self.data} cannot be taken over: {program}: {done.stderr.strip()[-1000:]}")


def _major_of(postgres: Path) -> int | None:
    if not os.access(postgres, os.X_OK):
        return None
    said = subprocess.run([str(postgres), "--version"], capture_output=True, text=True, check=False).stdout
    number = said.rpartition("(PostgreSQL) ")[2].partition(".")[0]
    return int(number) if number.isdigit() else None
