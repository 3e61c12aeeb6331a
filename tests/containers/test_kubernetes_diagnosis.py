"""What the status of a pod means, as clusters write it."""

from typing import Any

import pytest

from kaapana_assets.containers.kubernetes.diagnosis import Cause, PodStage, PodState, state_of

NO_IMAGE = 'Back-off pulling image "registry.example/none:1"'
NO_ROOM = "0/1 nodes are available: 1 Insufficient memory. preemption: 0/1 nodes are available"
NO_CLAIM = '0/1 nodes are available: persistentvolumeclaim "kaapana-home" not found. not found'
TAINT = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager", "message": "Taint manager"}
READY = {"type": "ContainersReady", "status": "True"}


def pod(state: dict[str, Any] | None = None, *, phase: str = "Running", deleted: bool = False, **status: Any) -> Any:
    containers = [{"name": "operator", "state": state, "imageID": "sha256:1", "ready": True}] if state else []
    metadata = {"name": "p"} | ({"deletionTimestamp": "2026-01-01T00:00:00Z"} if deleted else {})
    return {
        "metadata": metadata,
        "spec": {"nodeName": "node"},
        "status": {"phase": phase, "containerStatuses": containers, "startTime": "2026-01-01T00:00:00Z", **status},
    }


def ended(code: int, reason: str = "Error") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason}}


def waits(reason: str, message: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


def unschedulable(message: str) -> Any:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return pod(phase="Pending", conditions=[condition])


RUNS = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}

CASES = {
    "new": (pod(phase="Pending"), PodStage.WAITING, None, None),
    "creating": (pod(waits("ContainerCreating"), phase="Pending"), PodStage.WAITING, None, None),
    "runs": (pod(RUNS), PodStage.RUNNING, None, None),
    "done": (pod(ended(0, "Completed"), phase="Succeeded"), PodStage.ENDED, None, 0),
    "skipped": (pod(ended(126), phase="Failed"), PodStage.ENDED, None, 126),
    "failed": (pod(ended(3), phase="Failed"), PodStage.ENDED, None, 3),
    "out of memory": (pod(ended(137, "OOMKilled"), phase="Failed"), PodStage.ENDED, Cause.OUT_OF_MEMORY, 137),
    "deadline": (pod(ended(137), phase="Failed", reason="DeadlineExceeded"), PodStage.ENDED, Cause.DEADLINE, None),
    "deadline, still ending": (
        pod(RUNS, phase="Failed", reason="DeadlineExceeded"),
        PodStage.ENDING,
        Cause.DEADLINE,
        None,
    ),
    "deadline before it ran": (pod(phase="Failed", reason="DeadlineExceeded"), PodStage.ENDED, Cause.DEADLINE, None),
    "no image": (pod(waits("ImagePullBackOff", NO_IMAGE), phase="Pending"), PodStage.WAITING, Cause.IMAGE, None),
    "image never pulled": (pod(waits("ErrImageNeverPull"), phase="Pending"), PodStage.WAITING, Cause.IMAGE, None),
    "no secret": (pod(waits("CreateContainerConfigError"), phase="Pending"), PodStage.WAITING, Cause.SETTINGS, None),
    "no such program": (pod(ended(128, "StartError"), phase="Failed"), PodStage.ENDED, Cause.SETTINGS, None),
    "no room": (unschedulable(NO_ROOM), PodStage.WAITING, Cause.NO_NODE, None),
    "no claim": (unschedulable(NO_CLAIM), PodStage.WAITING, Cause.SETTINGS, None),
    "being deleted": (pod(RUNS, deleted=True), PodStage.ENDING, Cause.DELETED, None),
    "killed by its deletion": (pod(ended(137), phase="Failed", deleted=True), PodStage.ENDED, Cause.DELETED, 137),
    "ended well, then deleted": (pod(ended(0), phase="Succeeded", deleted=True), PodStage.ENDED, None, 0),
    "node gone": (pod(RUNS, deleted=True, conditions=[TAINT]), PodStage.LOST, None, None),
    "node silent": (pod(RUNS, conditions=[READY, {"type": "Ready", "status": "False"}]), PodStage.LOST, None, None),
    "evicted": (pod(phase="Failed", reason="Evicted", message="low on memory"), PodStage.ENDED, Cause.EVICTED, None),
}


@pytest.mark.parametrize(("found", "stage", "cause", "code"), CASES.values(), ids=CASES)
def test_status_is_read_as_what_it_means(found: Any, stage: PodStage, cause: Cause | None, code: int | None) -> None:
    state = state_of(found)
    assert (state.stage, state.cause, state.exit_code) == (stage, cause, code)


def test_pod_that_is_gone_was_deleted_whatever_it_did_last() -> None:
    assert state_of(pod(RUNS), deleted=True) == PodState(
        PodStage.ENDED, Cause.DELETED, words="somebody deleted it", image_id="sha256:1", node="node", started=True
    )


def test_words_of_the_cluster_are_kept() -> None:
    assert NO_IMAGE in state_of(CASES["no image"][0]).words
    assert state_of(CASES["no room"][0]).words == NO_ROOM
    assert "node" in state_of(CASES["node silent"][0]).words


def test_message_that_an_operator_left_is_not_taken_for_the_clusters() -> None:
    left = ended(1)
    left["terminated"]["message"] = "the node is on fire\nturn it off"
    assert state_of(pod(left, phase="Failed", deleted=True)).words == "somebody deleted it"


@pytest.mark.parametrize("case", ["no image", "no secret", "no claim", "image never pulled"])
def test_what_no_waiting_mends_is_final(case: str) -> None:
    assert state_of(CASES[case][0]).is_final


@pytest.mark.parametrize("case", ["no room", "creating", "runs", "node gone", "deadline, still ending"])
def test_what_may_go_on_is_not_final(case: str) -> None:
    assert not state_of(CASES[case][0]).is_final
