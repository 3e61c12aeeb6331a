"""``kaapana-assets up`` as a user meets it: start, crash, second start, stop."""

import os
import signal
import socket
from pathlib import Path

import pytest
from system.conftest import PORTS

from kaapana_assets.supervision.record import settings_in_use

pytestmark = pytest.mark.system


def test_up_serves_the_web_ui_and_dicom_and_stops_on_ctrl_c(platforms):
    up = platforms.start()

    assert up.dagster.is_loaded()
    assert ("dicom_series",) in up.dagster.asset_keys()
    with socket.create_connection(up.receiver, timeout=5):
        pass
    said = up.said()
    assert up.record.dagster_url in said
    assert f"{up.receiver[0]}:{up.receiver[1]}" in said

    up.stop(signal.SIGINT)
    assert "stopped after" in up.said()
    assert up.process.returncode == 0
    assert up.kaapana("down").stdout.startswith("no platform is up")
    assert not (up.home / "platform.json").exists()


def test_a_second_platform_on_the_same_home_is_refused(platform):
    second = platform.kaapana("up", check=False)
    assert second.returncode == 2
    assert f"already up on KAAPANA_HOME={platform.home}" in second.stderr
    assert platform.dagster.is_loaded()


def test_a_crashed_part_is_started_again_and_said_so(platforms):
    up = platforms.start()
    for part in ("receiver", "webserver", "daemon", "code-server", "postgres"):
        os.kill(up.record.parts[part], signal.SIGKILL)
        up.wait_until_said(rf"{part} crashed \(killed by SIGKILL\); starts again in \d+ s")
        up.wait_until_said(rf"{part} is back after", 90)
    up.wait_until(up.dagster.is_loaded, what="Dagster works again")
    with socket.create_connection(up.receiver, timeout=5):
        pass


def test_ctrl_c_while_starting_leaves_nothing(platforms):
    up = platforms.start(wait=False)
    up.wait_until_said("postgres ")
    up.stop(signal.SIGINT)
    assert "stopped after" in up.said()
    assert "up after" not in up.said()


def test_up_right_after_a_kill_works_and_down_stops_it_from_elsewhere(platforms):
    up = platforms.start()
    up.process.kill()
    up.process.wait()
    again = platforms.start(up.home)
    assert again.dagster.is_loaded()
    assert "stopped after" in again.kaapana("down").stdout
    assert again.process.wait(5) == 0


def test_parts_that_take_long_to_end_on_a_busy_machine_are_not_killed(platforms):
    """A stand-in for the definitions takes as long as two busy cores make the real ones take."""
    home = platforms.new_home()
    home.mkdir()
    (home.parent / "lingering.py").write_text(
        "import atexit, os, time\nimport dagster as dg\nfrom pathlib import Path\n"
        f"ended = Path({str(home.parent)!r}, 'ended')\n"
        "atexit.register(lambda: (time.sleep(10), ended.touch()))\n"
        "defs = dg.Definitions()\n"
    )
    up = platforms.start(home, KAAPANA_DEFINITIONS="lingering", PYTHONPATH=str(home.parent))
    up.stop()
    assert (home.parent / "ended").exists()
    assert "killed" not in up.said()


@pytest.mark.parametrize("setting", PORTS)
def test_a_port_in_use_is_said_with_its_setting(platforms, setting):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        up = platforms.start(wait=False, **{setting: str(taken.getsockname()[1])})
        assert up.process.wait(30) == 2
        assert f"{setting}={taken.getsockname()[1]} can't be used" in up.said()


def test_a_killed_supervisor_takes_its_parts_along_and_the_next_up_fails_the_runs_that_died(platforms):
    """A stand-in for the definitions has one job that would run for ever."""
    home = platforms.new_home()
    home.mkdir()
    (home.parent / "endless.py").write_text(
        "import time\nimport dagster as dg\n"
        "@dg.asset\ndef slow():\n    time.sleep(600)\n"
        "defs = dg.Definitions([slow], jobs=[dg.define_asset_job('slow_job', [slow], "
        "executor_def=dg.in_process_executor)])\n"
    )
    environment = {"KAAPANA_DEFINITIONS": "endless", "PYTHONPATH": str(home.parent)}
    up = platforms.start(home, **environment)
    folder = Path(up.record.folder)
    run_id = up.dagster.launch("slow_job")
    up.wait_until(lambda: up.dagster.run_status(run_id) == "STARTED", what="the run started")
    up.process.kill()
    up.process.wait()
    up.wait_until(lambda: not up.processes(), timeout_s=20, what="all parts ended")
    up.wait_until(lambda: not folder.exists(), timeout_s=5, what="the sockets are gone")

    again = platforms.start(home, **environment)
    run = again.dagster.wait(run_id, timeout_s=30)
    assert run.status == "FAILURE"
    said = [event.message for event in again.dagster.events(run_id)[0]]
    assert any("The platform was stopped while it ran" in message for message in said)


def test_other_commands_find_the_ports_of_the_running_platform(platform):
    settings = settings_in_use(home=platform.home, receiver_port=0, webserver_port=0)
    assert settings.dagster_url == platform.dagster.url
    assert (settings.receiver_host, settings.receiver_port) == platform.receiver
