"""One supervised process: starts it, checks that it is ready, and restarts it after a crash."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kaapana_assets.errors import TemporaryError

_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0
_STEADY_S = 60.0
_LOG_LIMIT_BYTES = 20 * 1024**2


@dataclass(frozen=True)
class Part:
    """The definition of a process: its command, its checks and its stop signal."""

    name: str
    argv: Sequence[str]
    is_ready: Callable[[], bool]
    """Called repeatedly after the start; must return quickly."""
    ready_timeout_s: float = 90
    before_start: Callable[[], None] | None = None
    """Cleans up after an earlier process of this part."""
    is_alive: Callable[[int], bool] | None = None
    """Called with the process id while the process runs, for a part that may be alive but useless."""
    stop_signal: int = signal.SIGTERM


class PartFailed(TemporaryError):
    """A part of the platform did not become ready; the message names its log file."""


class PartProcess:
    """The process of one part, across its restarts."""

    def __init__(self, part: Part, *, environment: Mapping[str, str], log: Path) -> None:
        self.part = part
        self.log = log
        self.restarts = 0
        self.started_at = 0.0
        self._began = 0.0
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._pause_s = _FIRST_PAUSE_S
        self._next_start = 0.0

    @property
    def pid(self) -> int | None:
        """Process id and group of the running process; None while none runs."""
        return None if self._process is None else self._process.pid

    @property
    def runs_for_s(self) -> float:
        """Seconds since its start, regardless of changes to the system clock."""
        return time.monotonic() - self._began

    def start(self) -> int:
        """Start the process, which leads its own session and group; return its id."""
        self.started_at = time.time()
        if self.part.before_start is not None:
            self.part.before_start()
        self._began = time.monotonic()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > _LOG_LIMIT_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                list(self.part.argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
            )
        return self._process.pid

    def ended(self) -> str | None:
        """Return how the process ended; None while it runs."""
        if self._process is None:
            return "it was not started"
        code = self._process.poll()
        if code is None:
            return None
        if code < 0:
            return f"killed by {signal.Signals(-code).name}"
        return f"exit code {code}"

    def check_ready(self) -> bool:
        """Whether it is ready now.

        Raises:
            PartFailed: the process ended, or was not ready in time.
        """
        how = self.ended()
        if how is not None:
            raise PartFailed(f"{self.part.name} ended while starting: {how}\n{self.last_words()}")
        if self.part.is_ready():
            return True
        if self.runs_for_s > self.part.ready_timeout_s:
            raise PartFailed(f"{self.part.name} is not ready after {self.part.ready_timeout_s:.0f} s; see {self.log}")
        return False

    def crashed(self) -> str | None:
        """Return how the part failed, also if its process is alive but useless; None while it works."""
        how = self.ended()
        if how is None and self.part.is_alive is not None and self._process is not None:
            if self.part.is_alive(self._process.pid):
                return None
            how = "its server process is gone"
        return how

    def forget(self) -> float:
        """Mark the process as gone; return the seconds to wait before the next start."""
        if self._process is not None:
            self._process.poll()
        self._process = None
        if self.runs_for_s > _STEADY_S:
            self._pause_s = _FIRST_PAUSE_S
        pause = self._pause_s
        self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)
        self._next_start = time.monotonic() + pause
        self.restarts += 1
        return pause

    def is_due(self) -> bool:
        """Whether the pause after a crash is over."""
        return self._process is None and time.monotonic() >= self._next_start

    def signal(self, number: int) -> None:
        """Send a signal to the whole process group, unless it has ended."""
        if self._process is None or self._process.poll() is not None:
            return
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return

    def wait(self, timeout_s: float) -> bool:
        """Wait for the process; return whether it ended within ``timeout_s`` seconds."""
        if self._process is None:
            return True
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def last_words(self) -> str:
        """Return the last lines of its log, with the path of the log."""
        try:
            lines = self.log.read_text(errors="replace").splitlines()[-15:]
        except FileNotFoundError:
            lines = []
        return "\n".join([f"the end of {self.log}:", *(f"  {line}" for line in lines)])
