"""A platform that is backed up while series arrive, restored at another path, and goes on there."""

import json
import shutil
import threading
from pathlib import Path

import pytest
from system.series import write_image, write_series

pytestmark = pytest.mark.system

PROJECT_ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import os
from pathlib import Path

for series in sorted(Path("/", os.environ["WORKFLOW_DIR"], os.environ["BATCH_NAME"]).iterdir()):
    out = series / os.environ["OPERATOR_OUT_DIR"]
    out.mkdir()
    names = sorted(path.name for path in (series / os.environ["OPERATOR_IN_DIR"]).iterdir())
    (out / "names.txt").write_text(" ".join(names))
"""
WORKFLOW = """
from kaapana_assets.workflows import ContainerOperator, Workflow

workflow = Workflow(
    name="names", operators=(ContainerOperator(name="names", image="names", output_patterns=("names.txt",)),)
)
"""


def test_restored_platform_goes_on_where_the_backup_was_taken(platforms, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(PROJECT_ROOT / "images", images)
    write_image(images, "names", SCRIPT)
    home = platforms.new_home()
    (home / "workflows" / "dags").mkdir(parents=True)
    (home / "workflows" / "dags" / "names.py").write_text(WORKFLOW)
    first = platforms.start(home, KAAPANA_IMAGES=str(images))
    before = send(first, tmp_path / "before", count=3)
    wait_for(first, before)
    first.kaapana("cohort", "create", "early", "--query", 'SeriesDescription:"before"')
    first.kaapana("run", "names", "--cohort", "early")

    during: list[str] = []
    stop = threading.Event()

    def arrive() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            during.extend(send(first, tmp_path / f"during-{number}", count=2))

    arriving = threading.Thread(target=arrive)
    arriving.start()
    try:
        first.wait_until(lambda: during, 60, "arrivals")
        backup = home.parent / "backup"
        first.kaapana("backup", backup)
        first.wait_until(lambda: len(during) > 2, 60, "more arrivals")
        acknowledged = before + list(during)
        first.kaapana("backup", backup)  # incremental, while more arrives
    finally:
        stop.set()
        arriving.join()
    first.stop()

    new = platforms.new_home()
    assert "restored" in first.kaapana("restore", backup, "--into", new).stdout
    assert "whole" in first.kaapana("backup", "--verify", backup).stdout
    second = platforms.start(new, KAAPANA_IMAGES=str(images))
    wait_for(second, acknowledged)
    there = {path.parent.name for path in (new / "archive").glob("*/*/*.dcm")}
    second.wait_until(lambda: not list((new / "incoming").glob("*/*.dcm")), 60, "an empty spool")
    indexed = second.kaapana("query", "*", "--limit", "1000", "--json").stdout
    for uid in there:
        assert uid in indexed  # what had arrived of series that were still being sent, too
    for uid in acknowledged:
        assert len(list((new / "archive").glob(f"*/{uid}/*.dcm"))) == 3

    assert "early" in second.kaapana("cohort", "list").stdout
    assert second.dagster.latest_materialization(["names", "names"], before[0]) is not None
    second.kaapana("cohort", "create", "late", "--query", "*")
    said = second.kaapana("run", "names", "--cohort", "late").stdout
    report = json.loads((new / "assets" / "names" / "report" / "late" / "report.json").read_text())
    assert set(before) <= set(report["operators"][0]["reused"]), said
    for uid in acknowledged:
        assert (new / "assets" / "names" / "names" / uid / "names.txt").exists()


def send(platform, folder: Path, *, count: int) -> list[str]:
    """Series that the receiver has acknowledged."""
    series = [write_series(folder, SeriesDescription=folder.name) for _ in range(count)]
    platform.kaapana("send", folder)
    return series


def wait_for(platform, series: list[str]) -> None:
    def there() -> bool:
        return set(series) <= platform.dagster.partition_status("series_metadata").materialized

    platform.wait_until(there, 200, "series as assets")
