"""Interprets the status of a pod. Nothing here talks to a cluster.

References:
    https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from kaapana_assets.containers.kubernetes.job import CONTAINER


class PodStage(Enum):
    """The stage of a pod's life."""

    WAITING = "waiting"
    RUNNING = "running"
    LOST = "lost"
    """The node does not answer; the pod may or may not still run."""
    ENDING = "ending"
    """The pod is being ended, by a deletion or its deadline, and has not ended yet."""
    ENDED = "ended"


class Cause(Enum):
    """Why a pod waits or ended, if the exit code alone does not say."""

    IMAGE = "image"
    """The image cannot be pulled."""
    SETTINGS = "settings"
    """Something that the pod needs (a claim, a secret) does not exist, or its container cannot be started."""
    NO_NODE = "no node"
    """No node has room for the pod now."""
    OUT_OF_MEMORY = "out of memory"
    DEADLINE = "deadline"
    DELETED = "deleted"
    EVICTED = "evicted"


@dataclass(frozen=True)
class PodState:
    """The interpreted status of a pod.

    Attributes:
        exit_code: exit code of the container; None if the pod's status has none.
        words: the reason that the cluster gives; "" if it gives none.
        image_id: ID of the image that the node ran.
        node: name of the node.
        started: whether the container may have started, so that it may have a log.
    """

    stage: PodStage
    cause: Cause | None = None
    exit_code: int | None = None
    words: str = ""
    image_id: str = ""
    node: str = ""
    started: bool = False

    @property
    def is_final(self) -> bool:
        """Whether the state cannot change any more, however long one waits."""
        return self.stage is PodStage.ENDED or self.cause in (Cause.IMAGE, Cause.SETTINGS)


# https://github.com/kubernetes/kubernetes/blob/v1.34.0/pkg/kubelet/images/types.go
_NO_IMAGE = {"ImagePullBackOff", "ErrImagePull", "ErrImageNeverPull", "InvalidImageName", "RegistryUnavailable",
             "ImageInspectError", "SignatureValidationFailed"}  # fmt: skip
_CANNOT_START = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "StartError",
                 "ContainerCannotRun"}  # fmt: skip
_NO_CLAIM = re.compile(r'persistentvolumeclaim "[^"]*" not found')


def state_of(pod: Mapping[str, Any], *, deleted: bool = False) -> PodState:
    """Interpret the status of a pod.

    Args:
        pod: the pod, as the Kubernetes API returns it.
        deleted: whether the pod no longer exists, and ``pod`` has its last status.
    """
    status = pod.get("status", {})
    conditions = {each["type"]: each for each in status.get("conditions") or ()}
    container: Mapping[str, Any] = next(
        (each for each in status.get("containerStatuses") or () if each["name"] == CONTAINER), {}
    )
    state = container.get("state", {})
    known = {"image_id": container.get("imageID", ""), "node": pod.get("spec", {}).get("nodeName", "")}
    terminated = state.get("terminated")
    ends = status.get("phase") in ("Succeeded", "Failed")
    removed = deleted or "deletionTimestamp" in pod.get("metadata", {})
    if status.get("reason") == "DeadlineExceeded":
        stage = PodStage.ENDED if ends and (terminated or not state.get("running")) else PodStage.ENDING
        return PodState(stage, Cause.DEADLINE, words="it ran longer than its deadline", started=True, **known)
    if terminated and terminated.get("reason") in _CANNOT_START:
        return PodState(PodStage.ENDED, Cause.SETTINGS, words=_said(terminated), **known)
    if terminated and (ends or not removed):
        cause = _cause_of_end(terminated, status)
        if cause is None and removed and terminated["exitCode"] != 0:
            cause = Cause.DELETED
        # The container's own message is ignored: the operator can write it, to /dev/termination-log.
        words = status.get("message") or ("somebody deleted it" if cause is Cause.DELETED else "")
        return PodState(PodStage.ENDED, cause, terminated["exitCode"], words, started=True, **known)
    if removed or (ends and not terminated):
        return _removed(status, conditions, gone=deleted or ends, **known)
    if state.get("running"):
        ready = conditions.get("Ready", {}).get("status")
        if (
            container.get("ready")
            and ready == "False"
            and conditions.get("ContainersReady", {}).get("status") == "True"
        ):
            words = f"node {known['node']} does not answer"
            return PodState(PodStage.LOST, words=words, started=True, **known)
        return PodState(PodStage.RUNNING, started=True, **known)
    return _waiting(state.get("waiting") or {}, conditions, **known)


def _cause_of_end(terminated: Mapping[str, Any], status: Mapping[str, Any]) -> Cause | None:
    if terminated.get("reason") == "OOMKilled":
        return Cause.OUT_OF_MEMORY
    if status.get("reason") == "Evicted":
        return Cause.EVICTED
    return None


def _removed(
    status: Mapping[str, Any], conditions: Mapping[str, Mapping[str, Any]], *, gone: bool, image_id: str, node: str
) -> PodState:
    disruption = conditions.get("DisruptionTarget", {})
    started = bool(status.get("startTime"))
    if disruption.get("reason") == "DeletionByTaintManager" and not gone:
        words = f"node {node} does not answer, and the cluster gave its pods up"
        return PodState(PodStage.LOST, words=words, image_id=image_id, node=node, started=started)
    evicted = status.get("reason") == "Evicted" or disruption.get("status") == "True"
    words = status.get("message") or disruption.get("message") or "somebody deleted it"
    cause = Cause.EVICTED if evicted else Cause.DELETED
    stage = PodStage.ENDED if gone else PodStage.ENDING
    return PodState(stage, cause, words=words, image_id=image_id, node=node, started=started)


def _waiting(
    waiting: Mapping[str, Any], conditions: Mapping[str, Mapping[str, Any]], *, image_id: str, node: str
) -> PodState:
    reason = waiting.get("reason", "")
    if reason in _NO_IMAGE:
        return PodState(PodStage.WAITING, Cause.IMAGE, words=_said(waiting), image_id=image_id, node=node)
    if reason in _CANNOT_START:
        return PodState(PodStage.WAITING, Cause.SETTINGS, words=_said(waiting), image_id=image_id, node=node)
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        words = scheduled.get("message", "")
        cause = Cause.SETTINGS if _NO_CLAIM.search(words) else Cause.NO_NODE
        return PodState(PodStage.WAITING, cause, words=words)
    return PodState(PodStage.WAITING, words=reason, image_id=image_id, node=node)


def _said(state: Mapping[str, Any]) -> str:
    return ": ".join(part for part in (state.get("reason"), state.get("message")) if part)
