"""A bare ``dagster dev`` in the checkout, without the platform's supervisor."""

import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from system.asked_dagster import AskedDagster

from kaapana_assets.errors import DagsterUnavailable
from kaapana_assets.graphql import DagsterClient
from kaapana_assets.supervision.watchdog import TOKEN_VARIABLE, Members

pytestmark = pytest.mark.system

PROJECT_ROOT = Path(__file__).resolve().parents[2]


def test_dagster_dev_alone_loads_the_definitions(tmp_path, free_port):
    dagster_home = tmp_path / "dagster"
    dagster_home.mkdir()
    (dagster_home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    token = uuid.uuid4().hex
    places = {"KAAPANA_HOME": str(tmp_path / "home"), "DAGSTER_HOME": str(dagster_home), TOKEN_VARIABLE: token}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dagster", "dev", "--port", str(free_port)],
            cwd=PROJECT_ROOT,
            env=os.environ | places,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        client = AskedDagster(f"http://127.0.0.1:{free_port}")
        wait_until_loaded(client, process, tmp_path / "log")
        keys = client.asset_keys()
        assert ("dicom_series",) in keys
        assert [key for key in keys if key[0] == "workflow_errors"] == []
    finally:
        Members(frozenset({process.pid}), token).end(grace_s=3)
        process.wait(10)


def wait_until_loaded(client: DagsterClient, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        try:
            if client.is_loaded():
                return
        except DagsterUnavailable:
            pass
        time.sleep(0.2)
