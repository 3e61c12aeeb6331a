"""Docker and Podman, from the packages of the distribution: engines that run containers.

Each has its folder and namespaces of its own. With the engine runs a registry that asks for a password;
engines know it as ``REGISTRY``, containers with a network at port 5000 of their gateway.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import resource
import shutil
import socket
import tarfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import docker
import psutil
from docker.utils.build import exclude_paths

from services.running import Running
from services.service import Missing, Plan

REGISTRY = "127.0.0.1:5000"
REGISTRY_USER = "kaapana-test"
REGISTRY_PASSWORD = "kaapana-test-only"
# htpasswd -nbB kaapana-test kaapana-test-only
_HTPASSWD = f"{REGISTRY_USER}:$2y$04$B4UcGzXsnHlcZzk4yAtId.vLIPdTVv1P4feJag2i9N48ASpTKdRTa\n"
_CGROUPS = Path("/sys/fs/cgroup")
_SCRIPT = Path(__file__).with_suffix(".sh")
_SOCKET = "engine.sock"
_NAMESPACES = ("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")


class _Engine:
    name: str
    program: str
    needed: tuple[str, ...]
    ports = 0

    def prepare(self) -> None:
        """Needs root and Debian's packages."""
        if os.geteuid() != 0:
            raise Missing("root, to make namespaces and cgroups")
        if lacking := [name for name in (*self.needed, "runc", "ip", "unshare") if shutil.which(name) is None]:
            raise Missing(f"the programs {', '.join(lacking)}")

    def plan(self, folder: Path, ports: Sequence[int]) -> Plan:
        """See ``Service.plan``."""
        if len(str(folder / _SOCKET)) > 100:  # of 107 that a socket's address may have
            raise Missing(f"a shorter path than {folder}")
        (folder / "tmp").mkdir(exist_ok=True)
        (folder / "command").write_text("".join(f"{word}\n" for word in self.command(folder)))
        if shutil.which("docker-registry") is not None:
            (folder / "htpasswd").write_text(_HTPASSWD)
            (folder / "registry.yml").write_text(_registry(folder))
        url = f"unix://{folder / _SOCKET}"
        environment = {"CGROUP": cgroup_of(folder), "TMPDIR": str(folder / "tmp"), **self.environment(folder)}
        return Plan(
            [*_NAMESPACES, "bash", str(_SCRIPT), str(folder)],
            lambda: answers(folder / _SOCKET),
            {"KAAPANA_RUNNER": "docker", "KAAPANA_DOCKER_URL": url},
            environment,
            ready_within_s=60,
        )

    def command(self, folder: Path) -> list[str]:
        raise NotImplementedError

    def environment(self, folder: Path) -> dict[str, str]:
        return {}


class Docker(_Engine):
    """The daemon of Docker; containers go on when it ends."""

    name = "docker"
    program = "dockerd"
    needed = ("dockerd", "containerd", "docker-init")

    def command(self, folder: Path) -> list[str]:
        return [
            "dockerd", "--data-root", str(folder / "data"), "--exec-root", "/run/docker",
            "--pidfile", "/run/docker.pid",
            "--host", f"unix://{folder / _SOCKET}", "--iptables=false", "--ip6tables=false", "--live-restore",
            "--exec-opt", "native.cgroupdriver=cgroupfs",
        ]  # fmt: skip


class Podman(_Engine):
    """The API service of Podman; containers are children of nobody and go on when it ends."""

    name = "podman"
    program = "podman"
    needed = ("podman", "conmon", "iptables")

    def command(self, folder: Path) -> list[str]:
        return [
            "podman", "--root", str(folder / "data"), "--runroot", "/run/podman/root", "--tmpdir", "/run/podman/tmp",
            "--network-config-dir", str(folder / "networks"), "--storage-driver", "overlay",
            "system", "service", "--time", "0", f"unix://{folder / _SOCKET}",
        ]  # fmt: skip

    def environment(self, folder: Path) -> dict[str, str]:
        # Debian's crun refuses machines with cgroups of both versions. Podman would ask for higher limits than
        # those of this process, which needs CAP_SYS_RESOURCE.
        files, processes = (resource.getrlimit(each)[1] for each in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC))
        (folder / "containers.conf").write_text(
            f'[containers]\ndefault_ulimits = ["nofile={files}:{files}", "nproc={processes}:{processes}"]\n'
            '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
        )
        (folder / "registries.conf").write_text(f'[[registry]]\nlocation = "{REGISTRY}"\ninsecure = true\n')
        return {
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "CONTAINERS_REGISTRIES_CONF": str(folder / "registries.conf"),
        }


