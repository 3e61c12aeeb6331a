"""The runner for Kubernetes: launches operators as Jobs in one namespace."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kaapana_assets.containers.kubernetes.api import Cluster, Gone, NameTaken
from kaapana_assets.containers.kubernetes.diagnosis import Cause, PodStage, PodState, state_of
from kaapana_assets.containers.kubernetes.job import (
    FORMER_LAUNCH_SLOT,
    FORMER_OUTCOME_RECORDED,
    HOME_OF,
    LAUNCH,
    LAUNCH_SLOT,
    MANAGED,
    OUTCOME_RECORDED,
    RUN,
    ClusterTarget,
    JobHandle,
    home_of,
    identity_of,
    job,
    label,
    launch_slot,
    name_of,
)
from kaapana_assets.containers.kubernetes.pod_wait import PodWait, failure_of
from kaapana_assets.containers.kubernetes.pod_watch import Line, PodWatch, Seen
from kaapana_assets.containers.outcomes import LINES_SHOWN, SKIPPED, outcome_of, stopped
from kaapana_assets.containers.ownership import check_users, hand_over
from kaapana_assets.containers.protocol import Launch, Outcome
from kaapana_assets.errors import (
    ConfigurationError,
    EngineUnavailable,
    KaapanaAssetsError,
    NotFound,
    OperatorFailed,
)
from kaapana_assets.image_builds.record import BuiltImages
from kaapana_assets.image_builds.references import is_folder_name, reference_of

_POLL_S = 0.2
_TURN_S = 1.0
_NO_POD_S = 2.0  # look for the reason if a Job has no pod after this long
_KEPT_OF_A_RUN = 20  # failed pods kept for inspection; thousands would exhaust the quota of Jobs
_ALIVE = "status.phase!=Succeeded,status.phase!=Failed"


class KubernetesRunner:
    """Runs each launch as a Job with one pod, which sees the launch's directory at /data and nothing else.

    Args:
        cluster: the cluster and namespace that run the Jobs.
        target: volume, user, resources and limits of the pods.
        images: folder of image folders, whose versions are in tags.
        registry: registry and path that precede the names of image folders.
        suffix: suffix of the versions in tags.
        own_uid: ID of the user that the platform runs as.

    Raises:
        ConfigurationError: the platform may not hand folders over to the operators' user.
    """

    def __init__(
        self, cluster: Cluster, target: ClusterTarget, *, images: Path, registry: str, suffix: str, own_uid: int
    ) -> None:
        self._cluster = cluster
        self._target = target
        self._runs_of_before: dict[str, bool] = {}
        self._images = images
        self._registry = registry
        self._suffix = suffix
        self._own_uid = own_uid
        self._built = BuiltImages(target.home)
        check_users(target.uid, own_uid=own_uid)
        self._turn = threading.Lock()
        self._going: set[str] = set()

    @property
    def isolates(self) -> bool:
        """True if operators run as another user than the platform, which owns the files of the archive."""
        return self._target.uid != self._own_uid

    @property
    def parallel_launches(self) -> int:
        """How many launches of one operator run in parallel; see ``Runner.parallel_launches``."""
        return self._target.parallel

    def check(self) -> str:
        """Check that the namespace's Jobs may be listed; return the cluster's version and the namespace."""
        version = self._cluster.version()
        self._cluster.jobs(f"{LAUNCH_SLOT}=none")
        return f"Kubernetes {version.lstrip('v')}, namespace {self._target.namespace}"

    def image_digest(self, image: str) -> str:
        """Return the ID of the image that was built for a folder; for a full reference, its digest or itself.

        Raises:
            NotFound: no image was built for the folder.
        """
        reference = self._reference(image)
        built = self._built.find(reference)
        if built is not None:
            return built.image_id
        if is_folder_name(image):
            raise NotFound(
                f"image {image}: {reference} was not built on this home: kaapana-assets images build {image}, and push "
                "it or load it where the cluster finds it"
            )
        _, at, digest = reference.rpartition("@")
        # A tag that is moved goes unnoticed; docs/containers.md says so.
        return digest if at else f"reference:{reference}"

    def adopts(self, launch: Launch) -> bool:
        """Whether there is a Job of an equal launch whose outcome no run has recorded; see ``Runner.adopts``.

        Ends Jobs of other launches in the same slot, because two would write the same files.
        """
        identity = identity_of(launch, self.image_digest(launch.image))
        for found in self._open_jobs(launch):
            if _is(found, identity):
                return True
            self._end(JobHandle.of(found))
        return False

    def end_left(self, run_id: str) -> None:
        """End the Jobs of a run whose outcome no run has recorded."""
        for found in self._cluster.jobs(f"{RUN}={label(run_id)},!{OUTCOME_RECORDED},!{FORMER_OUTCOME_RECORDED}"):
            if found["metadata"]["labels"].get(HOME_OF, home_of(self._target)) == home_of(self._target):
                self._end(JobHandle.of(found))

    def run(
        self, launch: Launch, *, output: Callable[[str], None], cancelled: threading.Event | None = None
    ) -> Outcome:
        """Run one operator to its end, as ``Runner.run`` says."""
        stop = cancelled or threading.Event()
        digest = self.image_digest(launch.image)
        wait = PodWait(launch, self._target, output, stop)
        with self._turn_of(launch, wait):
            identity = identity_of(launch, digest)
            there = [found for found in self._open_jobs(launch) if _is(found, identity)]
            handle = JobHandle.of(there[0]) if there else self._start(launch, digest)
            try:
                with PodWatch(self._cluster, handle) as watch:
                    state = self._follow(handle, watch, wait)
            except EngineUnavailable:
                raise  # the Job may still run, and the next process adopts it
            except BaseException:
                # Also when the run is cancelled or its process is terminated.
                with contextlib.suppress(EngineUnavailable):
                    self._end(handle)
                raise
            return self._conclude(handle, state, wait)

    def _open_jobs(self, launch: Launch) -> list[dict[str, Any]]:
        """Return the Jobs in a launch's slot whose outcome no run has recorded, with those of earlier versions."""
        slot = launch_slot(launch)
        found = self._cluster.jobs(f"{LAUNCH_SLOT}={slot},!{OUTCOME_RECORDED}")
        if found or not self._has_former_jobs(launch.run_id):
            return found
        return self._cluster.jobs(f"{FORMER_LAUNCH_SLOT}={slot},!{FORMER_OUTCOME_RECORDED}")

    def _has_former_jobs(self, run_id: str) -> bool:
        """Whether an earlier version started Jobs of the run; it starts no more of them."""
        if run_id not in self._runs_of_before:
            self._runs_of_before[run_id] = bool(self._cluster.jobs(f"{RUN}={label(run_id)},{FORMER_LAUNCH_SLOT}"))
        return self._runs_of_before[run_id]

    def _start(self, launch: Launch, digest: str) -> JobHandle:
        hand_over(launch.directory, self._target.uid)
        reference = self._exact_reference(launch.image)
        number = 1 + len(self._cluster.jobs(f"{LAUNCH_SLOT}={launch_slot(launch)}"))
        while True:
            manifest = job(launch, number=number, reference=reference, image_digest=digest, target=self._target)
            try:
                return JobHandle.of(self._cluster.create_job(manifest))
            except NameTaken:
                # Our own Job, if the answer to its creation was lost; else one whose outcome is recorded.
                found = self._cluster.job(name_of(launch, number))
                if _is_recorded(found) or not _is(found, identity_of(launch, digest)):
                    number += 1
                    continue
                return JobHandle.of(found)

    def _follow(self, handle: JobHandle, watch: PodWatch, wait: PodWait) -> PodState:
        """Watch the pod until its state is final and its output is forwarded, and return that state.

        Raises:
            OperatorFailed: the run was cancelled, or the Job was deleted or failed before it had a pod.
            ConfigurationError: the pod did not start in time.
            EngineUnavailable: the cluster does not answer, or the pod's end cannot be observed.
        """
        state: PodState | None = None
        began = time.monotonic()
        ended_at: float | None = None
        seen: Mapping[str, Any] = {}
        while True:
            all_read = watch.log_is_read  # checked before the queue, so that no line is missed
            news = watch.next(_POLL_S)
            if wait.stop.is_set():
                raise stopped(wait.launch, wait.stop, wait.last)
            if isinstance(news, KaapanaAssetsError):
                raise news
            if state is not None and ended_at is not None and time.monotonic() - ended_at > self._target.log_drain_s:
                # A slow connection can leave the queue empty for a moment: that is no end of the log.
                if news is not None or not all_read:
                    wait.say("it printed more than can be read in time: what is missing here is left out")
                    for line in watch.last_lines(seen["metadata"]["name"])[-LINES_SHOWN:]:
                        wait.heard(line)
                return state
            if isinstance(news, Line):
                wait.heard(news.text)
                continue
            if isinstance(news, Seen):
                seen = news.pod or seen
                state = state_of(seen, deleted=news.pod is None)
                wait.changed(state)
                if state.started and state.stage is not PodStage.WAITING:
                    watch.follow_log(seen["metadata"]["name"])
                if state.is_final and ended_at is None:
                    watch.finish_log()
                    ended_at = time.monotonic()
            if state is None and time.monotonic() - began > _NO_POD_S:
                self._explain_missing_pod(handle.name, wait)
                began = time.monotonic()
            if state is not None and ended_at is not None and news is None and all_read:
                return state
            self._explain_waiting(state, seen, wait)
            wait.check_patience(state)

    def _explain_waiting(self, state: PodState | None, pod: Mapping[str, Any], wait: PodWait) -> None:
        """Print what keeps a pod waiting for some time, from its last warning event: a volume, a network."""
        if state is not None and state.stage is PodStage.WAITING and state.cause is None and wait.is_to_be_explained():
            warnings = self._cluster.warnings("Pod", pod["metadata"]["name"])
            wait.say("; ".join([state.words or "waiting", *warnings[-1:]]))

    def _explain_missing_pod(self, name: str, wait: PodWait) -> None:
        """Print why a Job has no pod yet.

        Raises:
            OperatorFailed: the Job was deleted or has failed, so it never gets a pod.
        """
        try:
            found = self._cluster.job(name)
        except Gone as exc:
            raise OperatorFailed(f"{wait.named}: its Job {name} was deleted before it had a pod") from exc
        warnings = self._cluster.warnings("Job", name)
        for condition in found.get("status", {}).get("conditions") or ():
            if condition["type"] == "Failed" and condition["status"] == "True":
                said = "; ".join([condition.get("message", ""), *warnings[-1:]])
                raise OperatorFailed(f"{wait.named}: its Job {name} failed before it had a pod: {said}")
        wait.say(f"no pod yet; the cluster says: {warnings[-1]}" if warnings else "no pod yet")

    def _conclude(self, handle: JobHandle, state: PodState, wait: PodWait) -> Outcome:
        launch, target = wait.launch, self._target
        if state.cause is None and state.exit_code in (0, SKIPPED):
            # Deleted before the check, or a retry with the right image would adopt this Job again.
            self._end(handle)
            self._check_image(launch, state)
            return outcome_of(state.exit_code, launch, wait.last)
        pod_is_there = state.cause not in (Cause.DELETED, Cause.IMAGE, Cause.SETTINGS)
        if target.retention_s > 0 and pod_is_there and self._kept(launch) < _KEPT_OF_A_RUN:
            look = self._keep(handle.name)
        else:
            self._end(handle)
            look = ""
        raise failure_of(state, wait, look)

    def _kept(self, launch: Launch) -> int:
        return len(self._cluster.jobs(f"{RUN}={label(launch.run_id)},{OUTCOME_RECORDED}"))

    def _keep(self, name: str) -> str:
        """Keep a failed Job for a while; return how to inspect it, "" if the Job is gone."""
        recorded = {
            "metadata": {"labels": {OUTCOME_RECORDED: "true"}},
            "spec": {"ttlSecondsAfterFinished": int(self._target.retention_s)},
        }
        try:
            self._cluster.change_job(name, recorded)
        except Gone:
            return ""
        return f"\nits pod is kept: kubectl -n {self._target.namespace} describe pods --selector job-name={name}"

    def _end(self, handle: JobHandle) -> None:
        """Delete a Job, and wait until its pod cannot write any more.

        Raises:
            EngineUnavailable: the pod's end cannot be observed, most likely because its node does not answer.
        """
        self._cluster.delete_job(handle.name)
        deadline = time.monotonic() + max(self._target.patience_s, 30)
        while True:
            pods, _ = self._cluster.pods(handle.pods)
            if not any(_may_write(state_of(pod)) for pod in pods):
                return
            if time.monotonic() > deadline:
                raise EngineUnavailable(
                    f"pod {pods[0]['metadata']['name']} was told to end and cannot be seen to: is its node "
                    f"{state_of(pods[0]).node} away? Remove the node or the pod by force, when nothing runs there"
                )
            time.sleep(_POLL_S)

    def _check_image(self, launch: Launch, state: PodState) -> None:
        """Check that the node ran the image that was built: outputs go on the shelf under that image's digest.

        Raises:
            ConfigurationError: the node ran another image.
        """
        built = self._built.find(self._reference(launch.image))
        digest = launch.image.rpartition("@")[2] if "@" in launch.image else ""
        if (built and not built.is_run_as(state.image_id)) or (digest and not state.image_id.endswith(digest)):
            raise ConfigurationError(
                f"operator {launch.operator} of {launch.run_id}: node {state.node} has another image of the name "
                f"{self._reference(launch.image)} ({state.image_id}) than the one that was built "
                f"({built.image_id if built else digest}): push it, or load it on the node again"
            )

    @contextmanager
    def _turn_of(self, launch: Launch, wait: PodWait) -> Iterator[None]:
        """Wait until fewer operator pods run than the limit, and count as one of them within the block.

        Raises:
            OperatorFailed: the run was cancelled during the wait.
        """
        mine = launch_slot(launch)
        selector = ",".join(f"{key}={value}" for key, value in MANAGED.items())
        while True:
            with self._turn:
                pods, _ = self._cluster.pods(selector, fields=_ALIVE)
                others = [pod for pod in pods if _slot_of(pod) not in {*self._going, mine}]
                if len(others) + len(self._going) < self._target.pods:
                    self._going.add(mine)
                    wait.begin()
                    break
            wait.say(f"{self._target.pods} pods of operators run, as many as may (KAAPANA_KUBERNETES_PODS); waiting")
            if wait.stop.wait(_TURN_S):
                raise OperatorFailed(f"{wait.named} was cancelled while it waited for its turn")
        try:
            yield
        finally:
            with self._turn:
                self._going.discard(mine)

    def _exact_reference(self, image: str) -> str:
        """Return the reference by the pushed digest, if known: a node may have an older image under the tag."""
        reference = self._reference(image)
        built = self._built.find(reference)
        if built is None or not built.repo_digests:
            return reference
        path, _, name = reference.rpartition("/")
        return f"{path}/{name.partition(':')[0]}@{built.repo_digests[-1]}"

    def _reference(self, image: str) -> str:
        return reference_of(self._images, image, registry=self._registry, suffix=self._suffix)


def _slot_of(found: Mapping[str, Any]) -> str | None:
    labels: Mapping[str, str] = found["metadata"]["labels"]
    return labels.get(LAUNCH_SLOT) or labels.get(FORMER_LAUNCH_SLOT)


def _is_recorded(found: Mapping[str, Any]) -> bool:
    return not {OUTCOME_RECORDED, FORMER_OUTCOME_RECORDED}.isdisjoint(found["metadata"]["labels"])


def _is(found: Mapping[str, Any], identity: str) -> bool:
    return bool(found["metadata"].get("annotations", {}).get(LAUNCH) == identity)


def _may_write(state: PodState) -> bool:
    # A pod that has not started, or has ended, writes nothing.
    return state.stage in (PodStage.RUNNING, PodStage.LOST, PodStage.ENDING)
