"""The image builders docker, podman and buildah, called as programs.

Their image store, the isolation of builds and the logins to registries are their own configuration
(``DOCKER_HOST``, ``CONTAINERS_STORAGE_CONF``, ``BUILDAH_ISOLATION``, ``docker login``). Which images are
built, and when, is decided in ``build``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kaapana_assets.child_process import ChildProcess
from kaapana_assets.errors import ConfigurationError, EngineUnavailable
from kaapana_assets.image_builds.protocol import Build, Builder, StoredImage
from kaapana_assets.withheld import without_secrets

BUILDER_NAMES = ("docker", "podman", "buildah")
FILE_MTIME_S = 315_532_800
"""1980-01-01, the modification time of all files in images: the same content gives the same image."""

_ANSWER_TIMEOUT_S = 20
_UMASK = 0o022  # folders that builders make in images must be readable by every user of a container
_LAST_LINES = 25
_NO_SUCH_IMAGE = re.compile(r"no such (image|object)|image not known|locating image|unable to find", re.IGNORECASE)
_ACCESS_DENIED = re.compile(r"unauthori[sz]ed|denied|authentication required|forbidden", re.IGNORECASE)
_CANNOT_RUN_CONTAINERS = re.compile(
    r"running container|creating container|while running runtime|clone|newuidmap|unshare"
)


def find_builder(name: str | None = None) -> Builder:
    """The builder of that name; without a name, the first one that works on this machine.

    Raises:
        ConfigurationError: none works; the message gives the reason for each.
    """
    reasons = []
    for each in BUILDER_NAMES if name is None else (name,):
        reason = _reason_unusable(each)
        if reason is None:
            return _BUILDERS[each]()
        reasons.append(f"{each}: {reason}")
    raise ConfigurationError(
        f"no image builder works on this machine ({'; '.join(reasons)}). Install one of {', '.join(BUILDER_NAMES)}; on "
        "Debian and Ubuntu: apt-get install buildah"
        if name is None
        else f"images cannot be built with {reasons[0]}"
    )


def _reason_unusable(name: str) -> str | None:
    """The reason why a builder cannot be used; None if it can."""
    if shutil.which(name) is None:
        return "is not on the PATH"
    if name != "docker":
        return None
    code, output = _run(["docker", "version", "--format", "{{.Client.Version}} {{.Server.Version}}"])
    if code != 0:
        return f"its daemon does not answer ({_last_line(output)})"
    version = output.strip().partition(".")[0]
    # Build secrets need BuildKit: part of the client before version 23, a plugin since.
    if (not version.isdigit() or int(version) >= 23) and _run(["docker", "buildx", "version"])[0] != 0:
        return "its plugin buildx is not installed"
    return None


class Docker:
    """Docker with BuildKit; insecure registries are a setting of its daemon."""

    name = "docker"

    def find(self, reference: str) -> StoredImage | None:
        """See ``Builder.find``."""
        return _inspect(["docker", "image", "inspect", reference])

    def pull(self, reference: str) -> None:
        """See ``Builder.pull``."""
        _pull("docker", reference)

    def build(self, build: Build, *, output: Callable[[str], None]) -> None:
        """See ``Builder.build``."""
        # By name only, values come from the environment: all users can read a command line.
        proxies = [name for name in os.environ if re.fullmatch("(?i)(http|https|no|ftp|all)_proxy", name)]
        options = ["--progress=plain", *(f"--build-arg={name}" for name in proxies)]
        command = ["docker", "build", *options, *_options(build), str(build.context)]
        _build(command, build, output, DOCKER_BUILDKIT="1")

    def push(self, reference: str, *, insecure: bool) -> str:
        """See ``Builder.push``."""
        if insecure:
            raise ConfigurationError(
                "docker has no option for registries without TLS: add the registry to `insecure-registries` in the "
                "daemon.json of its daemon (a registry on this machine needs no entry), and leave out --insecure"
            )
        _push(["docker", "push", reference], reference)
        repository = reference.rpartition(":")[0]
        stored = self.find(reference)
        for digest in stored.repo_digests if stored else ():
            if digest.startswith(f"{repository}@"):
                return digest.rpartition("@")[2]
        raise EngineUnavailable(f"docker does not report the digest of {reference} in the registry")

    def save(self, reference: str, file: Path) -> None:
        """See ``Builder.save``."""
        _save(["docker", "save", "--output", str(file), reference], reference)


class _ContainersTool:
    """The code that podman and buildah share."""

    name: str
    _build_command: str

    def pull(self, reference: str) -> None:
        """See ``Builder.pull``."""
        _pull(self.name, reference)

    def build(self, build: Build, *, output: Callable[[str], None]) -> None:
        """See ``Builder.build``."""
        options = [f"--timestamp={FILE_MTIME_S}", "--identity-label=false", "--layers=true", "--force-rm=true"]
        _build([self.name, self._build_command, *options, *_options(build), str(build.context)], build, output)

    def push(self, reference: str, *, insecure: bool) -> str:
        """See ``Builder.push``."""
        with tempfile.TemporaryDirectory(prefix="push-") as folder:
            file = Path(folder, "digest")
            tls = ["--tls-verify=false"] if insecure else []
            _push([self.name, "push", f"--digestfile={file}", *tls, reference], reference)
            return file.read_text().strip()


class Podman(_ContainersTool):
    """Podman."""

    name = "podman"
    _build_command = "build"

    def find(self, reference: str) -> StoredImage | None:
        """See ``Builder.find``."""
        return _inspect(["podman", "image", "inspect", reference])

    def save(self, reference: str, file: Path) -> None:
        """See ``Builder.save``."""
        _save(["podman", "save", "--format=docker-archive", f"--output={file}", reference], reference)


class Buildah(_ContainersTool):
    """buildah, which needs no daemon and also builds where containers cannot run."""

    name = "buildah"
    _build_command = "bud"

    def find(self, reference: str) -> StoredImage | None:
        """See ``Builder.find``."""
        code, output = _run(["buildah", "inspect", "--type=image", reference])
        if code != 0:
            _check_absent("buildah", output)
            return None
        found: dict[str, Any] = json.loads(output)
        config = found["OCIv1"].get("config") or {}
        return StoredImage(image_id=_digest(found["FromImageID"]), labels=config.get("Labels") or {})

    def save(self, reference: str, file: Path) -> None:
        """See ``Builder.save``."""
        _save(["buildah", "push", "--quiet", reference, f"docker-archive:{file}:{reference}"], reference)


_BUILDERS: dict[str, Callable[[], Builder]] = {"docker": Docker, "podman": Podman, "buildah": Buildah}


def _options(build: Build) -> list[str]:
    return [
        "--pull=false",
        *(["--no-cache"] if build.no_cache else []),
        f"--tag={build.reference}",
        f"--file={build.context / 'Dockerfile'}",
        *(f"--build-arg={name}={value}" for name, value in build.arguments.items()),
        *(f"--label={name}={value}" for name, value in build.labels.items()),
        *(f"--secret=id={name},src={file}" for name, file in build.secrets.items()),
        *build.options,
    ]


def _build(command: Sequence[str], build: Build, output: Callable[[str], None], **environment: str) -> None:
    last: deque[str] = deque(maxlen=_LAST_LINES)

    def keep_line(line: str) -> None:
        if line.strip():
            last.append(line)
        output(line)

    variables = {**without_secrets(os.environ), **environment}
    with ChildProcess(command, cwd=build.context, environment=variables, umask=_UMASK) as child:
        code = child.wait(output=keep_line)
    if code == 0:
        return
    tail = "".join(f"\n  {line[:500]}" for line in last)
    hint = ""
    if command[0] != "docker" and "BUILDAH_ISOLATION" not in os.environ and _CANNOT_RUN_CONTAINERS.search(tail):
        hint = "\nif containers cannot run on this machine, set BUILDAH_ISOLATION=chroot in the environment"
    raise ConfigurationError(f"{command[0]} ended with exit code {code}:{tail}{hint}")


def _pull(program: str, reference: str) -> None:
    code, output = _run([program, "pull", reference], timeout_s=None)
    if code != 0:
        raise ConfigurationError(f"{program} cannot pull the image {reference}: {_last_line(output)}")


def _push(command: Sequence[str], reference: str) -> None:
    code, output = _run(command, timeout_s=None)
    if code == 0:
        return
    registry = reference.partition("/")[0]
    reason = f"{reference} cannot be pushed: {_last_line(output)}"
    if _ACCESS_DENIED.search(output):
        raise ConfigurationError(f"{reason}\nlog in as a user who may push there: {command[0]} login {registry}")
    raise EngineUnavailable(reason)


def _save(command: Sequence[str], reference: str) -> None:
    code, output = _run(command, timeout_s=None)
    if code != 0:
        raise EngineUnavailable(f"{reference} cannot be saved: {_last_line(output)}")


def _inspect(command: Sequence[str]) -> StoredImage | None:
    code, output = _run(command)
    if code != 0:
        _check_absent(command[0], output)
        return None
    (found,) = json.loads(output)
    return StoredImage(
        image_id=_digest(found["Id"]),
        labels=(found.get("Config") or {}).get("Labels") or {},
        repo_digests=tuple(found.get("RepoDigests") or ()),
    )


def _check_absent(program: str, output: str) -> None:
    if not _NO_SUCH_IMAGE.search(output):
        raise EngineUnavailable(f"the image store of {program} does not answer: {_last_line(output)}")


def _digest(image_id: str) -> str:
    return image_id if ":" in image_id else f"sha256:{image_id}"


def _run(command: Sequence[str], timeout_s: float | None = _ANSWER_TIMEOUT_S) -> tuple[int, str]:
    """Run a program; returns its exit code and stdout, after a failure also stderr."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, check=False,
            timeout=timeout_s, env=without_secrets(os.environ), umask=_UMASK,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return 1, f"no answer within {timeout_s:g} s"
    except OSError as exc:
        raise ConfigurationError(f"{command[0]} cannot be started: {exc.strerror}") from exc
    return done.returncode, done.stdout if done.returncode == 0 else f"{done.stdout}\n{done.stderr}"


def _last_line(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1][:500] if lines else "without output"


def checked_options(options: Sequence[str]) -> tuple[str, ...]:
    """The options, unchanged.

    Raises:
        ConfigurationError: a word is no option: the builder would take it for the build context.
    """
    for option in options:
        if not option.startswith("-"):
            raise ConfigurationError(
                f"--builder-option takes one option with its value, such as --network=host, not {option!r}"
            )
    return tuple(options)
