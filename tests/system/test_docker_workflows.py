"""The platform with its operators as containers of Docker and Podman, as a user drives it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from services.container_engine import ContainerEngine
from services.images import BASE_IMAGE
from system.series import write_series

pytestmark = pytest.mark.system

WORKFLOW = """
from kaapana_assets.workflows import ContainerOperator, Workflow

NAMES = (
    'for s in $BATCHES_INPUT_DIR/*; do o=$s/$OPERATOR_OUT_DIR; mkdir -p $o; '
    'ls $s/$OPERATOR_IN_DIR > $o/names.txt; done; %s'
)
POOL = 'o=/data/$OPERATOR_OUT_DIR; mkdir -p $o; cat /data/batch/*/$OPERATOR_IN_DIR/names.txt > $o/all.txt'

def names(end):
    return ContainerOperator(name="names", image={image!r}, command=("bash", "-c", NAMES % end))

quick = names("true")
pool = ContainerOperator(
    name="pool", image={image!r}, input_operator=quick, level="cohort", command=("bash", "-c", POOL)
)
contained = Workflow(name="contained", operators=(quick, pool))
endless = Workflow(name="endless", operators=(names("touch /data/started; exec sleep 600"),))
"""


@dataclass
class Site:
    platform: Any
    engine: ContainerEngine
    series: list[str]

    def containers(self) -> list[str]:
        with self.engine.client() as client:
            return [each["Id"] for each in client.containers(all=True, filters={"label": "kaapana.run"})]


@pytest.fixture(scope="module")
def site(container_engine, module_platforms, tmp_path_factory) -> Iterator[Site]:
    home = module_platforms.new_home()
    dags = home / "workflows" / "dags"
    dags.mkdir(parents=True)
    (dags / "contained.py").write_text(WORKFLOW.format(image=BASE_IMAGE))
    settings = {"KAAPANA_RUNNER": "docker", "KAAPANA_DOCKER_URL": container_engine.url}
    platform = module_platforms.start(home, KAAPANA_SERIES_PER_LAUNCH="2", **settings)
    folder = tmp_path_factory.mktemp("sent")
    series = [write_series(folder) for _ in range(5)]
    platform.kaapana("import", folder)
    there = platform.dagster.latest_materialization
    platform.wait_until(lambda: all(there("series_metadata", uid) for uid in series), 180, "series as assets")
    platform.kaapana("cohort", "create", "all", "--query", "Modality:MR")
    yield Site(platform, container_engine, series)
    platform.stop()


def shelf(site: Site, workflow: str, operator: str, partition: str) -> Path:
    return site.platform.home / "assets" / workflow / operator / partition


def test_batch_runs_in_containers_and_leaves_none(site: Site) -> None:
    site.platform.kaapana("run", "contained", "--cohort", "all")
    pooled = (shelf(site, "contained", "pool", "all") / "all.txt").read_text().split()
    assert sorted(pooled) == sorted(f"{uid}.{number}.dcm" for uid in site.series for number in (1, 2, 3))
    report = json.loads((shelf(site, "contained", "report", "all") / "report.json").read_text())
    assert {row["operator"]: row["launches"] for row in report["operators"]} == {"names": 3, "pool": 1}
    assert site.containers() == []


def test_status_says_which_engine_runs_operators(site: Site) -> None:
    def is_told() -> bool:
        # Other parts may still be busy: an engine that answers late is told as that, and asked again.
        done = site.platform.kaapana("status", "--json", check=False)
        runner = json.loads(done.stdout)["findings"]["runner"]
        return done.returncode == 0 and runner["product"].lower().startswith(site.engine.name)

    site.platform.wait_until(is_told, 90, "a `status` without findings that names the engine")


def test_cancelled_run_leaves_no_container_and_nothing_half(site: Site) -> None:
    site.platform.kaapana("run", "endless", "--cohort", "all", "--no-wait")
    run = site.platform.dagster.runs(job="endless", limit=1)[0].run_id
    data = site.platform.home / "workflows" / "data"
    site.platform.wait_until(lambda: list(data.glob("endless-*/launches/*/started")), 120, "a container")
    assert site.containers()
    site.platform.dagster.terminate(run)
    assert site.platform.dagster.wait(run, timeout_s=90).status == "CANCELED"
    site.platform.wait_until(lambda: not site.containers(), 30, "the end of all containers")
    assert not any(shelf(site, "endless", "names", uid).exists() for uid in site.series)
