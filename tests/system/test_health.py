"""The health page and ``status`` of a running platform: right while it works, and when something does not."""

import json
import os
import signal

import pytest
import requests
from services.plugin import service
from system.conftest import RunningPlatform

pytestmark = pytest.mark.system

PARTS = ["code-server", "daemon", "health", "postgres", "receiver", "webserver"]


def health(up: RunningPlatform) -> dict:
    """What the page says as JSON, with the status that it has."""
    answer = requests.get(f"{up.record.health_url}health.json", timeout=15)
    return answer.json() | {"status": answer.status_code}


def wait_until_broken(up: RunningPlatform, names: set[str]) -> dict:
    def found() -> dict | None:
        said = health(up)
        broken = {name for name, each in said["findings"].items() if each["state"] == "broken"}
        assert (said["status"] == 503) == bool(broken)
        return said if names == broken or (names and names <= broken) else None

    return up.wait_until(found, what=f"{names or 'nothing'} is broken")


def test_the_page_of_a_running_platform_is_right_and_turns_503_for_a_part_and_a_store(platforms):
    home = platforms.new_home()
    home.mkdir()
    (home.parent / "failing.py").write_text(
        "import dagster as dg\nfrom kaapana_assets.errors import StoreUnavailable\n"
        "@dg.asset\ndef broken():\n    raise StoreUnavailable('the reason of it\\nand more')\n"
        "defs = dg.Definitions([broken], jobs=[dg.define_asset_job('broken_job', [broken], "
        "executor_def=dg.in_process_executor)])\n"
    )
    up = platforms.start(home, KAAPANA_DEFINITIONS="failing", PYTHONPATH=str(home.parent))
    assert up.record.health_url in up.said()

    said = wait_until_broken(up, set())
    assert said["is_up"] is True
    assert said["dagster_url"] == up.record.dagster_url
    assert {each["state"] for each in said["findings"].values()} == {"works"}
    assert said["findings"]["parts"]["where"] == ", ".join(PARTS)
    assert said["findings"]["dagster"]["product"].startswith("Dagster 1.")
    assert said["findings"]["storage"]["product"].startswith("PostgreSQL ")
    assert said["errors"] == []
    page = requests.get(up.record.health_url, timeout=15)
    assert (page.status_code, "everything works" in page.text) == (200, True)
    assert "everything works" in up.kaapana("status").stdout

    run_id = up.dagster.launch("broken_job")
    up.dagster.wait(run_id, timeout_s=60)
    (error,) = up.wait_until(lambda: health(up)["errors"], what="the failed run is told")
    assert (error["kind"], error["what"], error["reason"]) == ("run", "broken_job", "the reason of it")
    assert error["where"] == up.dagster.run_url(run_id)
    assert health(up)["status"] == 200

    receiver = up.record.parts["receiver"]
    os.kill(receiver, signal.SIGSTOP)
    wait_until_broken(up, {"receiver"})
    assert up.kaapana("status", check=False).returncode == 1
    os.kill(receiver, signal.SIGCONT)
    wait_until_broken(up, set())

    os.kill(receiver, signal.SIGKILL)
    up.wait_until_said("receiver is back after")
    counts = {"running": len(PARTS), "restarts": 1}
    up.wait_until(lambda: health(up)["findings"]["parts"]["counts"] == counts, what="the restart is told")
    said = wait_until_broken(up, set())
    crash = said["errors"][0]
    assert (crash["kind"], crash["what"], crash["reason"]) == ("part", "receiver", "killed by SIGKILL")
    assert crash["where"] == str(home / "logs" / "receiver.log")

    (home / "objects").write_text("no folder")
    said = wait_until_broken(up, {"objects"})
    assert str(home / "objects") in said["findings"]["objects"]["problem"]
    done = up.kaapana("status", "--json", check=False)
    assert (done.returncode, json.loads(done.stdout)["ok"]) == (1, False)
    (home / "objects").unlink()
    wait_until_broken(up, set())

    os.kill(up.record.parts["health"], signal.SIGKILL)
    up.wait_until_said("health is back after")
    wait_until_broken(up, set())


@pytest.mark.services
def test_a_platform_starts_while_a_store_is_away_and_says_when_it_is_back_and_when_it_hangs(platforms, tmp_path):
    with service("minio", tmp_path) as minio:
        minio.kill()
        up = platforms.start(**minio.settings)
        line = f"objects      s3 {minio.settings['KAAPANA_S3_ENDPOINT']} does not answer; work waits until it does"
        assert line in up.said()
        wait_until_broken(up, {"objects"})
        minio.start()
        said = wait_until_broken(up, set())
        assert said["findings"]["objects"]["product"] == "MinIO"
        minio.pause()
        wait_until_broken(up, {"objects"})
        minio.resume()
        wait_until_broken(up, set())
        assert minio.settings["KAAPANA_S3_SECRET_KEY"] not in json.dumps(health(up))
