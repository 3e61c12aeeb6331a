"""The Job of one launch, as a manifest. Nothing here talks to a cluster.

References:
    https://kubernetes.io/docs/concepts/workloads/controllers/job/
    https://kubernetes.io/docs/concepts/security/pod-security-standards/ (profile "restricted")
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kaapana_assets.containers.contract import environment
from kaapana_assets.containers.protocol import Launch, launch_digest
from kaapana_assets.errors import ConfigurationError

Manifest = dict[str, Any]

PREFIX = "kaapana-assets"
MANAGED = {"app.kubernetes.io/managed-by": PREFIX}
RUN = f"{PREFIX}/run"
"""Label: the run of a launch."""
LAUNCH_SLOT = f"{PREFIX}/launch-slot"
"""Label: operator and directory of a launch; one launch at a time may use them."""
FORMER_LAUNCH_SLOT = f"{PREFIX}/place"
"""The same label on Jobs of earlier versions."""
HOME_OF = f"{PREFIX}/home"
"""Label: the home of a launch; a copy of it has runs of the same names."""
LAUNCH = f"{PREFIX}/launch"
"""Annotation: digest of all that a launch is; only an equal one is gone on with."""
OUTCOME_RECORDED = f"{PREFIX}/outcome-recorded"
"""Label of Jobs whose outcome a run has recorded: no run adopts them."""
FORMER_OUTCOME_RECORDED = f"{PREFIX}/told"
"""The same label on Jobs of earlier versions."""
CONTAINER = "operator"
DATA = "/data"
_HOME, _TMP = "/home/operator", "/tmp"  # noqa: S108 - in the container

_LABEL_CHARACTERS = re.compile(r"[^A-Za-z0-9_.-]+")
_NAME_CHARACTERS = re.compile(r"[^a-z0-9-]+")
_GRACE_S = 5
_LEAST_MEMORY_MB = 128
_NODE_LOST_S = 30  # how long a node may be silent before its pods are given up, after Kubernetes noticed
_BACKUP_S = 120  # by how much a Job's deadline is behind its pod's, which keeps the pod and its log


@dataclass(frozen=True, kw_only=True)
class ClusterTarget:
    """Where in a cluster operators run, and with what.

    Attributes:
        namespace: of Jobs and pods.
        claim: PersistentVolumeClaim with the volume that holds the platform's home.
        claim_path: where in the volume the home is; "" for its root.
        home: the same folder as the platform sees it.
        uid: user and group that operators run as.
        node_selector: labels of nodes.
        tolerations: as Kubernetes writes them.
        gpu_resource: the name of GPUs.
        pods: of operators at once, of all runs.
        parallel: launches of one operator at once.
        patience_s: seconds that a pod may wait for a node, and calls for a cluster that is away.
        retention_s: seconds that pods of failed operators are kept.
        memory_mb: limit in MiB of operators that name none; 0 sets none.
        scratch_mb: limit in MiB of what a pod writes besides its directory (/tmp, HOME, its output); 0 sets none.
    """

    namespace: str
    claim: str
    claim_path: str
    home: Path
    uid: int
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, Any], ...] = ()
    gpu_resource: str = "nvidia.com/gpu"
    pods: int = 10
    parallel: int = 4
    patience_s: float = 300.0
    retention_s: float = 86_400.0
    memory_mb: int = 0
    scratch_mb: int = 0


@dataclass(frozen=True)
class JobHandle:
    """A Job that is in the cluster: names come again, uids do not."""

    name: str
    uid: str

    @property
    def pods(self) -> str:
        """Selects its pods, and not those of an earlier Job of the same name that are still being removed."""
        return f"batch.kubernetes.io/controller-uid={self.uid}"

    @staticmethod
    def of(found: Mapping[str, Any]) -> JobHandle:
        """Of a Job as the cluster has it."""
        return JobHandle(found["metadata"]["name"], found["metadata"]["uid"])


def launch_slot(launch: Launch) -> str:
    """What tells this launch from all others that may go on at once, as a label's value."""
    return _digest([launch.run_id, launch.operator, str(launch.directory)])[:32]


def home_of(target: ClusterTarget) -> str:
    """What tells a home from all others whose operators run in a namespace, as a label's value."""
    return _digest([target.claim, target.claim_path, str(target.home)])[:32]


def identity_of(launch: Launch, image_digest: str) -> str:
    """Digest of all that the launch is and of its image's content."""
    return _digest([launch_digest(launch), image_digest])


def name_of(launch: Launch, number: int) -> str:
    """The Job's name: 1 to 63 lower-case letters, digits and hyphens; ``number`` counts the launches in one slot."""
    operator = _NAME_CHARACTERS.sub("-", launch.operator.lower()).strip("-")[:36].strip("-")
    return f"{operator or 'operator'}-{launch_slot(launch)[:12]}-{number}"


