"""One supervised process: ready, failed, crashed, started again later and later."""

import os
import signal
import sys
import time

import pytest

from kaapana_assets.errors import TemporaryError
from kaapana_assets.supervision.processes import Part, PartProcess


def child(tmp_path, code: str, **changes) -> PartProcess:
    part = Part("part", [sys.executable, "-c", code], **({"is_ready": lambda: True} | changes))
    return PartProcess(part, environment=os.environ, log=tmp_path / "logs" / "part.log")


def until_ended(started: PartProcess) -> str:
    assert started.wait(20)
    return started.ended()


def test_an_end_while_starting_is_told_with_the_last_lines_of_the_log(tmp_path):
    failing = child(tmp_path, "print('the reason'); raise SystemExit(3)", is_ready=lambda: False)
    failing.start()
    until_ended(failing)
    with pytest.raises(TemporaryError, match=r"part ended while starting: exit code 3\n(.|\n)*the reason"):
        failing.check_ready()


def test_one_that_is_never_ready_is_told_with_the_seconds(tmp_path):
    slow = child(tmp_path, "import time; time.sleep(60)", is_ready=lambda: False, ready_timeout_s=0)
    slow.start()
    try:
        with pytest.raises(TemporaryError, match="part is not ready after 0 s"):
            slow.check_ready()
    finally:
        slow.signal(signal.SIGKILL)
        slow.wait(5)


def test_a_signal_that_ended_it_is_named(tmp_path):
    killed = child(tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    killed.start()
    assert until_ended(killed) == "killed by SIGKILL"
    assert killed.crashed() == "killed by SIGKILL"


def test_a_living_process_of_no_use_counts_as_crashed(tmp_path):
    useless = child(tmp_path, "import time; time.sleep(60)", is_alive=lambda _pid: False)
    useless.start()
    try:
        assert useless.crashed() == "its server process is gone"
    finally:
        useless.signal(signal.SIGKILL)
        useless.wait(5)


def test_pauses_between_crashes_double_up_to_a_limit(tmp_path):
    crashing = child(tmp_path, "pass")
    pauses = []
    for _ in range(7):
        crashing.start()
        until_ended(crashing)
        pauses.append(crashing.forget())
        assert not crashing.is_due()
    assert pauses == [1, 2, 4, 8, 16, 30, 30]


def test_a_pause_ends(tmp_path):
    crashing = child(tmp_path, "pass")
    crashing.start()
    until_ended(crashing)
    crashing.forget()
    deadline = time.monotonic() + 10
    while not crashing.is_due():
        assert time.monotonic() < deadline
    assert crashing.pid is None


def test_a_signal_reaches_what_the_process_started(tmp_path):
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    parent = child(tmp_path, code)
    group = parent.start()
    parent.signal(signal.SIGKILL)
    until_ended(parent)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
    pytest.fail("the group is still there")
