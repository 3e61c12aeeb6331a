"""Operators in containers of one machine: the runner for Docker and Podman.

A container has a name made of its operator and run directory. A worker process that takes over from one
that died finds it by that, and goes on with it if it was started for an equal launch.
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
from kaapana_assets.containers.docker.watch import GOES_ON, Attendance
from kaapana_assets.containers.outcomes import SKIPPED, named, outcome_of, stopped, tail
from kaapana_assets.containers.ownership import check_users, hand_over
from kaapana_assets.containers.protocol import Launch, Outcome, launch_digest
from kaapana_assets.errors import ConfigurationError, EngineUnavailable, NotFound, OperatorFailed
from kaapana_assets.image_builds.references import is_folder_name, reference_of
from kaapana_assets.settings import Settings

WORKFLOW_DIR = "/data"
_HOME = "/home/operator"
_SCRATCH = "rw,exec,nosuid,nodev,mode=1777"  # compilers of GPU code run what they write there
_LAUNCH = "kaapana.launch"
_HOME_OF = "kaapana.home"
_RUN = "kaapana.run"
_PROCESSES = 4096
_SHARED_MEMORY_BYTES = 2 << 30  # data loaders pass images through it; it counts as memory
_MIB = 1 << 20
# What containers end with that an engine stops, or finds ended when the machine starts again.
_ENDED_BY_ENGINE = {137, 143, 255}


def open_docker(settings: Settings) -> DockerRunner:
    """The runner that the settings describe.

    Raises:
        ConfigurationError: they cannot work together.
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
        images: folder of image folders, whose Dockerfiles say the version.
        url: the engine's socket or address. It must see run directories under the same paths.
        uid: user that operators run as, and group of the same number.
        registry: registry and path before the names of image folders, or "".
        tag_suffix: what the site appends to versions, or "".
        parallel_launches: containers of one operator at once in batch mode.
        own_uid: the user of this process.
        grace_s: seconds that an operator has between SIGTERM and SIGKILL at its time limit.
        patience_s: seconds that an engine that does not answer is waited for.
        home: of the platform; containers of others, such as the original of a copied home, are not ended.
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
        home: Path | None = None,
    ) -> None:
        self.parallel_launches = parallel_launches
        self.isolates = uid != own_uid
        """A file of the platform's user is another's for an operator, also with the rights of root taken away."""
        self._home = str(home.absolute()) if home else ""
        self._images = images.absolute()
        self._uid = uid
        self._registry = registry
        self._tag_suffix = tag_suffix
        self._grace_s = grace_s
        self._engine = Engine(url, patience_s=patience_s)
        check_users(uid, own_uid=own_uid)

    def check(self) -> str:
        """The engine and its version."""
        with self._engine.client() as client:
            found = client.version()
        product = "Podman" if self._engine.is_podman() else "Docker"
        return f"{product} {found['Version']}"

    def end_left(self, run_id: str) -> None:
        """Remove the run's containers that nobody watches any more."""
        self._engine.patiently(lambda: self._remove_left(run_id))

    def image_digest(self, image: str) -> str:
        """The image ID that the engine has for the reference; it is asked each time, and waited for.

        No image is pulled: definitions are loaded meanwhile, and a download may take longer than their start may.

        Raises:
            NotFound: the engine has no such image.
            ConfigurationError: the image folder has no version.
            EngineUnavailable: the engine does not answer, also after some patience.
        """
        reference = self._reference(image)
        found = self._engine.patiently(lambda: self._engine.find_image(reference))
        if found is None:
            raise NotFound(f"image {reference}: {self._advice(image, reference)}")
        return str(found["Id"])

    def adopts(self, launch: Launch) -> bool:
        """Whether ``run`` goes on with a container, as ``Runner.adopts`` says.

        One of another launch or image, or that ended in failure while nobody watched, is removed: two
        would write the same files, and a failure that nobody saw may have been the engine's.
        """
        return self._engine.patiently(lambda: self._adoptable(launch) is not None)

    def run(
        self, launch: Launch, *, output: Callable[[str], None], cancelled: threading.Event | None = None
    ) -> Outcome:
        """Run one operator to its end, as ``Runner.run`` says."""
        patience = self._engine.patience()
        attendance = Attendance(self._engine, output, answered=patience.renew)
        container: str | None = None

        def attempt() -> Mapping[str, Any]:
            nonlocal container
            try:
                if container is None:
                    container = self._adopted(launch, attendance)
                if container is None:
                    container = self._created(launch)
                    self._start(container, launch, attendance)
                ended = self._attended(container, launch, attendance, cancelled)
                self._engine.remove(container)
            except EngineUnavailable:
                attendance.interrupted = True
                raise
            return ended

        try:
            state = self._engine.repeating(patience, cancelled=cancelled)(attempt)
        except EngineUnavailable:
            raise  # the container may go on, for whoever takes over
        except BaseException:
            if container is not None:
                # With an engine that is away it is left to the next run of an equal launch.
                with contextlib.suppress(EngineUnavailable):
                    self._engine.patiently(lambda: self._engine.remove(container))
            raise
        code = int(state["ExitCode"])
        if attendance.interrupted and (state["Status"] == "created" or code in _ENDED_BY_ENGINE):
            raise EngineUnavailable(
                f"{named(launch)}: the container engine was away, and the container ended with exit code {code}"
                f"{tail(attendance.last)}"
            )
        return outcome_of(code, launch, attendance.last, out_of_memory=bool(state.get("OOMKilled", False)))

    def _remove_left(self, run_id: str) -> None:
        with self._engine.client() as client:
            left = client.containers(all=True, filters={"label": f"{_RUN}={run_id}"})
        for found in left:
            # A copy of a home has runs of the same names.
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

    def _adopted(self, launch: Launch, attendance: Attendance) -> str | None:
        found = self._adoptable(launch)
        if found is None:
            return None
        attendance.began = time.monotonic() - _seconds_since(found["State"]["StartedAt"])
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

    def _start(self, container: str, launch: Launch, attendance: Attendance) -> None:
        try:
            with self._engine.client() as client:
                client.start(container)
        except ConfigurationError as exc:
            raise ConfigurationError(f"{named(launch)} cannot be started: {exc}") from exc
        attendance.began = time.monotonic()

    def _image(self, launch: Launch) -> dict[str, Any]:
        reference = self._reference(launch.image)
        found = self._engine.find_image(reference)
        if found is None:
            raise NotFound(f"{named(launch)}: {self._advice(launch.image, reference)}")
        return found

    def _arguments(self, client: APIClient, launch: Launch) -> dict[str, Any]:
        of_place = {"HOME": _HOME, "TMPDIR": "/tmp"}  # noqa: S108 - of the container
        memory = launch.memory_mb * _MIB if launch.memory_mb else None
        host = client.create_host_config(
            mounts=[Mount(WORKFLOW_DIR, str(launch.directory.absolute()), type="bind")],
            tmpfs={"/tmp": _SCRATCH, _HOME: _SCRATCH},  # noqa: S108 - of the container
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
            # The engine's own choice may be one that cannot be read back.
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
        self, container: str, launch: Launch, attendance: Attendance, cancelled: threading.Event | None
    ) -> Mapping[str, Any]:
        """The state of the container at its end.

        Raises:
            OperatorFailed: it was cancelled, or somebody removed the container.
            OperatorTimeout: it ran too long.
        """
        deadline = None if launch.timeout_s is None else attendance.began + launch.timeout_s
        state = attendance.until_end(container, deadline=deadline, cancelled=cancelled)
        if state is None:
            is_cancelled = cancelled is not None and cancelled.is_set()
            self._engine.signal(container, "SIGTERM")
            grace_s = min(self._grace_s, 1.0) if is_cancelled else self._grace_s
            attendance.until_end(container, deadline=time.monotonic() + grace_s)
            raise stopped(launch, cancelled, attendance.last)
        if not state:
            raise OperatorFailed(f"{named(launch)}: its container was removed by another while it ran")
        return state


def _name(launch: Launch) -> str:
    """The name of the one container that may work for an operator in a directory."""
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
    """Seconds since a time of the engine, which has nanoseconds that Python's parser does not take."""
    then = datetime.strptime(moment[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)
    return max(0.0, (datetime.now(timezone.utc) - then).total_seconds())