def job(launch: Launch, *, number: int, reference: str, image_digest: str, target: ClusterTarget) -> Manifest:
    """The Job: one pod, never started twice, with only the launch's directory of the shared volume.

    Raises:
        ConfigurationError: the directory is not in the platform's home.
        ParameterError: a variable that no environment can hold.
    """
    labels = {
        **MANAGED,
        LAUNCH_SLOT: launch_slot(launch),
        RUN: label(launch.run_id),
        HOME_OF: home_of(target),
        f"{PREFIX}/workflow": label(launch.workflow),
        f"{PREFIX}/operator": label(launch.operator),
        # What a NetworkPolicy lets through.
        f"{PREFIX}/network": "true" if launch.network else "false",
    }
    if launch.cohort:
        labels[f"{PREFIX}/cohort"] = label(launch.cohort)
    names = {"run": launch.run_id, "workflow": launch.workflow, "operator": launch.operator, "cohort": launch.cohort}
    annotations = {f"{PREFIX}/{kind}-name": name for kind, name in names.items() if name}
    annotations[LAUNCH] = identity_of(launch, image_digest)
    spec: Manifest = {
        "backoffLimit": 0,
        "completions": 1,
        "parallelism": 1,
        # Nothing else removes what a worker that died for good left behind.
        "ttlSecondsAfterFinished": int(max(target.retention_s, 3600)),
        "template": {
            "metadata": {"labels": labels, "annotations": annotations},
            "spec": _pod(launch, reference=reference, target=target),
        },
    }
    if launch.timeout_s is not None:
        # The pod's own deadline keeps it with its log; the Job's, which would remove both, stands behind.
        spec["template"]["spec"]["activeDeadlineSeconds"] = math.ceil(launch.timeout_s)
        spec["activeDeadlineSeconds"] = math.ceil(launch.timeout_s + target.patience_s + _BACKUP_S)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name_of(launch, number),
            "namespace": target.namespace,
            "labels": labels,
            "annotations": annotations,
        },
        "spec": spec,
    }


def label(text: str) -> str:
    """The text as the value of a label: as it is where that is allowed, else shortened with a digest."""
    cleaned = _LABEL_CHARACTERS.sub("_", text).strip("_.-")
    if cleaned == text and len(text) <= 63:
        return text
    return f"{cleaned[:50].strip('_.-')}-{_digest(text)[:10]}".lstrip("-")


def _pod(launch: Launch, *, reference: str, target: ClusterTarget) -> Manifest:
    # A home and a temporary folder that can be written; the image's own file system cannot.
    variables = {**environment(launch, workflow_dir=DATA), "HOME": _HOME, "TMPDIR": _TMP}
    container: Manifest = {
        "name": CONTAINER,
        "image": reference,
        "imagePullPolicy": "IfNotPresent",
        # "$(X)" in a value would be replaced by Kubernetes; "$$" is how it is told not to.
        "env": [{"name": name, "value": value.replace("$", "$$")} for name, value in sorted(variables.items())],
        "resources": _resources(launch, target),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "data", "mountPath": DATA, "subPath": _sub_path(launch, target)},
            {"name": "tmp", "mountPath": _TMP},
            {"name": "home", "mountPath": _HOME},
        ],
    }
    if launch.command is not None:
        container["command"] = [part.replace("$", "$$") for part in launch.command]
    lost = [
        {"key": f"node.kubernetes.io/{what}", "operator": "Exists", "effect": "NoExecute"}
        for what in ("not-ready", "unreachable")
    ]
    scratch = {"sizeLimit": f"{target.scratch_mb}Mi"} if target.scratch_mb else {}
    pod: Manifest = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": _GRACE_S,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": target.uid,
            "runAsGroup": target.uid,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": "data", "persistentVolumeClaim": {"claimName": target.claim}},
            {"name": "tmp", "emptyDir": scratch},
            {"name": "home", "emptyDir": scratch},
        ],
        "tolerations": [{**each, "tolerationSeconds": _NODE_LOST_S} for each in lost] + list(target.tolerations),
    }
    if target.node_selector:
        pod["nodeSelector"] = dict(target.node_selector)
    if launch.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in launch.image_pull_secrets]
    return pod


def _resources(launch: Launch, target: ClusterTarget) -> Manifest:
    limits: dict[str, str] = {}
    if launch.memory_mb is not None:
        limits["memory"] = f"{launch.memory_mb}Mi"
    if launch.cpu is not None:
        limits["cpu"] = f"{math.ceil(launch.cpu * 1000)}m"
    if launch.gpus:
        limits[target.gpu_resource] = str(launch.gpus)
    # Asked for in full, so that an operator is not put where it would be ended for its neighbours' use.
    requests = dict(limits)
    # Limits that nobody named are walls, and ask for next to nothing: a small node is still good enough.
    if launch.memory_mb is None and target.memory_mb:
        limits["memory"] = f"{target.memory_mb}Mi"
        requests["memory"] = f"{min(target.memory_mb, _LEAST_MEMORY_MB)}Mi"
    if target.scratch_mb:
        limits["ephemeral-storage"] = f"{target.scratch_mb}Mi"
        requests["ephemeral-storage"] = "0"
    return {"limits": limits, "requests": requests} if limits else {}


def _sub_path(launch: Launch, target: ClusterTarget) -> str:
    try:
        below = launch.directory.relative_to(target.home)
    except ValueError as exc:
        raise ConfigurationError(
            f"run {launch.run_id}: its directory {launch.directory} is not below KAAPANA_HOME={target.home}, which is "
            "what the cluster's volume holds"
        ) from exc
    return f"{target.claim_path}/{below.as_posix()}".lstrip("/")


def _digest(values: object) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
