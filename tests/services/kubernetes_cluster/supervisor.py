"""Runs one cluster in the foreground: ``python -m services.kubernetes_cluster.supervisor FOLDER ...``.

The process that is called only holds on to a second one, which starts the cluster and ends it when
the first is terminated or killed, when the last user of the file ``--users`` has let go of its lock
(``fcntl.flock``, shared), or when it is terminated itself. So nothing is left of a cluster whatever
happens to those who use it: its processes, network and mounts are in namespaces that end with their
first process; cgroups and files are removed by the second process, or, had that been killed, by the
next cluster on the machine and by whoever removes the folder.

When the cluster is ready the file ``cluster.json`` says where it is; ``log/`` stays after the end.
"""

from __future__ import annotations

# ruff: noqa: T201 - a command
import argparse
import contextlib
import ctypes
import fcntl
import json
import os
import select
import shutil
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import IO, NoReturn

from services.kubernetes_cluster.address import LINK_PREFIX, Address, free_numbers, owner_is_gone
from services.kubernetes_cluster.configuration import write_configuration

NODE = Path(__file__).with_name("node.sh")
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl", "kubelet")
READY_WITHIN_S = 240
_CGROUPS = Path("/sys/fs/cgroup")
_CGROUPS_GONE_WITHIN_S = 10
_LOOK_EVERY_S = 0.2
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


class Failed(Exception):
    """The cluster can't be started, or ended by itself."""


