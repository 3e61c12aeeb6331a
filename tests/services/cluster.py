"""A Kubernetes cluster as tests use it: asked, given images, and broken.

``shared`` is one for all workers of a test run. What runs it is in ``services.kubernetes_cluster``.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psutil

from services.kubernetes import Kubernetes
from services.running import Running

_CGROUPS = Path("/sys/fs/cgroup")
_ENDS_WITHIN_S = 60
# Servers that this process started for all: others may use them longer than it does.
_STARTED: list[Running] = []


class CommandFailed(Exception):
    """A command for the cluster failed; the message has what it said."""


class Cluster:
    """One node that runs.

    Attributes:
        kubeconfig: of its administrator.
        node: name of the node.
        host_address: the machine as pods see it: a server that listens there, or on all addresses, is
            reached by them.
        node_address: the node as this machine sees it: ports of services of type NodePort are there.
    """

    def __init__(self, folder: Path) -> None:
        """Take the folder of a service ``kubernetes`` that is ready."""
        self._folder = folder / "cluster"
        record = json.loads((self._folder / "cluster.json").read_text())
        self.kubeconfig = self._folder / "kubeconfig"
        self.node: str = record["node"]
        self.host_address: str = record["host_address"]
        self.node_address: str = record["node_address"]
        self.supervisor: int = record["supervisor"]
        self._init: int = record["init"]
        self._cgroup: str = record["cgroup"]

    def kubectl(self, *arguments: str | Path, stdin: str = "", timeout_s: float = 120) -> str:
        """What kubectl answers.

        Raises:
            CommandFailed: it ended with an error, or not in time.
        """
        return self._run(self._folder / "bin" / "kubectl", *arguments, stdin=stdin, timeout_s=timeout_s)

    def apply(self, *objects: dict[str, object]) -> None:
        """Make or change objects."""
        everything = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(everything))

    def helm(self, *arguments: str | Path, timeout_s: float = 300) -> str:
        """What helm answers.

        Raises:
            CommandFailed: it ended with an error, or not in time.
        """
        return self._run(self._folder / "bin" / "helm", *arguments, timeout_s=timeout_s)

    @contextmanager
    def namespace(self, prefix: str = "test") -> Iterator[str]:
        """A new namespace, removed afterwards with all that is in it."""
        name = f"{prefix}-{uuid4().hex[:8]}"
        self.kubectl("create", "namespace", name)
        # Its first pods would be refused.
        _wait_until(f"accounts in {name}", lambda: self._is("get", "serviceaccount", "default", "-n", name))
        try:
            yield name
        finally:
            self.kubectl("delete", "namespace", name, "--wait=false")

    def load_image(self, tar: Path) -> None:
        """Give the node an image, as ``docker save`` or buildah wrote it; quick if it was given before.

        Containers use it with ``imagePullPolicy`` ``IfNotPresent`` or ``Never``.
        """
        stat = tar.stat()
        given = self._folder / "given-images" / f"{tar.name}-{stat.st_ino}-{stat.st_size}-{stat.st_mtime_ns}"
        if not given.exists():
            self._ctr("images", "import", str(tar.absolute()))
            given.parent.mkdir(exist_ok=True)
            given.touch()

    def images(self) -> list[str]:
        """Names of the images that the node has."""
        return [name for name in self._ctr("images", "list", "--quiet").split() if not name.startswith("sha256:")]

    def stop(self, program: str) -> None:
        """Kill a program of the node, such as ``kubelet`` or ``kube-apiserver``; it stays away until ``start``."""
        (self._folder / "stopped" / program).touch()
        process = self._process(program)
        if process is not None:
            process.kill()
        _wait_until(f"the end of {program}", lambda: self._process(program) is None)

    def start(self, program: str) -> None:
        """Let a program run again that was stopped."""
        (self._folder / "stopped" / program).unlink(missing_ok=True)
        _wait_until(f"the start of {program}", lambda: self._process(program) is not None)

    def pause(self, program: str) -> None:
        """Let a program hang: connections stay open and nothing answers."""
        self._signal(program, signal.SIGSTOP)

    def resume(self, program: str) -> None:
        """End a pause."""
        self._signal(program, signal.SIGCONT)

    def restart_api_server(self, *, away_s: float = 0) -> None:
        """Kill the API server and return when it answers again."""
        self.stop("kube-apiserver")
        time.sleep(away_s)
        self.start("kube-apiserver")
        _wait_until("an API server that answers", lambda: self._is("get", "--raw", "/readyz"))

    def lose_node(self) -> None:
        """What a power cut does to a node: its pods and all that knows of them are gone.

        The cluster sees that after 20 s, and gives its pods up 30 s later.
        """
        for program in ("kubelet", "containerd"):
            self.stop(program)
        for pid in {int(line) for path in self._pods() for line in path.read_text().split()}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def return_node(self) -> None:
        """Let a node run again that was lost."""
        for program in ("containerd", "kubelet"):
            self.start(program)

    def end(self) -> None:
        """End it and return when nothing of it is left but its log."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.supervisor, signal.SIGTERM)
        _wait_until("the end of the cluster", lambda: not _lives(self.supervisor), within_s=_ENDS_WITHIN_S)

    def _is(self, *arguments: str) -> bool:
        try:
            self.kubectl(*arguments, "--request-timeout=5s")
        except CommandFailed:
            return False
        return True

    def _ctr(self, *arguments: str) -> str:
        enter = ["nsenter", "--target", str(self._init), "--mount"]
        return self._run(*enter, "ctr", "--namespace", "k8s.io", *arguments, timeout_s=300)

    def _run(self, *command: str | Path, stdin: str = "", timeout_s: float) -> str:
        own = {name: str(self._folder / "home" / name) for name in ("KUBECACHEDIR", "HELM_CACHE_HOME")}
        own |= {name: str(self._folder / "home" / name) for name in ("HELM_CONFIG_HOME", "HELM_DATA_HOME")}
        argv = [str(part) for part in command]
        try:
            done = subprocess.run(
                argv, input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False,
                env=os.environ | own | {"KUBECONFIG": str(self.kubeconfig), "NO_PROXY": "*"},
            )  # fmt: skip
        except subprocess.TimeoutExpired as exc:
            raise CommandFailed(f"{' '.join(argv)} takes more than {timeout_s} s") from exc
        if done.returncode != 0:
            raise CommandFailed(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr}")
        return done.stdout

    def _process(self, program: str) -> psutil.Process | None:
        with contextlib.suppress(psutil.NoSuchProcess):
            # Programs are children of the loops that keep them, and those of the first process.
            for loop in psutil.Process(self._init).children():
                for process in loop.children():
                    with contextlib.suppress(psutil.NoSuchProcess):
                        if process.cmdline()[:1] == [program] and process.status() != psutil.STATUS_ZOMBIE:
                            return process
        return None

    def _signal(self, program: str, which: signal.Signals) -> None:
        process = self._process(program)
        if process is None:
            raise CommandFailed(f"{program} does not run")
        process.send_signal(which)

    def _pods(self) -> Iterator[Path]:
        return (_CGROUPS / "memory" / self._cgroup / "kubepods").rglob("cgroup.procs")


@contextmanager
def shared(folder: Path) -> Iterator[Cluster]:
    """The cluster in a folder, started by the first process that wants it and ended by the last.

    A process that is killed does not count any more, because the kernel takes its lock.

    Raises:
        Missing: the machine lacks something that it needs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "starting").open("w") as starting, (folder / "users").open("w") as users:
        fcntl.flock(starting, fcntl.LOCK_EX)
        # Waits for the end of a cluster that nobody used any more.
        fcntl.flock(users, fcntl.LOCK_SH)
        cluster = _running(folder)
        if cluster is None:
            _STARTED.append(Running(Kubernetes(users=folder / "users"), folder, detached=True))
            cluster = Cluster(folder)
        fcntl.flock(starting, fcntl.LOCK_UN)
        try:
            yield cluster
        finally:
            fcntl.flock(users, fcntl.LOCK_UN)
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                cluster.end()


def _running(folder: Path) -> Cluster | None:
    try:
        cluster = Cluster(folder)
    except FileNotFoundError:
        return None
    return cluster if _lives(cluster.supervisor) else None


def _wait_until(what: str, holds: Callable[[], bool], *, within_s: float = 120) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline:
            raise CommandFailed(f"not seen within {within_s} s: {what}")
        time.sleep(0.1)


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
