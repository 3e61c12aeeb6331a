"""What hostile operators in Docker and Podman leave is refused by name, and nothing else suffers."""

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from services.images import BASE_IMAGE
from system.conftest import module_platforms  # noqa: F401 - fixture
from system.series import write_series

pytestmark = pytest.mark.system

LAUNCHES = "s=$(ls -d /data/batch/* | head -1); o=$s/$OPERATOR_OUT_DIR; mkdir -p $o; echo x > $o/x.txt; "
REST = "; for r in $(ls -d /data/batch/* | tail -n +2); do o=$r/$OPERATOR_OUT_DIR; mkdir -p $o; echo y > $o/y; done"
# What is done to the output of the first series, and what the report says of it.
REFUSED = {
    "link": ("ln -s /etc/shadow $o/shadow", "shadow is a link"),
    "pipe": ("mkfifo $o/pipe", "pipe is a pipe"),
    "swapped": ("mv $o /data/aside; ln -s /etc $o", "is a link"),
    "deep": ("d=$o; for i in $(seq 70); do d=$d/d; mkdir $d; done", "deeper than 64"),
}
TAKEN = {
    "setuid": "chmod 4755 $o/x.txt",
    "forged": (
        'mkdir -p /data/report /data/conf/results; echo \'{"failed": {"forged": ""}}\' > /data/report/report.json; '
        'echo \'{"cohort": "other"}\' > /data/conf/mine; mv /data/conf/mine /data/conf/conf.json || true'
    ),
}
WORKFLOW = """
from kaapana_assets.workflows import ContainerOperator, Workflow
scripts = {scripts!r}
operators = tuple(
    ContainerOperator(name=name, image={image!r}, command=("bash", "-c", script)) for name, script in scripts.items()
)
workflow = Workflow(name="hostile", operators=operators)
"""


@pytest.fixture(scope="module")
def attacked(container_engine, module_platforms, tmp_path_factory) -> Iterator[tuple[Any, list[str]]]:  # noqa: F811
    """A platform after a run of the hostile workflow over two series, and these."""
    home = module_platforms.new_home()
    dags = home / "workflows" / "dags"
    dags.mkdir(parents=True)
    attacks = {name: script for name, (script, _) in REFUSED.items()} | TAKEN
    scripts = {name: f"{LAUNCHES}{script}{REST}" for name, script in attacks.items()}
    (dags / "hostile.py").write_text(WORKFLOW.format(image=BASE_IMAGE, scripts=scripts))
    settings = {"KAAPANA_RUNNER": "docker", "KAAPANA_DOCKER_URL": container_engine.url}
    platform = module_platforms.start(home, **settings)
    folder = tmp_path_factory.mktemp("sent")
    series = sorted(write_series(folder) for _ in range(2))
    platform.kaapana("import", folder)
    there = platform.dagster.latest_materialization
    platform.wait_until(lambda: all(there("series_metadata", uid) for uid in series), 180, "series as assets")
    platform.kaapana("cohort", "create", "all", "--query", "Modality:MR")
    platform.kaapana("run", "hostile", "--cohort", "all", check=False)
    yield platform, series
    platform.stop()


def shelf(platform: Any) -> Path:
    return platform.home / "assets" / "hostile"


def rows(platform: Any) -> dict[str, dict[str, Any]]:
    report = json.loads((shelf(platform) / "report" / "all" / "report.json").read_text())
    assert report["cohort"] == "all"
    return {row["operator"]: row for row in report["operators"]}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_plain_output_is_refused_by_name_and_the_other_series_is_done(attacked, name):
    platform, (first, second) = attacked
    row = rows(platform)[name]
    assert REFUSED[name][1] in row["failed"][first]
    assert row["done"] == [second]
    assert not (shelf(platform) / name / first).exists()


def test_content_is_taken_without_its_special_bits(attacked):
    platform, (first, _) = attacked
    taken = shelf(platform) / "setuid" / first / "x.txt"
    assert taken.read_text() == "x\n"
    assert not stat.S_IMODE(taken.stat().st_mode) & 0o7022


def test_forged_records_are_read_by_nobody(attacked):
    platform, series = attacked
    row = rows(platform)["forged"]
    assert (row["done"], row["failed"]) == (series, {})
