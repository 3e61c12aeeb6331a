"""Starting one instance of a service, ending it, and starting it again with the same data."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from services.service import Missing, Service, check_wanted

_PR_SET_PDEATHSIG = 1
_STOP_WITHIN_S = 40


class Running:
    """A service that runs, or can be started again, on the same ports with the same data.

    Attributes:
        settings: the ``KAAPANA_*`` variables with which the platform uses it.
        ports: where it listens.
        log: what it wrote to its standard output and error.
    """

    def __init__(self, service: Service, folder: Path, *, ports: Sequence[int] = (), detached: bool = False) -> None:
        check_wanted()
        service.prepare()
        self.service = service
        self.folder = folder
        self.ports = tuple(ports) or free_ports(service.ports)
        self.log = folder / f"{service.name}.log"
        self._detached = detached
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self.plan = service.plan(folder, self.ports)
        self.settings = dict(self.plan.settings)
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            Missing: it ended, or does not answer in time; the message has the end of its log.
        """
        self.plan = self.service.plan(self.folder, self.ports)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                list(self.plan.command), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder,
                env=os.environ | self.plan.environment, start_new_session=True,
                preexec_fn=None if self._detached else _end_with_parent,  # noqa: PLW1509 - calls no Python lock
            )  # fmt: skip
        deadline = time.monotonic() + self.plan.ready_within_s
        while not self.plan.is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                said = self.log.read_text(errors="replace")[-1500:]
                raise Missing(f"a {self.service.name} that starts; it said in {self.log}: {said}")
            time.sleep(0.1)

    def stop(self) -> None:
        """End it as an administrator would."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut would."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Let it hang: connections stay open and nothing answers."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """End a pause."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            self.process.wait(_STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None


def free_ports(count: int) -> tuple[int, ...]:
    """Different TCP ports of the loopback interface that nothing listens on."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = tuple(int(probe.getsockname()[1]) for probe in probes)
    for probe in probes:
        probe.close()
    return ports


_LIBC = ctypes.CDLL(None)


def _end_with_parent() -> None:
    """In the child: a test process that is killed leaves no server behind (Linux)."""
    if hasattr(_LIBC, "prctl"):
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
