"""The embedded runner, which launches operators as plain processes and needs no container engine.

It keeps the container contract (environment, folders, exit codes) but isolates nothing: an operator runs as
the platform's user and can access everything that this user can.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kaapana_assets.child_process import ChildProcess
from kaapana_assets.containers.contract import environment
from kaapana_assets.containers.outcomes import LINES_SHOWN, named, outcome_of, stopped
from kaapana_assets.containers.process.environments import LocalFiles, environment_for
from kaapana_assets.containers.process.image_root import ImageRoot, lay_out
from kaapana_assets.containers.protocol import Launch, Outcome
from kaapana_assets.errors import ConfigurationError, OperatorError, OperatorFailed
from kaapana_assets.image_builds.base_requirements import BaseRequirements
from kaapana_assets.image_builds.dockerfile.shell_commands import PYTHON
from kaapana_assets.image_builds.dockerfile_check import relevant_findings
from kaapana_assets.image_builds.files import image_files
from kaapana_assets.image_builds.folder import Image, content_digest, load_image
from kaapana_assets.untrusted import opened
from kaapana_assets.withheld import without_secrets

_OF_THE_PLACE = {"PATH", "HOME", "TMPDIR"}  # an image's values for these refer to its own file system


class ProcessRunner:
    """Runs the programs of image folders, each in an environment with the Python packages that its image needs.

    Args:
        images: folder of image folders.
        environments: folder that keeps Python environments between runs.
        bases: the packages of base images.
        grace_s: seconds between SIGTERM and SIGKILL when an operator is stopped.
    """

    isolates = False
    """Operators run as the platform's user, so no file mode keeps them from writing."""

    parallel_launches = 1
    """A single operator may use the whole machine."""

    def __init__(
        self, images: Path, environments: Path, *, bases: BaseRequirements | None = None, grace_s: float = 5.0
    ) -> None:
        self._images = images.absolute()
        self._environments = environments.absolute()
        self._bases = bases or BaseRequirements()
        self._grace_s = grace_s
        self._digests: dict[tuple[tuple[str, int, int, int, int, int], ...], str] = {}
        self._told: set[tuple[str, str]] = set()

    def check(self) -> str:
        """Check that the folder of images exists, and the files that KAAPANA_BASE_REQUIREMENTS names.

        Raises:
            ConfigurationError: the folder does not exist, or a file cannot be read.
        """
        if not self._images.is_dir():
            raise ConfigurationError(f"KAAPANA_IMAGES={self._images} is no folder")
        self._bases.check()
        return "processes of this machine"

    def adopts(self, launch: Launch) -> bool:
        """Always False: operators end with the process that started them."""
        return False

    def end_left(self, run_id: str) -> None:
        """Do nothing: no operator is left; see ``adopts``."""

    def image_digest(self, image: str) -> str:
        """Return the SHA-256 digest of the image folder, with the base image's packages if settings name some.

        The folder is read again only if the path, inode, size, mode or a timestamp of a file has changed.

        Raises:
            NotFound: there is no such image folder.
            ConfigurationError: its Dockerfile cannot be understood.
        """
        found = load_image(self._images, image)
        # Also the inode and its ctime, because a copy may have the size and mtime of the file it replaces.
        state = tuple(
            (str(file.path), at.st_ino, at.st_size, at.st_mode, at.st_mtime_ns, at.st_ctime_ns)
            for file in image_files(found.folder)
            for at in [file.status]
        )
        if state not in self._digests:
            self._digests[state] = content_digest(found)
        base = self._bases.find(found.stage.base) if self._bases.by_image else None
        if base is None:
            return self._digests[state]
        text = json.dumps([self._digests[state], base.lines])
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"

    def prepare(self, image: str, *, output: Callable[[str], None]) -> Path:
        """Return the environment of an image; build it if it does not exist, which makes a first run slow.

        Raises:
            NotFound: there is no such image folder.
            ConfigurationError: the environment cannot be built.
        """
        return self._environment(load_image(self._images, image), output)

    def run(
        self, launch: Launch, *, output: Callable[[str], None], cancelled: threading.Event | None = None
    ) -> Outcome:
        """Run one operator to its end, as ``Runner.run`` says."""
        image = load_image(self._images, launch.image)
        try:
            return self._run(launch, image, output, cancelled)
        except (OperatorError, ConfigurationError):
            self._tell(image, output)
            raise

    def _run(
        self, launch: Launch, image: Image, output: Callable[[str], None], cancelled: threading.Event | None
    ) -> Outcome:
        asked = image.start_arguments(launch.command)
        python = self._environment(image, output)
        started = time.monotonic()
        last: deque[str] = deque(maxlen=LINES_SHOWN)

        def heard(line: str) -> None:
            last.append(line)
            output(line)

        # Like a container, a launch has files, a home and a /tmp of its own, which are removed at its end.
        with _own_place() as place:
            root = ImageRoot(place / "image", image.stage.tree, python / "bin" / "python")
            lay_out(image.stage.tree, root.folder, linked=True)
            variables = _variables(launch, image, root=root, place=place)
            workdir = root.workdir(image.stage.workdir)
            arguments = [root.on_host(argument) for argument in asked]
            arguments[0] = _executable(arguments[0], workdir, variables["PATH"], root.python, launch)
            try:
                child = ChildProcess(
                    arguments,
                    cwd=workdir,
                    environment=variables,
                    data_limit_mb=launch.memory_mb,
                    grace_s=self._grace_s,
                    own_variables=("HOME", "TMPDIR"),
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

    def _tell(self, image: Image, output: Callable[[str], None]) -> None:
        """Print, once per image, the findings in its Dockerfile that may explain the operator's failure."""
        key = (image.name, content_digest(image))
        if key in self._told:
            return
        self._told.add(key)
        for finding in relevant_findings(image, self._bases):
            output(f"image {image.name}, {finding}")

    def _environment(self, image: Image, output: Callable[[str], None]) -> Path:
        # Only the installer inherits the platform's environment, because it needs the package index and the
        # certificates of this machine. Secrets are left out, because the installer runs code of packages.
        base = self._bases.find(image.stage.base)
        return environment_for(
            [*([base] if base else []), *image.packages()],
            environments=self._environments,
            output=output,
            install_variables=without_secrets(os.environ),
            local=LocalFiles(
                lambda: content_digest(image), lambda folder: lay_out(image.stage.tree, folder, linked=False)
            ),
        )


@contextmanager
def _own_place() -> Iterator[Path]:
    """Make a folder for one launch, and remove it at the end, as far as that is possible."""
    place = Path(tempfile.mkdtemp(prefix="operator-")).resolve()
    try:
        yield place
    finally:
        with opened(place.parent) as temporary:
            temporary.remove(place.name)


def _variables(launch: Launch, image: Image, *, root: ImageRoot, place: Path) -> dict[str, str]:
    home, temporary = place / "home", place / "tmp"
    home.mkdir()
    temporary.mkdir()
    of_image = {
        name: root.on_host(value) for name, value in image.stage.environment.items() if name not in _OF_THE_PLACE
    }
    of_launch = environment(launch, workflow_dir=str(launch.directory.absolute()))
    own_folders = root.search_path(image.stage.variables["PATH"])
    place_variables = {
        "PATH": os.pathsep.join([str(root.python.parent), *own_folders, os.environ.get("PATH", os.defpath)]),
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "VIRTUAL_ENV": str(root.python.parent.parent),
    }
    given = {name: root.whole(value) for name, value in of_launch.items()}
    return {"LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1", **of_image, **given, **place_variables}


def _executable(name: str, workdir: Path, path: str, python: Path, launch: Launch) -> str:
    """Return the absolute path of the executable.

    The platform looks it up itself: a shell that cannot execute a file exits with 126, which means skipped.

    Raises:
        ConfigurationError: there is no such executable file.
    """
    if PYTHON.fullmatch(name):  # whichever version the image has
        return str(python)
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
