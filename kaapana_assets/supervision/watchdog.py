"""Ends the platform's processes; as a small process, the watchdog, it does so when the supervisor was killed.

The watchdog reads lines from its standard input, whose other end only the supervisor holds. If the input closes
without the line ``done``, the supervisor is gone, and the watchdog ends the remaining processes.
"""

from __future__ import annotations

import math
import os
import shutil
import signal
import sys
import time
from dataclasses import dataclass

import psutil

TOKEN_VARIABLE = "KAAPANA_PLATFORM"  # noqa: S105 - the name of a mark, no secret
_POLL_S = 0.1


@dataclass(frozen=True)
class Members:
    """The processes of a platform: its process groups, and all processes with its mark in their environment."""

    groups: frozenset[int]
    token: str | None = None
    except_groups: frozenset[int] = frozenset()
    """Groups to leave alone although they have the mark."""

    def living(self) -> list[int]:
        """Return the ids of those that are running, except this process."""
        return [process.pid for process in psutil.process_iter() if process.pid != os.getpid() and self._has(process)]

    def end(self, *, grace_s: float) -> list[int]:
        """Send SIGTERM to all, and SIGKILL after ``grace_s`` seconds; return the ids of those that were killed.

        The seconds are counted in polls. If this process does not get to run, on a busy or suspended machine, the
        others do not either, and their grace period is longer by that time.
        """
        asked: set[int] = set()
        members = self.living()
        for _ in range(math.ceil(grace_s / _POLL_S)):
            if not members:
                break
            for pid in set(members) - asked:
                _signal(pid, signal.SIGTERM)
            asked.update(members)
            time.sleep(_POLL_S)
            members = self.living()
        killed: list[int] = []
        while members:
            for pid in members:
                _signal(pid, signal.SIGKILL)
            killed += [pid for pid in members if pid not in killed]
            time.sleep(_POLL_S)
            members = self.living()
        return killed

    def _has(self, process: psutil.Process) -> bool:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            group = os.getpgid(process.pid)
            if group in self.except_groups:
                return False
            if group in self.groups:
                return True
            return self.token is not None and process.environ().get(TOKEN_VARIABLE) == self.token
        except (psutil.Error, OSError):
            return False


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def main() -> None:
    """Wait for the supervisor's end; the arguments are the platform's mark and its folder of sockets."""
    token, folder = sys.argv[1:]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        word, *rest = line.split()
        if word == "done":
            return
        if word == "group":
            groups.add(int(rest[0]))
        elif word == "ended":
            groups.discard(int(rest[0]))
    Members(frozenset(groups), token).end(grace_s=4)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