class ContainerEngine:
    """A running engine, as tests use it.

    Attributes:
        running: all of its processes and namespaces.
        name: ``docker`` or ``podman``.
        url: where it listens.
    """

    def __init__(self, engine: _Engine, folder: Path) -> None:
        self._program = engine.program
        self._folder = folder
        self.name = engine.name
        self.running = Running(engine, folder)
        self.url = self.running.settings["KAAPANA_DOCKER_URL"]

    def load(self, archive: Path) -> None:
        """Give it the images of a ``docker save`` archive."""
        with self.client() as client, archive.open("rb") as file:
            for said in client.load_image(file):
                assert "error" not in said, said

    def build(self, folder: Path, tag: str) -> None:
        """Build an image of a folder, without running anything in it."""
        packed = io.BytesIO()
        ignored = folder / ".dockerignore"
        # Clients leave out what it names; daemons take what they are sent.
        lines = ignored.read_text().splitlines() if ignored.is_file() else []
        with tarfile.open(fileobj=packed, mode="w") as tar:
            for name in sorted(exclude_paths(str(folder), [line for line in lines if not line.startswith("#")])):
                tar.add(folder / name, arcname=name, recursive=False)
        packed.seek(0)
        with self.client() as client:
            said = list(client.build(fileobj=packed, custom_context=True, tag=tag, rm=True, decode=True))
        assert not any("error" in each for each in said), said

    @contextlib.contextmanager
    def client(self) -> Iterator[docker.APIClient]:
        """Docker's own client, connected to it."""
        with contextlib.closing(docker.APIClient(self.url, version="auto")) as client:
            yield client

    def stop(self) -> None:
        """End the engine, as an update of it would; its containers go on."""
        (self._folder / "stopped").touch()
        for process in self._processes():
            process.kill()
        while answers(self._folder / _SOCKET):
            time.sleep(0.05)

    def start(self) -> None:
        """Start it again."""
        (self._folder / "stopped").unlink()
        while not answers(self._folder / _SOCKET):
            time.sleep(0.05)

    def close(self) -> None:
        """End it with all that it started, and remove what it kept."""
        self.running.kill()
        remove_cgroups(cgroup_of(self._folder))
        shutil.rmtree(self._folder, ignore_errors=True)

    def _processes(self) -> list[psutil.Process]:
        assert self.running.process is not None
        all_of_it = psutil.Process(self.running.process.pid).children(recursive=True)
        return [process for process in all_of_it if process.name() == self._program]


def answers(path: Path) -> bool:
    """Whether an engine answers at a socket."""
    connection = _UnixConnection(path)
    try:
        connection.request("GET", "/_ping")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def cgroup_of(folder: Path) -> str:
    """The name of an engine's cgroups."""
    return f"kaapana-test-{os.getpid()}-{folder.name}"


def remove_cgroups(name: str) -> None:
    """Remove the cgroups of an engine that ended, in all hierarchies."""
    deadline = time.monotonic() + 10
    while left := [path for path in _CGROUPS.glob(f"*/{name}") if path.is_dir()]:
        for path in left:
            for folder, _, _ in os.walk(path, topdown=False):
                with contextlib.suppress(OSError):  # its last process is still ending
                    Path(folder).rmdir()
        if time.monotonic() > deadline:
            raise RuntimeError(f"the cgroups {left} are still in use")
        time.sleep(0.02)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=5)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(str(self._path))
        except OSError:
            self.sock.close()
            raise


def _registry(folder: Path) -> str:
    # JSON is YAML, too.
    return json.dumps(
        {
            "version": 0.1,
            "log": {"level": "warn"},
            "storage": {"filesystem": {"rootdirectory": str(folder / "registry")}},
            "http": {"addr": ":5000"},
            "auth": {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}},
        }
    )


ENGINES = {each.name: each for each in (Docker, Podman)}
