"""Operators as pods: what the platform asks of a runner, done with Jobs in one namespace."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kaapana_assets.containers.kubernetes.api import Cluster, Gone, Taken
from kaapana_assets.containers.kubernetes.diagnosis import Cause, PodState, Stage, state_of
from kaapana_assets.containers.kubernetes.job import (
    HOME_OF,
    LAUNCH,
    MANAGED,
    PLACE,
    RUN,
    TOLD,
    ClusterPlace,
    JobHandle,
    home_of,
    identity_of,
    job,
    label,
    name_of,
    place_of,
)
from kaapana_assets.containers.kubernetes.pod_wait import Waiting, failure_of
from kaapana_assets.containers.kubernetes.pod_watch import Following, Line, Seen
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
_LOG_DRAIN_S = 15.0
_TURN_S = 1.0
_NO_POD_S = 2.0  # a Job that has no pod after so long has a reason
_KEPT_OF_A_RUN = 20  # failed pods that are kept to be looked at; thousands would use up the quota of Jobs
_ALIVE = "status.phase!=Succeeded,status.phase!=Failed"


class KubernetesRunner:
    """Runs each launch as a Job with one pod, which sees its run directory at /data and nothing else.

    Args:
        cluster: where.
        place: with what.
        images: folder of image folders, whose versions are in tags.
        registry: before the names of image folders.
        suffix: after versions in tags.
        own_uid: the user that the platform runs as.

    Raises:
        ConfigurationError: the platform cannot hand folders over to the user of operators.
    """

    def __init__(
        self, cluster: Cluster, place: ClusterPlace, *, images: Path, registry: str, suffix: str, own_uid: int
    ) -> None:
        self._cluster = cluster
        self._place = place
        self._images = images
        self._registry = registry
        self._suffix = suffix
        self._own_uid = own_uid
        self._built = BuiltImages(place.home)
        check_users(place.uid, own_uid=own_uid)
        self._turn = threading.Lock()
        self._going: set[str] = set()

    @property
    def isolates(self) -> bool:
        """True where operators run as another user than the platform, which owns the files of the archive."""
        return self._place.uid != self._own_uid

    @property
    def parallel_launches(self) -> int:
        """As the settings say."""
        return self._place.parallel

    def check(self) -> str:
        """The cluster's version; sees that Jobs of the namespace may be listed."""
        version = self._cluster.version()
        self._cluster.jobs(f"{PLACE}=none")
        return f"Kubernetes {version.lstrip('v')}, namespace {self._place.namespace}"

    def image_digest(self, image: str) -> str:
        """The ID of the image that was built for a folder; of a full reference its digest, or itself.

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
        # A tag may be moved and nobody would notice; docs/containers.md says so.
        return digest if at else f"reference:{reference}"

    def adopts(self, launch: Launch) -> bool:
        """Whether a Job of an equal launch is there whose end no run was told; see ``Runner.adopts``.

        A Job of another launch in the same place is ended: two would write the same files.
        """
        identity = identity_of(launch, self.image_digest(launch.image))
        for found in self._cluster.jobs(_open_jobs(launch)):
            if _is(found, identity):
                return True
            self._end(JobHandle.of(found))
        return False

    def end_left(self, run_id: str) -> None:
        """End the Jobs of a run whose end no run was told."""
        for found in self._cluster.jobs(f"{RUN}={label(run_id)},!{TOLD}"):
            if found["metadata"]["labels"].get(HOME_OF, home_of(self._place)) == home_of(self._place):
                self._end(JobHandle.of(found))

    def run(
        self, launch: Launch, *, output: Callable[[str], None], cancelled: threading.Event | None = None
    ) -> Outcome:
        """Run one operator to its end, as ``Runner.run`` says."""
        stop = cancelled or threading.Event()
        digest = self.image_digest(launch.image)
        wait = Waiting(launch, self._place, output, stop)
        with self._place_for(launch, wait):
            identity = identity_of(launch, digest)
            there = [found for found in self._cluster.jobs(_open_jobs(launch)) if _is(found, identity)]
            handle = JobHandle.of(there[0]) if there else self._start(launch, digest)
            try:
                with Following(self._cluster, handle) as following:
                    state = self._follow(handle, following, wait)
            except EngineUnavailable:
                raise  # what was started goes on, and is found again
            except BaseException:
                # Also when the run is cancelled or its process is told to end.
                with contextlib.suppress(EngineUnavailable):
                    self._end(handle)
                raise
            return self._conclude(handle, state, wait)

    def _start(self, launch: Launch, digest: str) -> JobHandle:
        hand_over(launch.directory, self._place.uid)
        reference = self._exact_reference(launch.image)
        number = 1 + len(self._cluster.jobs(f"{PLACE}={place_of(launch)}"))
        while True:
            manifest = job(launch, number=number, reference=reference, image_digest=digest, place=self._place)
            try:
                return JobHandle.of(self._cluster.create_job(manifest))
            except Taken:
                # Ours, if its making was answered by a connection that broke; else one that was told already.
                found = self._cluster.job(name_of(launch, number))
                if TOLD in found["metadata"]["labels"] or not _is(found, identity_of(launch, digest)):
                    number += 1
                    continue
                return JobHandle.of(found)

    def _follow(self, handle: JobHandle, following: Following, wait: Waiting) -> PodState:
        """The state in which the pod can be left, all of its output given on."""
        state: PodState | None = None
        began = time.monotonic()
        ended_at: float | None = None
        seen: Mapping[str, Any] = {}
        while True:
            all_read = following.log_is_read  # before the queue is found empty
            news = following.next(_POLL_S)
            if wait.stop.is_set():
                raise stopped(wait.launch, wait.stop, wait.last)
            if isinstance(news, KaapanaAssetsError):
                raise news
            if state is not None and ended_at is not None and time.monotonic() - ended_at > _LOG_DRAIN_S:
                if news is not None:
                    wait.say("it printed more than can be read in time: what is missing here is left out")
                    for line in following.last_lines(seen["metadata"]["name"])[-LINES_SHOWN:]:
                        wait.heard(line)
                return state
            if isinstance(news, Line):
                wait.heard(news.text)
                continue
            if isinstance(news, Seen):
                seen = news.pod or seen
                state = state_of(seen, deleted=news.pod is None)
                wait.changed(state)
                if state.started and state.stage is not Stage.WAITING:
                    following.follow_log(seen["metadata"]["name"])
                if state.is_final and ended_at is None:
                    following.finish_log()
                    ended_at = time.monotonic()
            if state is None and time.monotonic() - began > _NO_POD_S:
                self._explain_missing_pod(handle.name, wait)
                began = time.monotonic()
            if state is not None and ended_at is not None and news is None and all_read:
                return state
            self._explain_waiting(state, seen, wait)
            wait.check_patience(state)

    def _explain_waiting(self, state: PodState | None, pod: Mapping[str, Any], wait: Waiting) -> None:
        """Say what hinders a container that its node is making for some time: a volume, a network."""
        if state is not None and state.stage is Stage.WAITING and state.cause is None and wait.is_to_be_explained():
            warnings = self._cluster.warnings("Pod", pod["metadata"]["name"])
            wait.say("; ".join([state.words or "waiting", *warnings[-1:]]))

    def _explain_missing_pod(self, name: str, wait: Waiting) -> None:
        """Say why a Job has no pod yet, or raise that it will have none."""
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

    def _conclude(self, handle: JobHandle, state: PodState, wait: Waiting) -> Outcome:
        launch, place = wait.launch, self._place
        if state.cause is None and state.exit_code in (0, SKIPPED):
            # First, or a run that is repeated with the right image would be told of this one again.
            self._end(handle)
            self._check_image(launch, state)
            return outcome_of(state.exit_code, launch, wait.last)
        pod_is_there = state.cause not in (Cause.DELETED, Cause.IMAGE, Cause.SETTINGS)
        if place.retention_s > 0 and pod_is_there and self._kept(launch) < _KEPT_OF_A_RUN:
            look = self._keep(handle.name)
        else:
            self._end(handle)
            look = ""
        raise failure_of(state, wait, look)

    def _kept(self, launch: Launch) -> int:
        return len(self._cluster.jobs(f"{RUN}={label(launch.run_id)},{TOLD}"))

    def _keep(self, name: str) -> str:
        """Let a failed Job stand for a while; how to look into it."""
        told = {
            "metadata": {"labels": {TOLD: "true"}},
            "spec": {"ttlSecondsAfterFinished": int(self._place.retention_s)},
        }
        try:
            self._cluster.change_job(name, told)
        except Gone:
            return ""
        return f"\nits pod is kept: kubectl -n {self._place.namespace} describe pods --selector job-name={name}"

    def _end(self, handle: JobHandle) -> None:
        """Delete a Job, and wait until its pod writes nothing any more.

        Raises:
            EngineUnavailable: the pod cannot be seen to end, because its node is away.
        """
        self._cluster.delete_job(handle.name)
        deadline = time.monotonic() + max(self._place.patience_s, 30)
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
        """Results stand on the shelf for the image that was built; that it was the one that ran must be sure."""
        built = self._built.find(self._reference(launch.image))
        digest = launch.image.rpartition("@")[2] if "@" in launch.image else ""
        if (built and not built.is_run_as(state.image_id)) or (digest and not state.image_id.endswith(digest)):
            raise ConfigurationError(
                f"operator {launch.operator} of {launch.run_id}: node {state.node} has another image of the name "
                f"{self._reference(launch.image)} ({state.image_id}) than the one that was built "
                f"({built.image_id if built else digest}): push it, or load it on the node again"
            )

    @contextmanager
    def _place_for(self, launch: Launch, wait: Waiting) -> Iterator[None]:
        """Wait until fewer pods than the limit run, and count as one."""
        mine = place_of(launch)
        selector = ",".join(f"{key}={value}" for key, value in MANAGED.items())
        while True:
            with self._turn:
                pods, _ = self._cluster.pods(selector, fields=_ALIVE)
                others = [pod for pod in pods if pod["metadata"]["labels"].get(PLACE) not in {*self._going, mine}]
                if len(others) + len(self._going) < self._place.pods:
                    self._going.add(mine)
                    wait.begin()
                    break
            wait.say(f"{self._place.pods} pods of operators run, as many as may (KAAPANA_KUBERNETES_PODS); waiting")
            if wait.stop.wait(_TURN_S):
                raise OperatorFailed(f"{wait.named} was cancelled while it waited for its turn")
        try:
            yield
        finally:
            with self._turn:
                self._going.discard(mine)

    def _exact_reference(self, image: str) -> str:
        """The reference with the digest of what was pushed, where that is known: a node may have an older one."""
        reference = self._reference(image)
        built = self._built.find(reference)
        if built is None or not built.repo_digests:
            return reference
        path, _, name = reference.rpartition("/")
        return f"{path}/{name.partition(':')[0]}@{built.repo_digests[-1]}"

    def _reference(self, image: str) -> str:
        return reference_of(self._images, image, registry=self._registry, suffix=self._suffix)


def _open_jobs(launch: Launch) -> str:
    return f"{PLACE}={place_of(launch)},!{TOLD}"


def _is(found: Mapping[str, Any], identity: str) -> bool:
    return bool(found["metadata"].get("annotations", {}).get(LAUNCH) == identity)


def _may_write(state: PodState) -> bool:
    # One that never started, or has ended, writes nothing.
    return state.stage in (Stage.RUNNING, Stage.LOST, Stage.ENDING)
