"""Runs as pods of a real cluster, started by a platform beside it: results, ends, and what is left over."""

import base64
import contextlib
import json
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
from services import flow_jobs, platform_image
from services.cluster import Cluster
from services.images import BASE_IMAGE
from services.operators import kubeconfig_of
from services.plugin import lacking, service
from system.conftest import Platforms, RunningPlatform
from system.series import write_series

# The first build of the platform's image takes minutes.
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]

GATED = f"""
from kaapana_assets.workflows import ContainerOperator, Workflow

gated = ContainerOperator(
    name="gated",
    image="{BASE_IMAGE}",
    command=("bash", "-c", '''
        echo began; touch /data/began
        while [ ! -e /data/open ]; do sleep 0.2; done
        for series in /data/batch/*; do
            mkdir "$series/$OPERATOR_OUT_DIR"; echo "$HOSTNAME" > "$series/$OPERATOR_OUT_DIR/pod.txt"
        done
    '''),
    output_patterns=("pod.txt",),
)
workflow = Workflow(name="gated", operators=(gated,))
"""


class Site:
    """A platform whose runs and operators are pods, with the rights that the chart gives."""

    def __init__(
        self, cluster: Cluster, start: Callable[[], RunningPlatform], *, runs: str, operators: str, folder: Path
    ) -> None:
        self.cluster, self.start, self.folder = cluster, start, folder
        self.runs, self.operators = runs, operators
        self.platform = start()

    @property
    def dagster(self):
        return self.platform.dagster

    def freeze(self, mark: str, *, count: int) -> list[str]:
        """Imports that many new series and freezes them as a cohort; their UIDs."""
        folder = self.folder / mark
        series = sorted(write_series(folder, SeriesDescription=mark) for _ in range(count))
        self.platform.kaapana("import", folder)
        self.platform.wait_until(
            lambda: all(self.dagster.latest_materialization("dicom_series", uid) for uid in series), 180, "assets"
        )
        self.platform.kaapana("cohort", "create", mark, "--query", f'SeriesDescription:"{mark}"')
        return series

    def begin(self, mark: str) -> str:
        """Starts the gated workflow and waits until its operator runs; the run's ID."""
        before = set(self.gates())
        self.platform.kaapana("run", "gated", "--cohort", mark, "--no-wait")
        self.platform.wait_until(lambda: set(self.gates()) - before, 120, "an operator that began")
        return self.dagster.runs(job="gated", limit=1)[0].run_id

    def gates(self) -> list[Path]:
        return list((self.platform.home / "workflows" / "data").glob("gated-*/**/began"))

    def open(self) -> None:
        for began in self.gates():
            began.with_name("open").touch()

    def pods(self, namespace: str, selector: str = "") -> list[dict[str, Any]]:
        text = self.cluster.kubectl("get", "pods", "-n", namespace, f"--selector={selector}", "-o", "json")
        return json.loads(text)["items"]

    def worker_of(self, run: str) -> dict[str, Any]:
        text = self.cluster.kubectl("get", "job", f"dagster-run-{run}", "-n", self.runs, "-o", "json")
        return json.loads(text)


@pytest.fixture(scope="module")
def site(kubernetes_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    cluster, folder = kubernetes_cluster, tmp_path_factory.mktemp("site")
    name = uuid4().hex[:6]
    runs, operators = f"kaapana-{name}", f"flow-jobs-{name}"
    with contextlib.ExitStack() as stack:
        with lacking("kubernetes"):
            platform_image.load_into(cluster)
        server = stack.enter_context(service("postgres", folder / "postgres", host=cluster.host_address))
        platforms = Platforms()
        stack.callback(platforms.end)
        home = platforms.new_home()
        (home / "workflows" / "dags").mkdir(parents=True)
        (home / "workflows" / "dags" / "gated.py").write_text(GATED)
        with lacking("kubernetes"):
            for tar in flow_jobs.build_images(folder / "images", home=home, names=("extract-study-id", "pool-jsons")):
                cluster.load_image(tar)
        stack.enter_context(chart(cluster, home, runs, operators))
        password = server.settings["KAAPANA_POSTGRES_PASSWORD"]
        secret = {"KAAPANA_POSTGRES_PASSWORD": base64.b64encode(password.encode()).decode()}
        cluster.apply(
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "settings", "namespace": runs}, "data": secret}
        )
        start = partial(
            platforms.start,
            home,
            **server.settings,
            KAAPANA_RUNNER="kubernetes",
            KAAPANA_KUBECONFIG=str(kubeconfig_of(cluster, runs, folder)),
            KAAPANA_KUBERNETES_NAMESPACE=operators,
            KAAPANA_RUN_LAUNCHER="kubernetes",
            KAAPANA_KUBERNETES_RUN_IMAGE=platform_image.IMAGE,
            KAAPANA_KUBERNETES_RUN_NAMESPACE=runs,
            KAAPANA_KUBERNETES_RUN_SECRET="settings",
        )
        yield Site(cluster, start, runs=runs, operators=operators, folder=folder)