class Ending(Exception):
    """It is asked to end."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="supervisor", description=__doc__)
    parser.add_argument("folder", type=Path, help="of this cluster, on a file system that is not below /run")
    parser.add_argument("--kube", type=Path, required=True, help="executable of all programs of Kubernetes")
    parser.add_argument("--dns", type=Path, required=True, help="executable of CoreDNS")
    parser.add_argument("--helm", type=Path, required=True, help="executable of helm")
    parser.add_argument("--image", type=Path, action="append", default=[], help="tar of an image to import")
    parser.add_argument("--users", type=Path, help="file that users of the cluster have locked")
    given = parser.parse_args()
    # The reading end is readable when all that have the writing end are gone.
    leash, hold = os.pipe()
    second = os.fork()
    if second == 0:
        os.close(hold)
        os.setsid()
        os._exit(supervise(given, leash))
    os.close(leash)

    def let_go(_signal: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(OSError):
            os.close(hold)

    signal.signal(signal.SIGTERM, let_go)
    signal.signal(signal.SIGINT, let_go)
    return os.waitstatus_to_exitcode(os.waitpid(second, 0)[1])


def supervise(given: argparse.Namespace, leash: int) -> int:
    """Start the cluster, watch it, end it; the exit code."""
    try:
        with contextlib.ExitStack() as stack:
            users = stack.enter_context(given.users.open("w")) if given.users else None
            signal.signal(signal.SIGTERM, _end)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            cluster = _Cluster(given.folder.absolute(), lambda: _look(leash, users))
            stack.callback(cluster.end)
            cluster.start(given)
            cluster.watch()
    except Ending:
        return 0
    except (Failed, OSError, subprocess.SubprocessError) as exc:
        print(exc, file=sys.stderr, flush=True)
        return 1


def _end(_signal: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Ending


def _look(leash: int, users: IO[str] | None) -> None:
    """Raise ``Ending`` if nobody holds on to the cluster."""
    if select.select([leash], [], [], 0)[0]:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Ending
    if users is None:
        return
    with contextlib.suppress(BlockingIOError):
        # Kept until the process ends: who wants to use the folder again waits for that.
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Ending


class _Cluster:
    """What runs, and what must be removed when it does not."""

    def __init__(self, folder: Path, look: Callable[[], None]) -> None:
        self._folder = folder
        self._look = look
        self._process: subprocess.Popen[bytes] | None = None
        self._address: Address | None = None

    def start(self, given: argparse.Namespace) -> None:
        """Return when pods can be started."""
        _remove_cgroups_of_killed()
        shutil.rmtree(self._folder, ignore_errors=True)
        (self._folder / "bin").mkdir(parents=True)
        programs = {**dict.fromkeys(PROGRAMS, given.kube), "coredns": given.dns, "helm": given.helm}
        for name, executable in programs.items():
            (self._folder / "bin" / name).symlink_to(executable)
        (self._folder / "images").write_text("".join(f"{image}\n" for image in given.image))
        self._process = _in_new_namespaces(["bash", str(NODE), str(self._folder)])
        self._address = address = _connect(self._process.pid)
        write_configuration(self._folder, address)
        _write_whole(
            self._folder / "node.env",
            f"NODE={address.node}\nCGROUP={address.cgroup}\nNODE_ADDRESS={address.node_address}\n"
            f"SERVICE_NETWORK={address.service_network}\n",
        )
        self._write_load_image()
        api = Api(address.api_url, self._folder / "pki")
        self._wait_until("the API server answers", lambda: api.get("/readyz") is not None)
        (self._folder / "api-answers").touch()
        self._wait_until("the images are imported", (self._folder / "images-imported").exists)
        self._wait_until("the node is ready", lambda: _is_ready(api.get(f"/api/v1/nodes/{address.node}")))
        # Pods are refused before it exists.
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        self._wait_until("accounts are made", lambda: api.get(account) is not None)
        _write_whole(self._folder / "cluster.json", json.dumps(self._record(address)))

    def watch(self) -> NoReturn:
        """Raise when it ended, or should."""
        while True:
            self._look()
            self._check()
            time.sleep(_LOOK_EVERY_S)

    def end(self) -> None:
        """Leave nothing but the log."""
        (self._folder / "cluster.json").unlink(missing_ok=True)
        if self._process is not None:
            for child in _children(self._process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            if not _children(self._process.pid):
                self._process.kill()
            # It waits for its child, and that one for all of its namespace.
            self._process.wait()
        if self._address is not None:
            subprocess.run(["ip", "link", "del", self._address.node], capture_output=True, check=False)
            remove_cgroups(self._address.cgroup)
        for path in self._folder.iterdir() if self._folder.is_dir() else ():
            if path.name == "log":
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def _write_load_image(self) -> None:
        assert self._process is not None
        enter = f"nsenter --target {_children(self._process.pid)[0]} --mount"
        script = self._folder / "bin" / "load-image"
        script.write_text(f'#!/bin/sh\nexec {enter} ctr --namespace k8s.io images import "$(realpath "$1")"\n')
        script.chmod(0o755)

    def _record(self, address: Address) -> dict[str, object]:
        assert self._process is not None
        return {
            "supervisor": os.getpid(),
            "init": _children(self._process.pid)[0],
            "node": address.node,
            "cgroup": address.cgroup,
            "host_address": address.host_address,
            "node_address": address.node_address,
        }

    def _wait_until(self, what: str, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_WITHIN_S
        while not holds():
            self._look()
            self._check()
            if time.monotonic() > deadline:
                raise Failed(f"not true after {READY_WITHIN_S} s: {what}\n{self._said()}")
            time.sleep(_LOOK_EVERY_S)

    def _check(self) -> None:
        if self._process is not None and self._process.poll() is not None:
            raise Failed(f"the first process of the cluster ended with {self._process.returncode}\n{self._said()}")

    def _said(self) -> str:
        logs = sorted((self._folder / "log").glob("*.log"))
        return "\n".join(f"{log.name}: {log.read_text(errors='replace')[-300:]}" for log in logs)


class Api:
    """Reads from the API server as its administrator."""

    def __init__(self, url: str, pki: Path) -> None:
        self._url = url
        context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
        handlers = (urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
        self._opener = urllib.request.build_opener(*handlers)

    def get(self, path: str) -> bytes | None:
        """What it answers with status 200; None if it does not."""
        try:
            with self._opener.open(self._url + path, timeout=5) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as exc:
            exc.close()
            return None
        except OSError:
            return None


def remove_cgroups(name: str) -> None:
    """Remove a cgroup without processes from all hierarchies, the innermost first."""
    deadline = time.monotonic() + _CGROUPS_GONE_WITHIN_S
    while left := list(_CGROUPS.glob(f"*/{name}")):
        for top in left:
            for folder, _, _ in os.walk(top, topdown=False):
                # The kernel may still hold on to processes that ended.
                with contextlib.suppress(OSError):
                    Path(folder).rmdir()
        if time.monotonic() > deadline:
            print(f"cgroups are left: {', '.join(map(str, left))}", file=sys.stderr)
            return
        time.sleep(0.05)


def _remove_cgroups_of_killed() -> None:
    for name in {path.name for path in _CGROUPS.glob(f"*/{LINK_PREFIX}*") if owner_is_gone(path.name)}:
        remove_cgroups(name)


def _in_new_namespaces(command: list[str]) -> subprocess.Popen[bytes]:
    unshare = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    process = subprocess.Popen(
        [*unshare, *command],
        stdin=subprocess.DEVNULL,
        preexec_fn=_end_with_parent,  # noqa: PLW1509 - one thread
    )
    own = Path("/proc/self/ns/net").readlink()
    deadline = time.monotonic() + 30
    while not _children(process.pid) or Path(f"/proc/{process.pid}/ns/net").readlink() == own:
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            process.wait()
            raise Failed("namespaces can't be made on this machine")
        time.sleep(0.01)
    return process


def _end_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _connect(pid: int) -> Address:
    """Give a process's network namespace a link to the machine, with a number that no other cluster has."""
    for number in free_numbers(os.getpid()):
        address = Address(number, os.getpid())
        # Whoever makes the link has the number, until the namespace ends.
        add = ["ip", "link", "add", address.node, "type", "veth", "peer", "name", "eth0", "netns", str(pid)]
        done = subprocess.run(add, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            _ip("addr", "add", f"{address.host_address}/30", "dev", address.node)
            _ip("link", "set", address.node, "up")
            _ip("route", "add", address.pod_network, "via", address.node_address)
            return address
        if "File exists" not in done.stderr:
            raise Failed(f"a link to the cluster can't be made: {done.stderr}")
    raise Failed("no network 10.x.0.0/16 is free")


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"ip {' '.join(arguments)}: {done.stderr}")


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _is_ready(node: bytes | None) -> bool:
    conditions = json.loads(node)["status"].get("conditions", ()) if node else ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _write_whole(path: Path, content: str) -> None:
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_text(content)
    unfinished.rename(path)


if __name__ == "__main__":
    sys.exit(main())
