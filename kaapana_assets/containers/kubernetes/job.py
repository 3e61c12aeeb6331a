"""Writes the manifest of the Job for one launch. Nothing here talks to a cluster.

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
"""Label: name of a launch's run directory."""
LAUNCH_SLOT = f"{PREFIX}/launch-slot"
"""Label: digest of a launch's run, operator and directory, which one launch at a time may use."""
FORMER_LAUNCH_SLOT = f"{PREFIX}/place"
"""The same label on Jobs of earlier versions."""
HOME_OF = f"{PREFIX}/home"
"""Label: digest of the home that a launch belongs to; a copy of a home has runs with the same names."""
LAUNCH = f"{PREFIX}/launch"
"""Annotation: digest of the launch and its image; only a Job with an equal one is adopted."""
OUTCOME_RECORDED = f"{PREFIX}/outcome-recorded"
"""Label: a run has recorded the outcome of this Job, so no run adopts it."""
FORMER_OUTCOME_RECORDED = f"{PREFIX}/told"
"""The same label on Jobs of earlier versions."""
CONTAINER = "operator"
DATA = "/data"
_HOME, _TMP = "/home/operator", "/tmp"  # noqa: S108 - in the container

_LABEL_CHARACTERS = re.compile(r"[^A-Za-z0-9_.-]+")
_NAME_CHARACTERS = re.compile(r"[^a-z0-9-]+")
_GRACE_S = 5
_LEAST_MEMORY_MB = 128
_NODE_LOST_S = 30  # how long a pod stays on a node after Kubernetes has marked the node as not ready
_BACKUP_S = 120  # how much a Job's deadline is later than its pod's, because the Job's deletes the pod and its log


@dataclass(frozen=True, kw_only=True)
class ClusterTarget:
    """Where in a cluster operators run, and with which resources.

    Attributes:
        namespace: namespace of Jobs and pods.
        claim: PersistentVolumeClaim of the volume that holds the platform's home.
        claim_path: path of the home in the volume; "" for the root of the volume.
        home: path of the same folder as the platform sees it.
        uid: ID of the user and of the group that operators run as.
        node_selector: labels that nodes must have.
        tolerations: tolerations of pods, in the form of the Kubernetes API.
        gpu_resource: resource name of GPUs.
        pods: how many operator pods may run in parallel, over all runs.
        parallel: how many launches of one operator run in parallel.
        patience_s: seconds that a pod may wait for a node, and that calls are retried while the cluster is
            unavailable.
        retention_s: seconds that pods of failed operators are kept.
        memory_mb: memory limit in MiB for operators that declare none; 0 for no limit.
        scratch_mb: limit in MiB for data that a pod writes outside its run directory (/tmp, HOME, its log);
            0 for no limit.
        log_drain_s: seconds to read the rest of a log after its container has ended.
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
    log_drain_s: float = 15.0


@dataclass(frozen=True)
class JobHandle:
    """Identifies a Job in the cluster: a name may be used again, a uid never is."""

    name: str
    uid: str

    @property
    def pods(self) -> str:
        """Label selector for its pods, without those of an earlier Job of the same name that are still terminating."""
        return f"batch.kubernetes.io/controller-uid={self.uid}"

    @staticmethod
    def of(found: Mapping[str, Any]) -> JobHandle:
        """Return the handle of a Job that the API returned."""
        return JobHandle(found["metadata"]["name"], found["metadata"]["uid"])


def launch_slot(launch: Launch) -> str:
    """Return the label value that identifies a launch among all that may run in parallel."""
    return _digest([launch.run_id, launch.operator, str(launch.directory)])[:32]


def home_of(target: ClusterTarget) -> str:
    """Return the label value that identifies a home among all whose operators run in a namespace."""
    return _digest([target.claim, target.claim_path, str(target.home)])[:32]


def identity_of(launch: Launch, image_digest: str) -> str:
    """Return the digest of a launch and of its image's content."""
    return _digest([launch_digest(launch), image_digest])


def name_of(launch: Launch, number: int) -> str:
    """Return the Job's name: up to 63 lower-case letters, digits and hyphens; ``number`` counts launches of a slot."""
    operator = _NAME_CHARACTERS.sub("-", launch.operator.lower()).strip("-")[:36].strip("-")
    return f"{operator or 'operator'}-{launch_slot(launch)[:12]}-{number}"


def job(launch: Launch, *, number: int, reference: str, image_digest: str, target: ClusterTarget) -> Manifest:
    """Return the manifest of the Job: one pod, never restarted, that mounts only the launch's directory.

    Raises:
        ConfigurationError: the directory is not below the platform's home.
        ParameterError: a name or value cannot be an environment variable.
    """
    labels = {
        **MANAGED,
        LAUNCH_SLOT: launch_slot(launch),
        RUN: label(launch.run_id),
        HOME_OF: home_of(target),
        f"{PREFIX}/workflow": label(launch.workflow),
        f"{PREFIX}/operator": label(launch.operator),
        # NetworkPolicies select pods by this label.
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
        # Nothing else removes the Jobs of a worker that died and is not replaced.
        "ttlSecondsAfterFinished": int(max(target.retention_s, 3600)),
        "template": {
            "metadata": {"labels": labels, "annotations": annotations},
            "spec": _pod(launch, reference=reference, target=target),
        },
    }
    if launch.timeout_s is not None:
        # The pod's own deadline keeps the pod and its log. The Job's would delete both, and is only a backup.
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
    """Return the text as a label value: unchanged if that is valid, else cleaned, shortened and with a digest."""
    cleaned = _LABEL_CHARACTERS.sub("_", text).strip("_.-")
    if cleaned == text and len(text) <= 63:
        return text
    return f"{cleaned[:50].strip('_.-')}-{_digest(text)[:10]}".lstrip("-")


def _pod(launch: Launch, *, reference: str, target: ClusterTarget) -> Manifest:
    # HOME and TMPDIR are volumes, because the image's own file system is read-only.
    variables = {**environment(launch, workflow_dir=DATA), "HOME": _HOME, "TMPDIR": _TMP}
    container: Manifest = {
        "name": CONTAINER,
        "image": reference,
        "imagePullPolicy": "IfNotPresent",
        # Kubernetes expands "$(X)" in values; "$$" escapes the dollar sign.
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
    # Requests equal limits, so that a pod is not scheduled where its neighbours' usage could get it killed.
    requests = dict(limits)
    # Default limits only cap usage. Their requests stay minimal, so that a small node still suffices.
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
