"""The whole platform as a user starts it, for tests that look at it from outside."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from system.asked_dagster import AskedDagster

from kaapana_assets.errors import DagsterUnavailable
from kaapana_assets.supervision.record import PlatformRecord, running_platform
from kaapana_assets.supervision.watchdog import TOKEN_VARIABLE, Members

PROJECT_ROOT = Path(__file__).resolve().parents[2]
PORTS = ("KAAPANA_WEBSERVER_PORT", "KAAPANA_RECEIVER_PORT", "KAAPANA_HEALTH_PORT")
UP_TIMEOUT_S = 120
STOP_TIMEOUT_S = 60


@dataclass
class RunningPlatform:
    """A platform that a test started: ``kaapana-assets up`` in its own home, on free ports."""

    home: Path
    environment: dict[str, str]
    process: subprocess.Popen[str]
    console: Path
    clients: dict[str, AskedDagster] = field(default_factory=dict)

    @property
    def record(self) -> PlatformRecord:
        record = running_platform(self.home)
        assert record is not None, self.said()
        return record

    @property
    def dagster(self) -> AskedDagster:
        url = self.record.dagster_url
        return self.clients.setdefault(url, AskedDagster(url))

    @property
    def receiver(self) -> tuple[str, int]:
        return self.record.receiver_host, self.record.receiver_port

    def kaapana(
        self, *args: str | Path, check: bool = True, timeout_s: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """One command as a user types it, with this platform's home."""
        done = subprocess.run(
            [sys.executable, "-m", "kaapana_assets", *map(str, args)],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
        )
        assert not check or done.returncode == 0, f"{args}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def said(self) -> str:
        """What the platform has printed so far."""
        return self.console.read_text()

    def wait_until_said(self, pattern: str, timeout_s: float = 60) -> str:
        """What it printed, once that holds the pattern."""
        deadline = time.monotonic() + timeout_s
        while not re.search(pattern, self.said()):
            assert self.process.poll() is None or re.search(pattern, self.said()), self.said()
            assert time.monotonic() < deadline, f"{pattern!r} was not said in {timeout_s} s:\n{self.said()}"
            time.sleep(0.05)
        return self.said()

    def wait_until(self, holds, timeout_s: float = 60, what: str = ""):
        """What ``holds()`` returns once that is true."""
        deadline = time.monotonic() + timeout_s
        while not (found := holds()):
            assert time.monotonic() < deadline, f"{what or holds} did not come true in {timeout_s} s:\n{self.said()}"
            time.sleep(0.1)
        return found

    def stop(self, number: int = signal.SIGINT) -> None:
        """End it as Ctrl-C does and see that nothing is left."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.wait(STOP_TIMEOUT_S)
        assert self.processes() == [], "processes outlived the platform"

    def processes(self) -> list[str]:
        """Command lines of the processes that belong to this home."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.status() != psutil.STATUS_ZOMBIE and process.pid != os.getpid() and self._owns(process):
                    found.append(" ".join(process.cmdline()))
            except psutil.Error:
                continue
        return found

    def _owns(self, process: psutil.Process) -> bool:
        # PostgreSQL's own processes overwrite their environment; they name the home.
        home = str(self.home)
        if any(home in argument for argument in process.cmdline()):
            return True
        return process.environ().get("KAAPANA_HOME") == home


@dataclass
class RunningDev(RunningPlatform):
    """A bare ``dagster dev`` in the checkout with a receiver beside it: the platform without its supervisor."""

    receiving: subprocess.Popen[str] | None = None

    @property
    def dagster(self) -> AskedDagster:
        url = f"http://127.0.0.1:{self.environment['KAAPANA_WEBSERVER_PORT']}"
        return self.clients.setdefault(url, AskedDagster(url))

    def is_up(self) -> bool:
        assert self.process.poll() is None, self.said()
        try:
            return self.dagster.is_loaded() and not self.dagster.silent_daemons()
        except DagsterUnavailable:
            return False

    def stop(self, number: int = signal.SIGINT) -> None:
        try:
            for process in (self.receiving, self.process):
                if process is not None and process.poll() is None:
                    process.send_signal(number)
                    process.wait(STOP_TIMEOUT_S)
        finally:
            # `dagster dev` alone promises less than the supervisor: what it left is ended here.
            Members(frozenset({self.process.pid}), self.environment[TOKEN_VARIABLE]).end(grace_s=3)


