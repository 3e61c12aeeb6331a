"""The platform with its operators in a real cluster, as a user drives it: every end, and that nothing is left."""

import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nrrd
import psutil
import pytest
from services.flow_jobs import build_images
from services.images import BASE_IMAGE
from services.operators import Operators, operators_of
from services.plugin import own_cluster
from system.processes import is_run_worker
from system.series import write_series

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

# One script for all: what it does with a series is told by a parameter.
SCRIPT = """
failed=0
echo "saw: $(ls $BATCHES_INPUT_DIR | tr '\\n' ' ')"
date +%s%N >> /data/started
{before}
for folder in $BATCHES_INPUT_DIR/*; do
  series=$(basename $folder)
  case " $BROKEN " in *" $series "*) echo "series $series is broken"; failed=1; continue;; esac
  mkdir -p $folder/$OPERATOR_OUT_DIR
  ls $folder/$OPERATOR_IN_DIR > $folder/$OPERATOR_OUT_DIR/names.txt
done
exit $failed
"""
WORKFLOWS = """
from kaapana_assets.workflows import ContainerOperator, Parameter, Workflow

SCRIPT = {script!r}

def workflow(name, before="", **fields):
    given = dict(name="names", image={image!r}, command=("bash", "-c", SCRIPT.replace("{{before}}", before)))
    operator = ContainerOperator(**{{**given, **fields}})
    return Workflow(name=name, operators=(operator,), parameters=(Parameter("broken", ""),))

names = workflow("names")
slow = workflow("slow", "echo began; sleep 12")
long = workflow("long", "echo began; sleep 45")
endless = workflow("endless", "echo began; exec sleep 600")
late = workflow("late", "echo began; exec sleep 600", timeout_s=3)
greedy = workflow("greedy", "exec python -c 'x = bytearray(10**9)'", memory_mb=64)
imageless = workflow("imageless", image="localhost/not-there:1")
"""
SEEDS = ("extract-study-id", "pool-jsons", "dcm2nrrd", "zip-files", "bash-template", "python-template")


class Site:
    """A platform whose operators are pods, and words for what a user does with it."""

    def __init__(self, platform: Any, operators: Operators, folder: Path) -> None:
        self.platform, self.operators, self.folder = platform, operators, folder

    def cohort(self, name: str, count: int) -> list[str]:
        series = [write_series(self.folder / name, SeriesDescription=name) for _ in range(count)]
        return self.taken_in(self.folder / name, series, name, f'SeriesDescription:"{name}"')

    def taken_in(self, folder: Path, series: list[str], name: str, query: str) -> list[str]:
        self.platform.kaapana("import", folder)
        there = self.platform.dagster.latest_materialization
        self.platform.wait_until(lambda: all(there("series_metadata", uid) for uid in series), 180, "series as assets")
        self.platform.kaapana("cohort", "create", name, "--query", query)
        return sorted(series)

    def run(self, workflow: str, cohort: str, *options: str, check: bool = True) -> str:
        done = self.platform.kaapana("run", workflow, "--cohort", cohort, *options, check=False)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        return done.stdout + done.stderr

    def begin(self, workflow: str, cohort: str, *options: str) -> str:
        """The run's id, once its operator runs."""
        self.run(workflow, cohort, "--no-wait", *options)
        run = self.platform.dagster.runs(job=workflow, limit=1)[0].run_id
        data = self.platform.home / "workflows" / "data"
        self.platform.wait_until(lambda: list(data.glob(f"{workflow}-*/**/started")), 120, "the pod")
        return str(run)

    def shelf(self, workflow: str, operator: str, partition: str) -> Path:
        return self.platform.home / "assets" / workflow / operator / partition

    def report(self, workflow: str, cohort: str) -> dict[str, Any]:
        return json.loads((self.shelf(workflow, "report", cohort) / "report.json").read_text())

    def pods(self, workflow: str) -> list[str]:
        """The pods of the workflow that have not ended."""
        selector = f"--selector=kaapana-assets/workflow={workflow}"
        fields = "--field-selector=status.phase!=Succeeded,status.phase!=Failed"
        return self.operators.cluster.kubectl(
            "get", "pods", "-n", self.operators.namespace, selector, fields, "-o", "name"
        ).split()

    def wait_for_no_pods(self, workflow: str) -> None:
        self.platform.wait_until(lambda: not self.pods(workflow), 60, "the end of all pods")


