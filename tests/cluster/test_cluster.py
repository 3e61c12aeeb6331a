"""The Kubernetes that tests use behaves as the one of a site, where the platform depends on it, and leaves nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from services import images
from services.cluster import Cluster, CommandFailed
from services.kinds import KINDS
from services.plugin import lacking, own_cluster

pytestmark = pytest.mark.cluster
TESTS = Path(__file__).parents[1]


def wait_until(holds: Callable[[], bool], *, within_s: float = 120) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"not seen within {within_s} s"
        time.sleep(0.2)


def pod(name: str, *command: str, spec: dict[str, Any] | None = None, **container: Any) -> dict[str, Any]:
    own = {"name": "main", "image": images.BASE_IMAGE, "imagePullPolicy": "IfNotPresent", "command": list(command)}
    rest = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [own | container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": rest | (spec or {})}


def job(name: str, of: dict[str, Any]) -> dict[str, Any]:
    spec = {"backoffLimit": 0, "template": {"spec": of["spec"]}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec}


def volume(namespace: str, folder: Path) -> list[dict[str, Any]]:
    size = {"storage": "1Gi"}
    common = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    path = {"path": str(folder), "type": "Directory"}
    owner = {"namespace": namespace, "name": "data"}
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": f"data-{namespace}"},
            "spec": common | {"capacity": size, "hostPath": path, "claimRef": owner},
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data"},
            "spec": common | {"volumeName": f"data-{namespace}", "resources": {"requests": size}},
        },
    ]


def apply(cluster: Cluster, namespace: str, *objects: dict[str, Any]) -> None:
    for each in objects:
        if each["kind"] != "PersistentVolume":
            each["metadata"]["namespace"] = namespace
    cluster.apply(*objects)


def status(cluster: Cluster, namespace: str, kind: str, name: str) -> dict[str, Any]:
    return dict(json.loads(cluster.kubectl("-n", namespace, "get", kind, name, "-o", "json"))["status"])


def finished(cluster: Cluster, namespace: str, name: str) -> dict[str, Any]:
    """The status of a pod that ended."""
    wait_until(lambda: status(cluster, namespace, "pod", name).get("phase") in {"Succeeded", "Failed"})
    return status(cluster, namespace, "pod", name)


def test_job_sees_only_its_folders_of_a_volume_and_writes_as_its_user(
    kubernetes_cluster: Cluster, kubernetes_namespace: str, tmp_path: Path
):
    for folder in ("run/in", "run/out", "other"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "run" / "in" / "series.txt").write_text("one series")
    os.chown(tmp_path / "run" / "out", 1000, 1000)
    script = (
        "id -u; ls / | grep -x other; cp /in/series.txt /out/copy.txt; echo > /tmp/scratch && echo temporary;"
        "touch /in/no || echo in is read-only; touch /no || echo root is read-only"
    )
    mounts = [
        {"name": "data", "mountPath": "/in", "subPath": "run/in", "readOnly": True},
        {"name": "data", "mountPath": "/out", "subPath": "run/out"},
        {"name": "tmp", "mountPath": "/tmp"},
    ]
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}, {"name": "tmp", "emptyDir": {}}]
    own = pod(
        "unused", "bash", "-c", script,
        spec={"volumes": volumes, "securityContext": {"runAsUser": 1000, "runAsNonRoot": True}},
        volumeMounts=mounts,
        securityContext={"readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
    )  # fmt: skip
    apply(kubernetes_cluster, kubernetes_namespace, *volume(kubernetes_namespace, tmp_path), job("copy", own))
    kubernetes_cluster.kubectl("-n", kubernetes_namespace, "wait", "--for=condition=Complete", "job/copy", timeout_s=90)
    said = kubernetes_cluster.kubectl("-n", kubernetes_namespace, "logs", "job/copy").splitlines()
    answers = [line for line in said if not line.startswith("touch:")]
    assert answers == ["1000", "temporary", "in is read-only", "root is read-only"]
    copy = tmp_path / "run" / "out" / "copy.txt"
    assert copy.read_text() == "one series"
    assert copy.stat().st_uid == 1000
    kubernetes_cluster.kubectl("delete", "pv", f"data-{kubernetes_namespace}", "--wait=false")


def test_pods_that_can_not_end_well_say_why(kubernetes_cluster: Cluster, kubernetes_namespace: str):
    memory = {"limits": {"memory": "64Mi"}}
    apply(
        kubernetes_cluster,
        kubernetes_namespace,
        pod("memory", "python", "-c", "bytearray(500_000_000)", resources=memory),
        pod("deadline", "sleep", "600", spec={"activeDeadlineSeconds": 2}),
        pod("root", "id", spec={"securityContext": {"runAsNonRoot": True}}),
        pod("absent", "id", image="localhost/no-such-image:1", imagePullPolicy="Never"),
    )
    ended = finished(kubernetes_cluster, kubernetes_namespace, "memory")
    assert ended["containerStatuses"][0]["state"]["terminated"]["reason"] == "OOMKilled"
    assert finished(kubernetes_cluster, kubernetes_namespace, "deadline")["reason"] == "DeadlineExceeded"

    def waiting(name: str) -> str:
        containers = status(kubernetes_cluster, kubernetes_namespace, "pod", name).get("containerStatuses", [{}])
        return str(containers[0].get("state", {}).get("waiting", {}).get("reason"))

    wait_until(lambda: waiting("root") == "CreateContainerConfigError")
    wait_until(lambda: waiting("absent") == "ErrImageNeverPull")


def test_quota_of_a_namespace_is_kept_and_network_policies_are_taken(
    kubernetes_cluster: Cluster, kubernetes_namespace: str
):
    quota = {"metadata": {"name": "quota"}, "spec": {"hard": {"pods": "1"}}}
    policy = {"metadata": {"name": "closed"}, "spec": {"podSelector": {}, "policyTypes": ["Egress"]}}
    apply(
        kubernetes_cluster,
        kubernetes_namespace,
        {"apiVersion": "v1", "kind": "ResourceQuota", **quota},
        {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", **policy},
    )
    wait_until(lambda: "used" in status(kubernetes_cluster, kubernetes_namespace, "resourcequota", "quota"))
    apply(kubernetes_cluster, kubernetes_namespace, pod("first", "sleep", "600"))
    with pytest.raises(CommandFailed, match="exceeded quota: quota"):
        apply(kubernetes_cluster, kubernetes_namespace, pod("second", "id"))


def test_image_built_from_a_folder_runs_when_the_node_was_given_it(
    kubernetes_cluster: Cluster, kubernetes_namespace: str, tmp_path: Path
):
    (tmp_path / "Dockerfile").write_text(
        "ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nRUN pip --version\nCOPY Dockerfile /app/\nUSER 1000\n"
        'ENTRYPOINT ["ls", "/app"]\n'
    )
    kubernetes_cluster.load_image(images.built(tmp_path, "localhost/kaapana-test:1"))
    assert {"localhost/kaapana-test:1", images.BASE_IMAGE} <= set(kubernetes_cluster.images())
    own = pod("built", image="localhost/kaapana-test:1")
    del own["spec"]["containers"][0]["command"]
    apply(kubernetes_cluster, kubernetes_namespace, own)
    assert finished(kubernetes_cluster, kubernetes_namespace, "built")["phase"] == "Succeeded"
    assert kubernetes_cluster.kubectl("-n", kubernetes_namespace, "logs", "built") == "Dockerfile\n"


def test_api_server_and_node_come_back_with_what_they_had(tmp_path: Path):
    with own_cluster(tmp_path) as cluster, cluster.namespace() as namespace:
        apply(cluster, namespace, pod("lost", "sleep", "600"))
        wait_until(lambda: status(cluster, namespace, "pod", "lost")["phase"] == "Running")
        cluster.stop("kube-apiserver")
        with pytest.raises(CommandFailed):
            cluster.kubectl("get", "--raw", "/readyz", "--request-timeout=2s")
        cluster.restart_api_server()
        assert status(cluster, namespace, "pod", "lost")["phase"] == "Running"
        cluster.lose_node()
        wait_until(lambda: "NotReady" in cluster.kubectl("get", "node", cluster.node))
        cluster.return_node()
        wait_until(lambda: "NotReady" not in cluster.kubectl("get", "node", cluster.node))
        apply(cluster, namespace, pod("next", "id"))
        assert finished(cluster, namespace, "next")["phase"] == "Succeeded"
        assert finished(cluster, namespace, "lost")["phase"] == "Failed"


_USER = """
import sys, time
from pathlib import Path
from services.cluster import shared
with shared(Path(sys.argv[1])) as cluster:
    print(cluster.node, flush=True)
    time.sleep(600)