class Platforms:
    """Starts platforms and ends those that a test left."""

    def __init__(self) -> None:
        self._started: list[RunningPlatform] = []
        self._folders: list[Path] = []

    @property
    def newest(self) -> RunningPlatform:
        """The one that was started last."""
        return self._started[-1]

    def new_home(self) -> Path:
        """A folder with a short path: sockets' paths are limited to about 100 characters."""
        self._folders.append(Path(tempfile.mkdtemp(prefix="ka-")))
        return self._folders[-1] / "home"

    def start(self, home: Path | None = None, *, wait: bool = True, **environment: str) -> RunningPlatform:
        home = home or self.new_home()
        every = _environment(home) | dict.fromkeys(PORTS, "0") | environment
        console = home.parent / f"console-{len(self._started)}.txt"
        process = _start(["kaapana_assets", "up"], every, console)
        platform = RunningPlatform(home, every, process, console)
        self._started.append(platform)
        if wait:
            platform.wait_until_said(r"up after", UP_TIMEOUT_S)
        return platform

    def start_dev(self, home: Path, ports: Sequence[int], **environment: str) -> RunningDev:
        """``dagster dev`` and ``kaapana-assets receive``, as somebody types them in two terminals."""
        dagster_home = home / "dagster"
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        home.chmod(0o700)
        dagster_home.mkdir(exist_ok=True)
        (dagster_home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
        every = _environment(home) | environment
        every |= {"DAGSTER_HOME": str(dagster_home), TOKEN_VARIABLE: uuid.uuid4().hex}
        every |= {"KAAPANA_WEBSERVER_PORT": str(ports[0]), "KAAPANA_RECEIVER_PORT": str(ports[1])}
        console = home.parent / "console-dev.txt"
        process = _start(["dagster", "dev", "--port", str(ports[0])], every, console)
        dev = RunningDev(home, every, process, console)
        self._started.append(dev)
        dev.receiving = _start(["kaapana_assets", "receive"], every, home.parent / "console-receive.txt")
        dev.wait_until(dev.is_up, UP_TIMEOUT_S, "dagster dev")
        return dev

    def end(self) -> None:
        try:
            # The newest first: of two on one home it is the one that may still run.
            for platform in reversed(self._started):
                platform.stop()
        finally:
            for platform in self._started:
                platform.process.kill()
                platform.process.wait()
            for folder in self._folders:
                shutil.rmtree(folder, ignore_errors=True)


def _environment(home: Path) -> dict[str, str]:
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    every = {name: value for name, value in os.environ.items() if not name.startswith(("KAAPANA_", "DAGSTER_"))}
    every.pop("PYTHONDONTWRITEBYTECODE", None)
    return every | {"KAAPANA_HOME": str(home)}


def _start(module: list[str], environment: dict[str, str], console: Path) -> subprocess.Popen[str]:
    with console.open("w") as output:
        return subprocess.Popen(
            [sys.executable, "-m", *module],
            cwd=PROJECT_ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            # A test run that a shell has put into the background ignores it, and would hand that on.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - calls no Python lock
        )


@pytest.fixture
def platforms() -> Iterator[Platforms]:
    """For tests that start and break platforms of their own."""
    started = Platforms()
    yield started
    started.end()


@pytest.fixture(scope="module")
def module_platforms() -> Iterator[Platforms]:
    """For a file of tests that share a platform with settings of their own."""
    started = Platforms()
    yield started
    started.end()


@pytest.fixture(scope="session")
def platform() -> Iterator[RunningPlatform]:
    """One running platform for all tests of the session; they use series and cohorts of their own."""
    started = Platforms()
    try:
        yield started.start()
    finally:
        started.end()
