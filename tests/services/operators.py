"""Operators on a cluster as tests see them: a namespace made by the chart, and launches in it."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from kaapana_assets.containers.kubernetes import Cluster, ClusterPlace, KubernetesRunner
from kaapana_assets.containers.protocol import Launch, Outcome
from kaapana_assets.errors import KaapanaAssetsError
from services.cluster import Cluster as RealCluster
from services.images import BASE_IMAGE

PROJECT_ROOT = Path(__file__).resolve().parents[2]
UID = 1000


class Operators:
    """A namespace made by the chart, the home that its claim holds, and runners for both."""

    def __init__(self, cluster: RealCluster, namespace: str, home: Path) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.release = f"{namespace}-release"
        self.home = home
        self._opened: list[Cluster] = []

    def runner(self, *, kubeconfig: Path | None = None, **changed: Any) -> KubernetesRunner:
        given = {"patience_s": 60.0, "retention_s": 3600.0} | changed
        place = ClusterPlace(
            namespace=self.namespace, claim="kaapana-home", claim_path="", home=self.home, uid=UID, **given
        )
        cluster = Cluster(kubeconfig or self.cluster.kubeconfig, namespace=self.namespace, patience_s=place.patience_s)
        self._opened.append(cluster)
        return KubernetesRunner(
            cluster, place, images=PROJECT_ROOT / "images", registry="", suffix="", own_uid=os.geteuid()
        )

    def launch(self, script: str, *, run: str = "", **changed: Any) -> Launch:
        run = run or f"run-{uuid4().hex[:8]}"
        directory = self.home / "workflows" / "data" / run
        (directory / "batch" / "1.2.3" / "initial-input").mkdir(parents=True, exist_ok=True)
        given: dict[str, Any] = {
            "run_id": run,
            "workflow": "tests",
            "operator": "op",
            "image": BASE_IMAGE,
            "directory": directory,
            "operator_in_dir": "initial-input",
            "operator_out_dir": "op",
            "command": ("bash", "-c", script),
            "cohort": "all",
        }
        return Launch(**{**given, **changed})

    def jobs(self, launch: Launch) -> list[dict[str, Any]]:
        return self._listed("jobs", launch)

    def pods(self, launch: Launch) -> list[dict[str, Any]]:
        return self._listed("pods", launch)

    def _listed(self, kind: str, launch: Launch) -> list[dict[str, Any]]:
        selector = f"--selector=kaapana-assets/run={launch.run_id}"
        text = self.cluster.kubectl("get", kind, "-n", self.namespace, selector, "-o", "json")
        return json.loads(text)["items"]

    def wait_for_nothing(self, launch: Launch) -> None:
        wait_until("nothing left of the launch", lambda: not self.jobs(launch) and not self.pods(launch))

    def close(self) -> None:
        for cluster in self._opened:
            cluster.close()


@contextmanager
def operators_of(cluster: RealCluster, home: Path) -> Iterator[Operators]:
    """What the chart makes, in a namespace of its own."""
    name = f"flow-jobs-{uuid4().hex[:6]}"
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    options = [f"--set=flowJobs.namespace={name}", f"--set=home.hostPath={home}", "--set=home.keep=false"]
    chart = PROJECT_ROOT / "helm" / "kaapana-assets"
    operators = Operators(cluster, name, home)
    release = operators.release
    cluster.helm("install", name, chart, "--namespace", release, "--create-namespace", "--wait", *options)
    try:
        yield operators
    finally:
        operators.close()
        cluster.helm("uninstall", name, "--namespace", release)
        cluster.kubectl("delete", "namespace", release, "--wait=false")


def kubeconfig_of(cluster: RealCluster, namespace: str, folder: Path) -> Path:
    """Of the chart's service account, not an administrator's."""
    token = cluster.kubectl("create", "token", "kaapana-assets", "-n", namespace, "--duration=8h").strip()
    config = json.loads(cluster.kubectl("config", "view", "--raw", "--minify", "-o", "json"))
    config["users"][0]["user"] = {"token": token}
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(json.dumps(config))
    return kubeconfig


def wait_until(what: str, holds: Callable[[], Any], within_s: float = 60) -> Any:
    """What ``holds()`` returns once that is true."""
    deadline = time.monotonic() + within_s
    while not (found := holds()):
        assert time.monotonic() < deadline, f"{what} did not come in {within_s} s"
        time.sleep(0.1)
    return found


class Background(threading.Thread):
    """A launch that goes on while the test does something to it."""

    def __init__(self, runner: KubernetesRunner, launch: Launch) -> None:
        super().__init__(daemon=True)
        self.runner, self.launch = runner, launch
        self.lines: list[str] = []
        self.cancelled = threading.Event()
        self.outcome: Outcome | None = None
        self.error: KaapanaAssetsError | None = None
        self.start()

    def run(self) -> None:
        try:
            self.outcome = self.runner.run(self.launch, output=self.lines.append, cancelled=self.cancelled)
        except KaapanaAssetsError as exc:
            self.error = exc

    def wait_for_line(self, text: str) -> None:
        wait_until(f"the line {text!r}", lambda: any(text in line for line in self.lines) or not self.is_alive())
        assert any(text in line for line in self.lines), (self.lines, self.error)

    def ended(self, within_s: float = 90) -> "Background":
        self.join(within_s)
        assert not self.is_alive(), self.lines
        return self
