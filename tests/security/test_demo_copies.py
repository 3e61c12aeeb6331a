"""The demo lays real images out to send them: no copy of them stays where the platform does not see it."""

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from system.conftest import RunningPlatform, module_platforms  # noqa: F401 - a fixture

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(importlib.util.find_spec("data_store") is None, reason="needs kaapana-assets[demo]"),
]


@pytest.fixture(scope="module")
def up(module_platforms) -> RunningPlatform:  # noqa: F811 - the fixture
    return module_platforms.start()


def demo(up: RunningPlatform, said: Path) -> subprocess.Popen[bytes]:
    with said.open("w") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "kaapana_assets", "demo"],
            env=up.environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            # As `start` of the platform: a shell in the background has it ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )  # fmt: skip


def end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_demo_that_is_ended_while_it_sends_leaves_no_copies(up, tmp_path, number):
    process = demo(up, tmp_path / "said")
    try:
        up.wait_until(lambda: list((up.home / "demo").rglob("*.dcm")) or process.poll(), 60, "files to send")
        process.send_signal(number)
        process.wait(30)
        assert "Traceback" not in (tmp_path / "said").read_text()
        assert not (up.home / "demo").exists()
    finally:
        end(process)


def test_copies_are_gone_when_they_were_sent_and_those_of_a_killed_demo_with_them(up, tmp_path):
    left = up.home / "demo" / "outgoing" / "1.2" / "left.dcm"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"of a killed one")
    process = demo(up, tmp_path / "said")
    try:
        up.wait_until(lambda: "== ingest" in (tmp_path / "said").read_text() or process.poll(), 120, "the sending")
        assert not (up.home / "demo").exists()
        assert process.poll() is None, (tmp_path / "said").read_text()
    finally:
        end(process)
