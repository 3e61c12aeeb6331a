"""The runner for Docker and Podman: launches operators as containers on one machine.

A container's name is derived from the operator and the directory of its launch. A worker process that replaces
a dead one finds the container by this name, and adopts it if it was started for an equal launch.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from docker import APIClient
from docker.types import DeviceRequest, LogConfig, Mount

from kaapana_assets.containers.contract import environment
from kaapana_assets.containers.docker.engine import Engine
from kaapana_assets.containers.docker.watch import GOES_ON, ContainerWatch
from kaapana_assets.containers.outcomes import SKIPPED, named, outcome_of, stopped, tail
from kaapana_assets.containers.ownership import check_users, hand_over
from kaapana_assets.containers.protocol import Launch, Outcome, launch_digest
from kaapana_assets.errors import ConfigurationError, EngineUnavailable, NotFound, OperatorFailed
from kaapana_assets.image_builds.references import is_folder_name, reference_of
from kaapana_assets.settings import Settings

WORKFLOW_DIR = "/data"
_HOME = "/home/operator"
_SCRATCH = "rw,exec,nosuid,nodev,mode=1777"  # exec, because GPU compilers execute files that they write there
_LAUNCH = "kaapana.launch"
_HOME_OF = "kaapana.home"
_RUN = "kaapana.run"
_PROCESSES = 4096
_SHARED_MEMORY_BYTES = 2 << 30  # data loaders pass images through it; it counts as memory
_MIB = 1 << 20
# Exit codes of containers that an engine stops, or finds dead after the machine has restarted.
_ENDED_BY_ENGINE = {137, 143, 255}


def open_docker(settings: Settings) -> DockerRunner:
    """Open the Docker runner that the settings describe.

    Raises:
        ConfigurationError: the operators' user differs from the platform's, which is not root.
    """
    return DockerRunner(
        settings.images,
        url=settings.docker_url,
        uid=settings.operator_uid,
        own_uid=os.geteuid(),
        registry=settings.image_registry,
        tag_suffix=settings.image_tag_suffix,
        parallel_launches=settings.docker_parallel,
        home=settings.home,
    )


class DockerRunner:
    """Runs operators in containers, through the API of Docker or Podman.

    Args:
        images: folder of image folders, whose Dockerfiles declare the version.
        url: the engine's socket or address. The engine must see run directories under the same paths.
        uid: ID of the user and of the group that operators run as.
        registry: registry and path that precede the names of image folders, or "".
        tag_suffix: suffix that the site appends to versions, or "".
        parallel_launches: how many containers of one operator run in parallel in batch mode.
        own_uid: ID of this process' user.
        grace_s: seconds between SIGTERM and SIGKILL when an operator exceeds its timeout.
        patience_s: seconds to wait for an engine that does not answer.
        log_drain_s: seconds to read the rest of an operator's output after its container has ended.
        home: the platform's home; containers of other homes, such as the original of a copy, are left alone.
    """

    def __init__(
        self,
        images: Path,
        *,
        url: str,
        uid: int,
        own_uid: int,
        registry: str = "",
        tag_suffix: str = "",
        parallel_launches: int = 1,
        grace_s: float = 10.0,
        patience_s: float = 30.0,
        log_drain_s: float = 15.0,
        home: Path | None = None,
    ) -> None:
        self._log_drain_s = log_drain_s
        self.parallel_launches = parallel_launches
        self.isolates = uid != own_uid
        """True if operators run as another user, who without capabilities cannot write the platform's files."""
        self._home = str(home.absolute()) if home else ""
        self._images = images.absolute()
        self._uid = uid
        self._registry = registry
        self._tag_suffix = tag_suffix
        self._grace_s = grace_s
        self._engine = Engine(url, patience_s=patience_s)
        check_users(uid, own_uid=own_uid)

    def check(self) -> str:
        """Return the engine's name and version; see ``Runner.check``."""
        with self._engine.client() as client:
            found = client.version()
        product = "Podman" if self._engine.is_podman() else "Docker"
        return f"{product} {found['Version']}"

    def end_left(self, run_id: str) -> None:
        """Remove the run's containers that no process watches any more."""
        self._engine.patiently(lambda: self._remove_left(run_id))

    def image_digest(self, image: str) -> str:
        """Return the engine's image ID for the reference. Asks the engine each time, with retries.

        Never pulls the image: this runs while definitions are loaded, and a download may exceed Dagster's
        timeout for that.

        Raises:
            NotFound: the engine does not have the image.
            ConfigurationError: the image folder has no version.
            EngineUnavailable: the engine does not answer, even after retries.
        """
        reference = self._reference(image)
        found = self._engine.patiently(lambda: self._engine.find_image(reference))
        if found is None:
            raise NotFound(f"image {reference}: {self._advice(image, reference)}")
        return str(found["Id"])

    def adopts(self, launch: Launch) -> bool:
        """Whether ``run`` would adopt a container of this launch; see ``Runner.adopts``.

        Removes a container of a different launch or image, because two would write the same files, and one
        that failed while no process watched, because the engine may have been the reason.
        """
        return self._engine.patiently(lambda: self._adoptable(launch) is not None)

    def run(
        self, launch: Launch, *, output: Callable[[str], None], cancelled: threading.Event | None = None
    ) -> Outcome:
        """Run one operator to its end, as ``Runner.run`` says."""
        patience = self._engine.patience()
        watch = ContainerWatch(self._engine, output, answered=patience.renew, drain_s=self._log_drain_s)
        container: str | None = None

        def attempt() -> Mapping[str, Any]:
            nonlocal container
            try:
                if container is None:
                    container = self._adopted(launch, watch)
                if container is None:
                    container = self._created(launch)
                    self._start(container, launch, watch)
                ended = self._attended(container, launch, watch, cancelled)
                self._engine.remove(container)
            except EngineUnavailable:
                watch.interrupted = True
                raise
            return ended

        try:
            state = self._engine.repeating(patience, cancelled=cancelled)(attempt)
        except EngineUnavailable:
            raise  # the container may still run, and the next process adopts it
        except BaseException:
            if container is not None:
                # If the engine is unavailable, the next run of an equal launch deals with the container.
                with contextlib.suppress(EngineUnavailable):
                    self._engine.patiently(lambda: self._engine.remove(container))
            raise
        code = int(state["ExitCode"])
        if watch.interrupted and (state["Status"] == "created" or code in _ENDED_BY_ENGINE):
            raise EngineUnavailable(
                f"{named(launch)}: the container engine was away, and the container ended with exit code {code}"
                f"{tail(watch.last)}"
            )
        return outcome_of(code, launch, watch.last, out_of_memory=bool(state.get("OOMKilled", False)))

    def _remove_left(self, run_id: str) -> None:
        with self._engine.client() as client:
            left = client.containers(all=True, filters={"label": f"{_RUN}={run_id}"})
        for found in left:
            # A copy of a home has runs with the same names.
            if (found.get("Labels") or {}).get(_HOME_OF, self._home) == self._home:
                self._engine.remove(found["Id"])

    def _reference(self, image: str) -> str:
        return reference_of(self._images, image, registry=self._registry, suffix=self._tag_suffix)

    def _advice(self, image: str, reference: str) -> str:
        pulled = f"pull it there: docker pull {reference}"
        if not is_folder_name(image):
            return f"the container engine does not have it; {pulled}"
        build = f"kaapana-assets images build {image}"
        return f"the container engine does not have it: {build}" + (f", or {pulled}" if self._registry else "")

    def _adoptable(self, launch: Launch) -> dict[str, Any] | None:
        found = self._engine.find_container(_name(launch))
        if found is None:
            return None
        state = found["State"]
        ended_well = state["Status"] in ("exited", "stopped") and state["ExitCode"] in (0, SKIPPED)
        image = self._engine.find_image(self._reference(launch.image))
        is_of_image = image is not None and _bare(found["Image"]) == _bare(image["Id"])
        is_equal = found["Config"]["Labels"].get(_LAUNCH) == launch_digest(launch)
        if is_of_image and is_equal and (state["Status"] in GOES_ON or ended_well):
            return found
        self._engine.remove(found["Id"])
        return None

    def _adopted(self, launch: Launch, watch: ContainerWatch) -> str | None:
        found = self._adoptable(launch)
        if found is None:
            return None
        watch.began = time.monotonic() - _seconds_since(found["State"]["StartedAt"])
        return str(found["Id"])

    def _created(self, launch: Launch) -> str:
        image = self._image(launch)
        if launch.command is None and not (image["Config"].get("Entrypoint") or image["Config"].get("Cmd")):
            raise ConfigurationError(f"{named(launch)}: the image has no ENTRYPOINT and no CMD")
        if launch.gpus and self._engine.is_podman():
            raise ConfigurationError(f"{named(launch)} needs GPUs, which this runner gets from Docker, not from Podman")
        hand_over(launch.directory, self._uid)
        with self._engine.client() as client:
            arguments = self._arguments(client, launch)
            return str(client.create_container(image["Id"], [], name=_name(launch), **arguments)["Id"])

    def _start(self, container: str, launch: Launch, watch: ContainerWatch) -> None:
        try:
            with self._engine.client() as client:
                client.start(container)
        except ConfigurationError as exc:
            raise ConfigurationError(f"{named(launch)} cannot be started: {exc}") from exc
        watch.began = time.monotonic()

    def _image(self, launch: Launch) -> dict[str, Any]:
        reference = self._reference(launch.image)
        found = self._engine.find_image(reference)
        if found is None:
            raise NotFound(f"{named(launch)}: {self._advice(launch.image, reference)}")
        return found

    def _arguments(self, client: APIClient, launch: Launch) -> dict[str, Any]:
        of_place = {"HOME": _HOME, "TMPDIR": "/tmp"}  # noqa: S108 - inside the container
        memory = launch.memory_mb * _MIB if launch.memory_mb else None
        host = client.create_host_config(
            mounts=[Mount(WORKFLOW_DIR, str(launch.directory.absolute()), type="bind")],
            tmpfs={"/tmp": _SCRATCH, _HOME: _SCRATCH},  # noqa: S108 - inside the container
            read_only=True,
            network_mode="default" if launch.network else "none",
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            pids_limit=_PROCESSES,
            shm_size=_SHARED_MEMORY_BYTES,
            mem_limit=memory,
            memswap_limit=memory,
            nano_cpus=round(launch.cpu * 1e9) if launch.cpu else None,
            device_requests=[DeviceRequest(count=launch.gpus, capabilities=[["gpu"]])] if launch.gpus else None,
            # The engine's default log driver may not support reading logs.
            log_config=LogConfig(type=LogConfig.types.JSON),
        )
        return {
            "entrypoint": list(launch.command) if launch.command is not None else None,
            "environment": {**environment(launch, workflow_dir=WORKFLOW_DIR), **of_place},
            "user": f"{self._uid}:{self._uid}",
            "labels": {**_labels(launch), _HOME_OF: self._home},
            "host_config": host,
        }

    def _attended(
        self, container: str, launch: Launch, watch: ContainerWatch, cancelled: threading.Event | None
    ) -> Mapping[str, Any]:
        """Watch the container until it ends, and return its final state.

        Raises:
            OperatorFailed: the run was cancelled, or somebody removed the container.
            OperatorTimeout: the operator exceeded its timeout.
        """
        deadline = None if launch.timeout_s is None else watch.began + launch.timeout_s
        state = watch.until_end(container, deadline=deadline, cancelled=cancelled)
        if state is None:
            is_cancelled = cancelled is not None and cancelled.is_set()
            self._engine.signal(container, "SIGTERM")
            grace_s = min(self._grace_s, 1.0) if is_cancelled else self._grace_s
            watch.until_end(container, deadline=time.monotonic() + grace_s)
            raise stopped(launch, cancelled, watch.last)
        if not state:
            raise OperatorFailed(f"{named(launch)}: its container was removed by another while it ran")
        return state


def _name(launch: Launch) -> str:
    """Return the name of the container, unique for an operator and a directory."""
    readable = re.sub("[^A-Za-z0-9_.-]", "-", launch.operator)[:40]
    place = f"{launch.directory.absolute()}\0{launch.operator}"
    return f"kaapana-{readable}-{hashlib.sha256(place.encode()).hexdigest()[:24]}"


def _labels(launch: Launch) -> dict[str, str]:
    return {
        _RUN: launch.run_id,
        "kaapana.workflow": launch.workflow,
        "kaapana.operator": launch.operator,
        "kaapana.cohort": launch.cohort,
        _LAUNCH: launch_digest(launch),
    }


def _bare(digest: str) -> str:
    return digest.rpartition(":")[2]


def _seconds_since(moment: str) -> float:
    """Return the seconds since a time that the engine reports; Python cannot parse its nanoseconds."""
    then = datetime.strptime(moment[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)
    return max(0.0, (datetime.now(timezone.utc) - then).total_seconds())