@contextlib.contextmanager
def chart(cluster: Cluster, home: Path, runs: str, operators: str) -> Iterator[None]:
    options = [f"--set=flowJobs.namespace={operators}", f"--set=home.hostPath={home}"]
    options += ["--set=home.keep=false", "--set=runs.create=true"]
    cluster.helm("install", runs, flow_jobs.CHART, "--namespace", runs, "--create-namespace", "--wait", *options)
    try:
        yield
    finally:
        cluster.kubectl("delete", "jobs", "--all", "-n", runs, "--cascade=foreground")
        cluster.helm("uninstall", runs, "--namespace", runs)
        cluster.kubectl("delete", "namespace", runs, "--wait=false")


def test_cohort_run_is_a_pod_and_so_are_its_operators(site: Site) -> None:
    series = site.freeze("whole", count=3)
    site.platform.kaapana("run", "pool-study-ids", "--cohort", "whole", "--batch")
    run = site.dagster.runs(job="pool_study_ids", limit=1)[0].run_id
    pooled = site.platform.home / "assets" / "pool-study-ids" / "pool-jsons" / "whole" / "pooled.json"
    assert {each["series_uid"]: each["study_id"] for each in json.loads(pooled.read_text())} == {
        uid: f"{uid}.1" for uid in series
    }
    site.platform.wait_until(lambda: site.worker_of(run)["status"].get("succeeded") == 1, 60, "the worker's end")
    (container,) = site.worker_of(run)["spec"]["template"]["spec"]["containers"]
    assert container["image"] == platform_image.IMAGE
    assert "KAAPANA_KUBECONFIG" not in {each["name"] for each in container["env"]}
    lines = "".join(event.message for event in site.dagster.events(run)[0])
    assert "Kubernetes run worker job created" in lines


def test_no_secret_is_in_what_the_cluster_is_told_to_run(site: Site) -> None:
    site.freeze("secrets", count=1)
    jobs = site.cluster.kubectl("get", "jobs,pods", "-n", site.runs, "-o", "json")
    assert json.loads(jobs)["items"]
    assert site.platform.environment["KAAPANA_POSTGRES_PASSWORD"] not in jobs


def test_terminated_run_ends_its_worker_and_its_operators(site: Site) -> None:
    site.freeze("terminated", count=2)
    run = site.begin("terminated")
    assert site.pods(site.operators)
    site.dagster.terminate(run)
    assert site.dagster.wait(run, timeout_s=90).status == "CANCELED"
    site.platform.wait_until(lambda: not site.pods(site.runs, f"job-name=dagster-run-{run}"), 60, "the worker's end")
    assert json.loads(site.cluster.kubectl("get", "jobs", "-n", site.operators, "-o", "json"))["items"] == []
    site.platform.wait_until(lambda: not site.pods(site.operators), 30, "the operators' end")


def test_operator_of_a_killed_run_is_gone_on_with(site: Site) -> None:
    (series,) = site.freeze("killed", count=1)
    run = site.begin("killed")
    (operator,) = site.pods(site.operators)
    for worker in workers_of(run):
        worker.send_signal(signal.SIGKILL)
    ended = site.dagster.wait(run, timeout_s=120)
    assert ended.status == "FAILURE"
    again = site.dagster.reexecute_from_failure(run)
    site.platform.wait_until(lambda: site.dagster.run_status(again) == "STARTED", 60, "a new worker")
    site.open()
    assert site.dagster.wait(again, timeout_s=120).succeeded
    made = site.platform.home / "assets" / "gated" / "gated" / series / "pod.txt"
    assert made.read_text().strip() == operator["metadata"]["name"]


def test_run_goes_on_while_the_platform_is_away(site: Site) -> None:
    (series,) = site.freeze("away", count=1)
    run = site.begin("away")
    # Not by its own method: this machine sees the processes in pods, too.
    site.platform.process.send_signal(signal.SIGINT)
    site.platform.process.wait(30)
    assert workers_of(run)
    site.open()
    made = site.platform.home / "assets" / "gated" / "gated" / series / "pod.txt"
    site.platform.wait_until(made.exists, 60, "a result while the platform is away")
    site.platform = site.start()
    assert site.dagster.wait(run, timeout_s=60).succeeded


def workers_of(run: str) -> list[psutil.Process]:
    """Processes in the pod of a run, which this machine sees, too."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(run in argument for argument in process.cmdline()) and "execute_run" in process.cmdline():
                found.append(process)
    assert found, run
    return found
