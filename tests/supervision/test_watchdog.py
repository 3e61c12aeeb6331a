"""The watchdog ends what a killed supervisor left, and nothing else."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kaapana_assets.supervision.watchdog import TOKEN_VARIABLE, Members

STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(300)"
)
# Dagster, run in this process where SIGINT is ignored (a job in the background), has left SIGTERM ignored, too.
KIND = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_DFL); print('up', flush=True); time.sleep(300)"
ESCAPED = (
    "import subprocess, sys, time\n"
    f"subprocess.Popen([sys.executable, '-c', {KIND!r}], start_new_session=True, stdout=subprocess.DEVNULL)\n"
    "print('up', flush=True)\ntime.sleep(300)"
)


class Processes:
    def __init__(self) -> None:
        self.started: list[subprocess.Popen[str]] = []

    def start(self, code: str, token: str | None = None) -> subprocess.Popen[str]:
        environment = dict(os.environ) | ({TOKEN_VARIABLE: token} if token else {})
        process = subprocess.Popen(
            [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        self.started.append(process)
        return process


@pytest.fixture
def processes() -> Iterator[Processes]:
    made = Processes()
    yield made
    for process in made.started:
        process.kill()
        process.communicate()


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp())
    yield path
    shutil.rmtree(path, ignore_errors=True)


def start_watchdog(token: str, folder: Path) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "kaapana_assets.supervision.watchdog", token, str(folder)]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, text=True, start_new_session=True)


def test_a_closed_pipe_ends_the_groups_and_removes_the_folder(processes, folder):
    part = processes.start(KIND)
    bystander = processes.start(KIND)
    watchdog = start_watchdog("no-such-token", folder)
    watchdog.communicate(f"group {part.pid}\n", timeout=30)
    assert part.wait(10) != 0
    assert bystander.poll() is None
    assert not folder.exists()


def test_done_leaves_everything_as_it_is(processes, folder):
    part = processes.start(KIND)
    watchdog = start_watchdog("no-such-token", folder)
    watchdog.communicate(f"group {part.pid}\ndone\n", timeout=30)
    assert watchdog.returncode == 0
    assert part.poll() is None
    assert folder.exists()


def test_a_group_that_ended_is_not_ended_again(processes, folder):
    part = processes.start(KIND)
    watchdog = start_watchdog("no-such-token", folder)
    watchdog.communicate(f"group {part.pid}\nended {part.pid}\n", timeout=30)
    assert part.poll() is None


def test_what_left_its_group_is_found_by_its_mark(processes):
    token = f"test-{os.getpid()}-escaped"
    part = processes.start(ESCAPED, token)
    members = Members(frozenset({part.pid}), token)
    assert len(members.living()) == 2
    members.end(grace_s=5)
    assert members.living() == []


def test_what_ignores_the_kind_signal_is_killed_and_told(processes):
    stubborn = processes.start(STUBBORN)
    assert Members(frozenset({stubborn.pid})).end(grace_s=0.5) == [stubborn.pid]
    assert stubborn.wait(30) == -signal.SIGKILL


def test_what_heeds_the_kind_signal_is_not_killed(processes):
    kind = processes.start(KIND)
    assert Members(frozenset({kind.pid})).end(grace_s=60) == []  # as soon as it has ended
    assert kind.wait(30) == -signal.SIGTERM


def test_excepted_groups_live_on(processes):
    token = f"test-{os.getpid()}-spared"
    spared, ended = processes.start(KIND, token), processes.start(KIND, token)
    Members(frozenset(), token, except_groups=frozenset({spared.pid})).end(grace_s=5)
    assert spared.poll() is None
    assert ended.wait(5) != 0