"""


def test_nothing_is_left_of_a_cluster_when_its_last_user_is_killed(tmp_path: Path):
    def use() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", _USER, str(tmp_path)]
        environment = os.environ | {"PYTHONPATH": str(TESTS)}
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

    def traces(node: str) -> list[str]:
        links = subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True).stdout
        found = [link for link in links.splitlines() if link.startswith(f"{node}@")]
        found += map(str, Path("/sys/fs/cgroup").glob(f"*/{node}-{supervisor}"))
        found += [name for process in psutil.process_iter() if str(tmp_path) in (name := command_of(process))]
        found += [line for line in Path("/proc/mounts").read_text().splitlines() if str(tmp_path) in line]
        return found + [str(path) for path in (tmp_path / "cluster").glob("*") if path.name != "log"]

    with lacking("kubernetes"):
        KINDS["kubernetes"]().prepare()
    with use() as first:
        node = first.stdout.readline().strip()
        cluster = Cluster(tmp_path)
        supervisor = cluster.supervisor
        with use() as second:
            assert second.stdout.readline().strip() == node
            first.send_signal(signal.SIGKILL)
            time.sleep(2)
            assert cluster.kubectl("get", "--raw", "/readyz") == "ok"
            second.send_signal(signal.SIGKILL)
    wait_until(lambda: not traces(node), within_s=30)


def command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
