"""Operators as plain processes: the embedded runner, which needs no container engine.

It keeps the contract (environment, folders, exit codes), not the walls: an operator runs as the
user of the platform and can reach what that user can.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from kaapana_assets.containers.child import Child
from kaapana_assets.containers.contract import environment
from kaapana_assets.containers.endings import LINES_SHOWN, named, outcome_of, stopped
from kaapana_assets.containers.environments import environment_for
from kaapana_assets.containers.image import Image, content, content_digest, load_image
from kaapana_assets.containers.runner import Launch, Outcome
from kaapana_assets.errors import ConfigurationError, OperatorFailed

_OF_THE_PLACE = {"PATH", "HOME", "TMPDIR"}  # an image's value for these is of its own file system


class ProcessRunner:
    """Runs the ``files/`` of image folders in place, each in an environment of its own requirements.

    Args:
        images: folder of image folders.
        environments: folder in which Python environments are kept between runs.
        grace_s: seconds that an operator has between SIGTERM and SIGKILL.
    """

    isolates = False
    """The operator is a process of the same user: no file mode or link keeps it from writing."""

    parallel_launches = 1
    """One operator may use all of the machine."""

    def __init__(self, images: Path, environments: Path, *, grace_s: float = 5.0) -> None:
        self._images = images.absolute()
        self._environments = environments.absolute()
        self._grace_s = grace_s
        self._digests: dict[tuple[tuple[str, int, int, int, int, int], ...], str] = {}

    def check(self) -> str:
        """Processes need nothing but the folder of images.

        Raises:
            ConfigurationError: it is not there.
        """
        if not self._images.is_dir():
            raise ConfigurationError(f"KAAPANA_IMAGES={self._images} is no folder")
        return "processes of this machine"

    def adopts(self, launch: Launch) -> bool:
        """Never: what this process starts ends with it."""
        return False

    def end_left(self, run_id: str) -> None:
        """Nothing is left, see ``adopts``."""

    def image_digest(self, image: str) -> str:
        """SHA-256 of the image folder, read again only when a file, its size, mode or a time of change differs.

        Raises:
            NotFound: there is no such image folder.
            ConfigurationError: its Dockerfile cannot be understood.
        """
        found = load_image(self._images, image)
        # The inode and its own time of change, too: a copy may keep the time and the size of another file.
        state = tuple(
            (str(path), at.st_ino, at.st_size, at.st_mode, at.st_mtime_ns, at.st_ctime_ns)
            for path, at in content(found.folder)
        )
        if state not in self._digests:
            self._digests[state] = content_digest(found)
        return self._digests[state]

    def prepare(self, image: str, *, output: Callable[[str], None]) -> Path:
        """The environment of an image, made now if it is not there: the slow part of a first run.

        Raises:
            NotFound: there is no such image folder.
            ConfigurationError: the environment cannot be made.
        """
        return self._environment(load_image(self._images, image), output)

    def run(
        self, launch: Launch, *, output: Callable[[str], None], cancelled: threading.Event | None = None
    ) -> Outcome:
        """Run one operator to its end, as ``Runner.run`` says."""
        image = load_image(self._images, launch.image)
        python = self._environment(image, output)
        started = time.monotonic()
        last: deque[str] = deque(maxlen=LINES_SHOWN)

        def heard(line: str) -> None:
            last.append(line)
            output(line)

        # A container has a home and a /tmp of its own, gone with it.
        with tempfile.TemporaryDirectory(prefix="operator-", ignore_cleanup_errors=True) as place:
            variables = _variables(launch, image, python=python, place=place)
            arguments, workdir = image.start(launch.command)
            arguments[0] = _executable(arguments[0], workdir, variables["PATH"], launch)
            try:
                child = Child(
                    arguments,
                    cwd=workdir,
                    environment=variables,
                    data_limit_mb=launch.memory_mb,
                    grace_s=self._grace_s,
                )
            except OSError as exc:
                raise OperatorFailed(f"{named(launch)} cannot be started: {exc}") from exc
            with child:
                deadline = None if launch.timeout_s is None else started + launch.timeout_s
                code = child.wait(output=heard, deadline=deadline, cancelled=cancelled)
                if code is None:
                    child.terminate(output=heard)
                    raise stopped(launch, cancelled, last)
        return outcome_of(code, launch, last)

    def _environment(self, image: Image, output: Callable[[str], None]) -> Path:
        # The only place where the environment of the platform is handed on: the installer needs the
        # package index and certificates of this machine.
        return environment_for(
            image.requirements,
            environments=self._environments,
            output=output,
            install_variables=dict(os.environ),
        )


def _variables(launch: Launch, image: Image, *, python: Path, place: str) -> dict[str, str]:
    home = Path(place, "home")
    temporary = Path(place, "tmp")
    home.mkdir()
    temporary.mkdir()
    of_image = {
        name: image.on_host(value) for name, value in image.stage.environment.items() if name not in _OF_THE_PLACE
    }
    of_launch = environment(launch, workflow_dir=str(launch.directory.absolute()))
    place_variables = {
        "PATH": os.pathsep.join([str(python / "bin"), os.environ.get("PATH", os.defpath)]),
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "VIRTUAL_ENV": str(python),
    }
    return {"LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1", **of_image, **of_launch, **place_variables}


def _executable(name: str, workdir: Path, path: str, launch: Launch) -> str:
    """The executable as an absolute path.

    Looked up here, because a shell that cannot execute a file ends with 126, which means skipped.
    """
    if "/" in name:
        file = workdir / name
        found = str(file) if file.is_file() and os.access(file, os.X_OK) else None
    else:
        found = shutil.which(name, path=path)
    if found is None:
        raise ConfigurationError(
            f"{named(launch)}: {name!r} is not an executable file in {workdir} or on the PATH; the process runner "
            "needs on this machine what the image installs besides Python packages"
        )
    return found
