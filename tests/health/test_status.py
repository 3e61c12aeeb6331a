"""``kaapana-assets status``: what it shows and its exit code."""

import dataclasses
import json
import os
import subprocess
import sys
import time

import pytest
from health.conftest import all_stores_at, command_environment

from kaapana_assets import home_record
from kaapana_assets.home import MARKER
from kaapana_assets.supervision import record

RECORD = record.PlatformRecord(
    pid=os.getpid(),
    token="t",
    folder="/nowhere",
    webserver_host="127.0.0.1",
    webserver_port=1,
    receiver_host="127.0.0.1",
    receiver_port=1,
    receiver_ae_title="KAAPANA",
    health_host="127.0.0.1",
    health_port=2,
    parts={"webserver": 5},
    down=["receiver"],
    restarts=3,
    crashes=[record.Crash("receiver", time.time(), "killed by SIGKILL", "/logs/receiver.log")],
)


def test_without_a_platform_it_shows_stores_and_spool_and_that_is_no_failure(kaapana, home):
    done = kaapana("status")
    assert done.returncode == 0, done.stderr
    assert "no platform is up" in done.stdout
    for line in (f"folder {home}/archive", f"sqlite {home}/index.sqlite", f"folder {home}/incoming", "receiver    off"):
        assert line in done.stdout
    assert done.stderr == ""
    assert sorted(path.name for path in home.iterdir()) == [MARKER, home_record.RECORD]


def test_without_a_home_it_says_where_it_looked_and_makes_none(kaapana, tmp_path):
    elsewhere = tmp_path / "nothing"
    done = kaapana("status", KAAPANA_HOME=str(elsewhere))
    assert done.returncode == 2
    assert f"no home: {elsewhere} is not there" in done.stderr
    assert not elsewhere.exists()


def test_workflow_file_with_which_something_is_wrong_is_told(kaapana, home):
    dags = home / "workflows" / "dags"
    dags.mkdir(parents=True)
    (dags / "nothing.py").write_text("print('printed when it is loaded')\n")
    for arguments in (("status",), ("status", "--json")):
        done = until_files_are_loaded(kaapana, *arguments)
        assert done.returncode == 1
        assert "nothing.py: it defines no workflow" in done.stdout
    assert "everything works" not in done.stdout
    told = kaapana("workflows")
    assert (told.returncode, "it defines no workflow" in told.stderr) == (1, True)


def until_files_are_loaded(kaapana, *arguments):
    """A machine with much to do may need longer than the command waits for them; then it says so."""
    deadline = time.monotonic() + 60
    while "still being loaded" in (done := kaapana(*arguments)).stdout:
        assert time.monotonic() < deadline
    return done


def test_a_store_that_does_not_work_is_exit_code_1(kaapana, home):
    (home / "index.sqlite").write_text("no database")
    done = kaapana("status")
    assert done.returncode == 1
    assert "index       broken" in done.stdout
    assert done.stdout.endswith("index: not working\n")
    assert done.stderr == ""


def test_servers_that_are_away_are_told_without_traceback_or_secret(kaapana, free_port):
    done = kaapana("status", "--json", **all_stores_at(free_port))
    said = json.loads(done.stdout)
    assert (done.returncode, said["ok"], done.stderr) == (1, False, "")
    broken = [name for name, each in said["findings"].items() if each["state"] == "broken"]
    assert broken == ["pacs", "index", "objects", "storage"]
    assert "hidden-word" not in done.stdout
    assert "Traceback" not in done.stdout


def test_a_platform_that_is_up_must_answer_and_its_crashes_are_told(kaapana, home):
    with record.lock_home(home):
        record.write_record(home, RECORD)
        done = kaapana("status")
        said = json.loads(kaapana("status", "--json").stdout)
    assert done.returncode == 1
    assert "up, health page at http://127.0.0.1:2/" in done.stdout
    assert done.stdout.endswith("receiver, PostgreSQL, Dagster, parts: not working\n")
    assert "crashed, to be started again: receiver" in done.stdout
    assert said["findings"]["parts"]["counts"] == {"running": 1, "restarts": 3}
    (error,) = said["errors"]
    assert (error["kind"], error["what"], error["reason"]) == ("part", "receiver", "killed by SIGKILL")
    assert error["where"] == "/logs/receiver.log"


def test_a_receiver_without_platform_is_seen(kaapana, home, tmp_path):
    ready = tmp_path / "ready"
    titles = {"KAAPANA_ALLOWED_CALLING_AE_TITLES": "SCANNER"}
    receiving = subprocess.Popen(
        [sys.executable, "-m", "kaapana_assets", "receive", "--port", "0", "--ready-file", str(ready)],
        env=command_environment(home, **titles),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 30
        while not ready.exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        port = ready.read_text().strip().rpartition(":")[2]
        done = kaapana("status", KAAPANA_RECEIVER_PORT=port, **titles)
    finally:
        receiving.terminate()
        receiving.wait(30)
    assert f"receiver    works   KAAPANA at 127.0.0.1:{port}" in done.stdout
    assert done.returncode == 0


@pytest.mark.parametrize("crashes", [[{"part": 1}], "x"], ids=["incomplete", "text"])
def test_a_record_with_damaged_crashes_is_none(home, crashes):
    record.write_record(home, RECORD)
    assert record.read_record(home) == RECORD
    path = home / "platform.json"
    path.write_text(json.dumps(dataclasses.asdict(RECORD) | {"crashes": crashes}))
    assert record.read_record(home) is None
