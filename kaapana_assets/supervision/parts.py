"""Defines the processes of the platform and their environments."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from kaapana_assets.errors import ConfigurationError, DagsterUnavailable
from kaapana_assets.graphql import DagsterClient
from kaapana_assets.home_paths import HomePaths
from kaapana_assets.settings import Settings
from kaapana_assets.supervision.instance import LOCATION, VARIABLES
from kaapana_assets.supervision.needs import CODE, DAEMON, HEALTH, POSTGRES, RECEIVER, WEBSERVER, given_to
from kaapana_assets.supervision.postgres import Postgres
from kaapana_assets.supervision.processes import Part
from kaapana_assets.supervision.watchdog import TOKEN_VARIABLE

_SERVER_STARTS_S = 60.0


@dataclass(frozen=True)
class Places:
    """The paths that the parts share; ``folder`` is temporary, with a path short enough for sockets."""

    home: Path
    folder: Path

    @property
    def dagster_home(self) -> Path:
        """DAGSTER_HOME of all parts."""
        return HomePaths(self.home).dagster

    @property
    def code_socket(self) -> Path:
        """Socket of the code server."""
        return self.folder / "code.sock"

    @property
    def postgres_socket(self) -> Path:
        """Folder of PostgreSQL's socket."""
        return self.folder / "postgres"

    @property
    def workspace(self) -> Path:
        """Dagster's workspace file."""
        return self.dagster_home / "workspace.yaml"

    @property
    def receiver_ready(self) -> Path:
        """File that the receiver writes once it listens."""
        return self.folder / "receiver.ready"

    @property
    def health_ready(self) -> Path:
        """File that the health page writes once it is served."""
        return self.folder / "health.ready"

    def log(self, part: str) -> Path:
        """File with the output of the part."""
        return HomePaths(self.home).log(part)


def child_environment(settings: Settings, places: Places, token: str, *, part: str) -> dict[str, str]:
    """Return the environment of a part: this one without the secrets it does not need, plus home and ports."""
    environment = given_to(part, os.environ)
    # This variable would double the start-up time of Python, and so of each run.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment | {
        TOKEN_VARIABLE: token,
        "KAAPANA_HOME": str(settings.home),
        "KAAPANA_WEBSERVER_PORT": str(settings.webserver_port),
        "KAAPANA_RECEIVER_PORT": str(settings.receiver_port),
        "KAAPANA_HEALTH_PORT": str(settings.health_port),
        "DAGSTER_HOME": str(places.dagster_home),
        "PYTHONUNBUFFERED": "1",
        **VARIABLES,
    }


def first_parts(places: Places, *, definitions: str) -> list[Part]:
    """Return the parts that need only PostgreSQL: code server and receiver."""
    python = [sys.executable, "-m"]
    code = [*python, "dagster", "code-server", "start", "--socket", str(places.code_socket)]
    code += ["-m", definitions, "--location-name", LOCATION]
    receiver = [*python, "kaapana_assets", "receive", "--ready-file", str(places.receiver_ready)]
    return [
        Part(
            CODE,
            code,
            is_ready=lambda: _accepts(places.code_socket),
            before_start=lambda: places.code_socket.unlink(missing_ok=True),
            is_alive=_Servers().has_one,
        ),
        Part(
            RECEIVER,
            receiver,
            is_ready=places.receiver_ready.exists,
            before_start=lambda: places.receiver_ready.unlink(missing_ok=True),
        ),
    ]


def dagster_parts(settings: Settings, places: Places, client: DagsterClient) -> list[Part]:
    """Return the parts that need the code server: webserver and daemon."""
    python = [sys.executable, "-m"]
    address = ["--host", settings.webserver_host, "--port", str(settings.webserver_port)]
    quiet = ["--dagster-log-level", "warning", "--uvicorn-log-level", "warning"]
    webserver = [*python, "kaapana_assets.defs.webserver", "-w", str(places.workspace), *address, *quiet]
    daemon = [*python, "dagster._daemon", "run", "-w", str(places.workspace)]
    heartbeat = _Heartbeat(client)
    return [
        Part(WEBSERVER, webserver, is_ready=lambda: _answers(client)),
        Part(DAEMON, daemon, is_ready=heartbeat.is_there, before_start=heartbeat.forget),
    ]


def health_part(places: Places) -> Part:
    """Return the part that serves the health page."""
    return Part(
        HEALTH,
        [sys.executable, "-m", "kaapana_assets", "health", "--ready-file", str(places.health_ready)],
        is_ready=places.health_ready.exists,
        before_start=lambda: places.health_ready.unlink(missing_ok=True),
    )


def postgres_part(postgres: Postgres) -> Part:
    """Return the part that runs PostgreSQL, Dagster's storage."""
    return Part(
        POSTGRES,
        postgres.argv(),
        is_ready=postgres.is_ready,
        before_start=postgres.prepare,
        stop_signal=signal.SIGINT,
    )


def claim_ports(settings: Settings) -> Settings:
    """Return the settings with each port 0 replaced by a free port.

    Raises:
        ConfigurationError: a requested port is in use; names the setting.
    """
    addresses: Mapping[str, tuple[str, int]] = {
        "webserver_port": (settings.webserver_host, settings.webserver_port),
        "receiver_port": (settings.receiver_host, settings.receiver_port),
        "health_port": (settings.health_host, settings.health_port),
    }
    probes = []
    found = {}
    try:
        for name, (host, port) in addresses.items():
            probe = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
            probes.append(probe)
            # As servers do, so that a connection in TIME_WAIT does not block the port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as exc:
                setting = f"KAAPANA_{name.upper()}"
                raise ConfigurationError(
                    f"{setting}={port} can't be used on {host}: {exc.strerror}; set {setting} "
                    f"(or --{name.replace('_', '-')}) to another port, or to 0 for a free one"
                ) from exc
            found[name] = probe.getsockname()[1]
    finally:
        for probe in probes:
            probe.close()
    return settings.model_copy(update=found)


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


class _Servers:
    """Checks that the code server still works.

    The code server is a proxy for a child process with the definitions, and does not restart that process.
    """

    def __init__(self) -> None:
        self._seen: dict[int, float] = {}

    def has_one(self, pid: int) -> bool:
        first = self._seen.setdefault(pid, time.monotonic())
        try:
            proxy = psutil.Process(pid)
            if time.monotonic() - first < _SERVER_STARTS_S:
                return True
            return any(child.status() != psutil.STATUS_ZOMBIE for child in proxy.children())
        except psutil.Error:
            return False


def _answers(client: DagsterClient) -> bool:
    try:
        return client.is_loaded()
    except DagsterUnavailable:
        return False


class _Heartbeat:
    """Checks that all daemons had a heartbeat since the last start; older heartbeats are of an earlier process."""

    def __init__(self, client: DagsterClient) -> None:
        self._client = client
        self._since = time.time()

    def forget(self) -> None:
        self._since = time.time()

    def is_there(self) -> bool:
        try:
            return not self._client.silent_daemons(since=self._since)
        except DagsterUnavailable:
            return False
