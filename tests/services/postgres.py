"""PostgreSQL, from the packages of the distribution: a server of the site, with a password."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from services.service import Missing, Plan

_USER = "kaapana"
_PASSWORD = "kaapana-test-only"
_DATABASE = "postgres"
_NOBODY = 65534


class PostgresServer:
    """One server that asks for a password; as root it runs as ``nobody``, because it refuses to be root.

    Args:
        host: address that it listens on; another than the loopback interface's lets everybody there ask.
    """

    name = "postgres"
    ports = 1

    def __init__(self, *, host: str = "127.0.0.1") -> None:
        self.host = host

    def prepare(self) -> None:
        """Needs the Debian package postgresql."""
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
        on_path = shutil.which("postgres")
        if not found and on_path is None:
            raise Missing("the program postgres (Debian package postgresql)")
        self._bin = found[-1] if found else Path(str(on_path)).parent
        if os.geteuid() == 0 and shutil.which("setpriv") is None:
            raise Missing("setpriv (Debian package util-linux), since PostgreSQL does not run as root")

    def plan(self, folder: Path, ports: Sequence[int]) -> Plan:
        """See ``Service.plan``."""
        data = folder / "postgres"
        if not (data / "PG_VERSION").exists():
            self._create(data)
        command = [
            *_unprivileged(), str(self._bin / "postgres"), "-D", str(data),
            "-h", self.host, "-p", str(ports[0]), "-c", "unix_socket_directories=", "-c", "max_connections=200",
        ]  # fmt: skip
        settings = {
            "KAAPANA_POSTGRES_URL": f"postgresql://{_USER}@{self.host}:{ports[0]}/{_DATABASE}",
            "KAAPANA_POSTGRES_PASSWORD": _PASSWORD,
        }
        return Plan(command, lambda: self._is_ready(ports[0]), settings)

    def _create(self, data: Path) -> None:
        data.mkdir(parents=True, mode=0o700)
        password = data.with_name("postgres-password")
        password.write_text(_PASSWORD)
        if os.geteuid() == 0:
            for path in (data, password):
                os.chown(path, _NOBODY, _NOBODY)
        command = [*_unprivileged(), str(self._bin / "initdb"), "-D", str(data), "-U", _USER, "-E", "UTF8"]
        command += ["--locale=C", "--auth=scram-sha-256", f"--pwfile={password}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        password.unlink()
        if done.returncode != 0:
            raise Missing(f"a database that can be made: {done.stderr[-1000:]}")
        with (data / "pg_hba.conf").open("a") as rules:
            rules.write("host all all all scram-sha-256\n")

    def _is_ready(self, port: int) -> bool:
        ask = [str(self._bin / "pg_isready"), "-q", "-h", self.host, "-p", str(port), "-U", _USER]
        return subprocess.run(ask, check=False).returncode == 0


def _unprivileged() -> list[str]:
    if os.geteuid() != 0:
        return []
    # Folders of tests may lie below some that only root may enter.
    reach = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    return ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups", *reach]
