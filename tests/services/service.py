"""What a service is: how it is made ready on this machine, and how one instance of it is started."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

CACHE = Path(os.environ.get("KAAPANA_SERVICES_CACHE", "~/.cache/kaapana-assets/services")).expanduser()


class Missing(Exception):
    """What a service needs and this machine does not have."""


def check_wanted() -> None:
    """Be a machine that has no service, where ``KAAPANA_SERVICES_NONE=1`` says so.

    Raises:
        Missing: it is one.
    """
    if os.environ.get("KAAPANA_SERVICES_NONE") == "1":
        raise Missing("a machine that has it (KAAPANA_SERVICES_NONE=1)")


@dataclass(frozen=True)
class Plan:
    """One instance of a service, ready to be started.

    Attributes:
        command: runs it in the foreground; SIGTERM ends it.
        is_ready: whether it answers; called every 0.1 s.
        settings: the ``KAAPANA_*`` variables with which the platform uses it.
        environment: variables that it needs beside those of this process.
        ready_within_s: longer is taken for a failure.
        hint: how a developer uses it, beside the settings.
    """

    command: Sequence[str]
    is_ready: Callable[[], bool]
    settings: Mapping[str, str]
    environment: Mapping[str, str] = field(default_factory=dict)
    ready_within_s: float = 180
    hint: str = ""


class Service(Protocol):
    """A kind of server.

    Attributes:
        name: as the command line and messages have it.
        ports: how many TCP ports it listens on.
    """

    name: str
    ports: int

    def prepare(self) -> None:
        """Build or find what it needs; quick if that was done before.

        Raises:
            Missing: the machine lacks something; the message says what.
        """

    def plan(self, folder: Path, ports: Sequence[int]) -> Plan:
        """How to start one that keeps its data in a folder; called again to start it again."""


def cached(name: str, build: Callable[[Path], None], *, quick: bool = False) -> Path:
    """A folder of the cache, filled by ``build`` if it is not there; whole or absent.

    Two processes that build at once both succeed, one build is kept. What is quick, some seconds, is
    also built where builds are switched off.
    """
    check_wanted()
    place = CACHE / name
    if place.is_dir():
        return place
    if not quick and os.environ.get("KAAPANA_SERVICES_BUILD", "1") == "0":
        raise Missing("a build of it: `make services` makes it, in some minutes")
    CACHE.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=CACHE))
    build(made)
    made.chmod(0o755)
    try:
        made.rename(place)
    except OSError:
        if not place.is_dir():
            raise
    return place


def run_build(command: Sequence[str | Path], *, folder: Path, **environment: str) -> None:
    """Run one step of a build.

    Raises:
        Missing: it failed; the message has the end of what it said.
    """
    argv = [str(part) for part in command]
    try:
        done = subprocess.run(
            argv, cwd=folder, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, text=True, errors="replace", check=False,
        )  # fmt: skip
    except FileNotFoundError as exc:
        raise Missing(f"the program {argv[0]}") from exc
    if done.returncode != 0:
        raise Missing(f"a build that works: {' '.join(argv[:3])} ended with {done.returncode}: {done.stdout[-1000:]}")