@pytest.fixture(scope="module")
def site(module_platforms, tmp_path_factory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    home = module_platforms.new_home()
    # Short: the path of a socket is limited to about 100 characters.
    place = Path(tempfile.mkdtemp(prefix="k8s-"))
    # A cluster of our own, because a test here stops its API server.
    with own_cluster(place) as cluster, operators_of(cluster, home) as operators:
        for tar in build_images(folder / "containers", home=home, names=SEEDS):
            cluster.load_image(tar)
        dags = home / "workflows" / "dags"
        dags.mkdir(parents=True)
        (dags / "ends.py").write_text(WORKFLOWS.format(script=SCRIPT, image=BASE_IMAGE))
        platform = module_platforms.start(
            home,
            KAAPANA_RUNNER="kubernetes",
            KAAPANA_KUBECONFIG=str(cluster.kubeconfig),
            KAAPANA_KUBERNETES_NAMESPACE=operators.namespace,
            KAAPANA_SERIES_PER_LAUNCH="4",
        )
        yield Site(platform, operators, folder)
        platform.stop()
    shutil.rmtree(place)


def test_seed_workflows_on_real_dicom(site: Site, shared_data: Path) -> None:
    for name in ("mr_anatomical", "ct_phantom"):
        site.platform.kaapana("import", shared_data / name)
    dagster = site.platform.dagster
    site.platform.wait_until(lambda: len(dagster.partition_status("series_metadata").materialized) >= 2, 180, "series")
    site.platform.kaapana("cohort", "create", "real", "--query", "Modality:CT OR Modality:MR")
    series = json.loads((site.platform.home / "cohorts" / "real.json").read_text())["series"]

    for workflow in ("pool-study-ids", "dcm2nrrd", "extract-multiple-study-ids", "download-selected-files"):
        site.run(workflow, "real", "--batch")
    site.run("template-showcase", "real", "--single")

    pooled = json.loads((site.shelf("pool-study-ids", "pool-jsons", "real") / "pooled.json").read_text())
    assert sorted(record["series_uid"] for record in pooled) == sorted(series)
    assert set(series) <= dagster.partition_status(("dcm2nrrd", "dcm2nrrd")).materialized
    for uid in series:
        (volume,) = site.shelf("dcm2nrrd", "dcm2nrrd", uid).glob("*.nrrd")
        data, header = nrrd.read(str(volume))
        instances = dagster.latest_materialization("dicom_series", uid).metadata["instances"]
        assert (data.shape[2], header["space"]) == (instances, "left-posterior-superior")
        assert (site.platform.home / "objects" / "dcm2nrrd").rglob(volume.name)
        assert list(site.shelf("extract-multiple-study-ids", "extract-study-id-two", uid).glob("*.json"))
    rows = {row["operator"]: row for row in site.report("template-showcase", "real")["operators"]}
    assert {row["launches"] for row in rows.values()} == {len(series)}
    assert not list((site.platform.home / "workflows" / "data").glob("*-*"))


def test_large_cohort_is_cut_in_chunks_whose_pods_see_only_their_series(site: Site) -> None:
    series = site.cohort("chunks", 10)
    site.run("names", "chunks")
    (row,) = site.report("names", "chunks")["operators"]
    assert row["launches"] == 3
    assert all((site.shelf("names", "names", uid) / "names.txt").is_file() for uid in series)
    site.wait_for_no_pods("names")


def test_one_bad_series_fails_alone_with_the_words_of_its_pod(site: Site) -> None:
    bad, *good = site.cohort("onebad", 3)
    said = site.run("names", "onebad", "--param", f"broken={bad}", check=False)
    assert f"failed: {bad}" in said
    assert f"series {bad} is broken" in site.report("names", "onebad")["failed"][bad]["reason"]
    status = site.platform.dagster.partition_status(("names", "names"))
    assert bad in status.failed
    assert set(good) <= status.materialized


@pytest.mark.parametrize(
    ("workflow", "words"),
    [
        ("imageless", "the cluster cannot get the image"),
        ("greedy", "OOMKilled"),
        ("late", "ran longer than its limit of 3 s"),
    ],
)
def test_how_a_pod_ended_is_told_to_the_user(site: Site, workflow: str, words: str) -> None:
    (uid,) = site.cohort(f"ends-{workflow}", 1)
    said = site.run(workflow, f"ends-{workflow}", check=False)
    run = site.platform.dagster.runs(job=workflow, limit=1)[0]
    assert run.status == "FAILURE"
    assert words in said, said
    assert not site.shelf(workflow, "names", uid).exists()
    site.wait_for_no_pods(workflow)


def test_cancelled_run_leaves_no_pod_and_nothing_half(site: Site) -> None:
    (uid,) = site.cohort("cancelled", 1)
    run = site.begin("endless", "cancelled")
    assert len(site.pods("endless")) == 1
    site.platform.dagster.terminate(run)
    assert site.platform.dagster.wait(run, timeout_s=90).status == "CANCELED"
    site.wait_for_no_pods("endless")
    assert not site.shelf("endless", "names", uid).exists()


def test_deleted_pod_is_started_again_and_said(site: Site) -> None:
    series = site.cohort("deleted", 2)
    run = site.begin("slow", "deleted")
    (pod,) = site.pods("slow")
    site.operators.cluster.kubectl("delete", pod, "-n", site.operators.namespace, "--wait=false")
    assert site.platform.dagster.wait(run, timeout_s=180).succeeded
    assert all((site.shelf("slow", "names", uid) / "names.txt").is_file() for uid in series)
    said = " ".join(event.message for event in site.platform.dagster.events(run)[0])
    assert "its pod was deleted before it ended" in said


def test_run_whose_worker_died_goes_on_with_its_pod(site: Site) -> None:
    series = site.cohort("taken-over", 2)
    run = site.begin("long", "taken-over", "--force")
    killed = [process for process in psutil.process_iter() if is_run_worker(process, run)]
    for process in killed:
        os.kill(process.pid, signal.SIGKILL)
    assert killed
    assert site.platform.dagster.wait(run, timeout_s=120).status == "FAILURE"

    again = site.platform.dagster.reexecute_from_failure(run)
    assert site.platform.dagster.wait(again, timeout_s=180).succeeded

    (row,) = site.report("long", "taken-over")["operators"]
    assert row["launches"] == 1
    assert all((site.shelf("long", "names", uid) / "names.txt").is_file() for uid in series)
    said = " ".join(event.message for event in site.platform.dagster.events(again)[0])
    assert "going on with the container that is there" in said


def test_restarted_api_server_goes_unnoticed_by_a_run(site: Site) -> None:
    series = site.cohort("api", 1)
    run = site.begin("slow", "api")
    site.operators.cluster.restart_api_server(away_s=1)
    assert site.platform.dagster.wait(run, timeout_s=180).succeeded
    assert (site.shelf("slow", "names", series[0]) / "names.txt").is_file()
    began = time.monotonic()
    site.wait_for_no_pods("slow")
    assert time.monotonic() - began < 60
