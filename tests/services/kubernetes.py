"""Kubernetes: a real cluster of one node, built by Go, on the distribution's containerd.

No distribution has its programs in one version, and images can't be pulled where only package indexes
are reached: the programs are built from the Go module proxy, images from Debian's packages and PyPI
(``services.images``). ``services.cluster`` is a cluster as tests use it.

Seconds on 2 busy cores to make it ready, with an empty Go cache and with one that has compiled it
before: Kubernetes 450 and 30, CoreDNS 50 and 7, helm 70 and 7 (the Go cache takes 2 GB); the base image
60 and the packages of Debian 40 in any case. A start takes 12 to 18, an end 3. Without pods a cluster
has 400 MB and a twentieth of a core.

What holds, all of it as on other clusters unless it says otherwise (``tests/cluster/test_cluster.py``):

- A volume of type hostPath with ReadWriteMany has any folder of the machine, except those below /run,
  /var/lib/cni, /var/lib/kubelet and /var/log/containers. It is mounted whole or with ``subPath``, which
  shows that folder only; files that a pod writes have its user. ``fsGroup`` changes no owner there.
- A quota, limits of memory (OOMKilled), ``activeDeadlineSeconds``, ``runAsNonRoot``,
  ``readOnlyRootFilesystem`` with an emptyDir and dropped capabilities are kept.
- Network policies are taken and **not** enforced: the bridge of the pods knows none.
- Images are those that the node was given: a pod with another one has ErrImageNeverPull, or
  ImagePullBackOff with a policy that pulls. Nothing in the cluster reaches beyond this machine.
- Pods reach the machine at ``Cluster.host_address``, services by name; the machine reaches pods and the
  node, whose address has the ports of services of type NodePort, but no cluster addresses of services.
- A lost node is seen after 20 s and its pods are given up 30 s later; claims are bound within 1 s
  (elsewhere: 50 s, 300 s, 15 s).
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from services import images
from services.go import build_go, digest
from services.kubernetes_cluster import SOURCES
from services.kubernetes_cluster.configuration import CNI_PLUGINS
from services.service import Missing, Plan, cached, run_build

_HELM = "v3.19.5"
# Each with the Debian package that has it.
_PROGRAMS = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "openssl": "openssl",
}


class Kubernetes:
    """One node, whose data is gone when it ends.

    Args:
        users: a file; the cluster ends when nobody has locked it any more.
    """

    name = "kubernetes"
    ports = 0

    def __init__(self, *, users: Path | None = None) -> None:
        self.users = users

    def prepare(self) -> None:
        """Needs root, cgroups of version 1, Debian's containerd and its company, and Go for the first time."""
        lacking = list(_lacking())
        if lacking:
            raise Missing(", ".join(lacking))
        self._kube = cached(f"kubernetes-{_version()}-{digest(SOURCES / 'kube')}", _make_kube) / "kube"
        self._dns = cached(f"coredns-{digest(SOURCES / 'dns')}", _make_dns) / "dns"
        self._helm = cached(f"helm-{_HELM}", _make_helm) / "helm"
        self._images = [images.pause(), images.base()]

    def plan(self, folder: Path, ports: Sequence[int]) -> Plan:
        """See ``Service.plan``."""
        own = (folder / "cluster").absolute()
        record = own / "cluster.json"
        record.unlink(missing_ok=True)
        command = [
            sys.executable, "-m", "services.kubernetes_cluster.supervisor", str(own),
            "--kube", str(self._kube), "--dns", str(self._dns), "--helm", str(self._helm),
            *(f"--image={image}" for image in self._images),
        ]  # fmt: skip
        if self.users is not None:
            command += ["--users", str(self.users)]
        kubeconfig = own / "kubeconfig"
        hint = f'export KUBECONFIG={kubeconfig} PATH="{own / "bin"}:$PATH"   # kubectl, helm, load-image TAR'
        packages = os.pathsep.join((str(SOURCES.parent.parent), os.environ.get("PYTHONPATH", "")))
        settings = {"KAAPANA_KUBECONFIG": str(kubeconfig)}
        environment = {"PYTHONPATH": packages.strip(os.pathsep)}
        return Plan(command, record.exists, settings, environment, ready_within_s=600, hint=hint)


def _make_kube(into: Path) -> None:
    version = _version()
    major, minor, _ = version.split(".")
    package = "k8s.io/component-base/version"
    said = {"gitVersion": f"v{version}", "gitMajor": major, "gitMinor": minor}
    build_go(SOURCES / "kube", into, *(f"-X {package}.{key}={value}" for key, value in said.items()))


def _make_dns(into: Path) -> None:
    build_go(SOURCES / "dns", into)


def _make_helm(into: Path) -> None:
    if shutil.which("go") is None:
        raise Missing("Go, which builds it")
    install = ["nice", "go", "install", "-p", "2", "-trimpath", "-ldflags", "-s -w"]
    run_build([*install, f"helm.sh/helm/v3/cmd/helm@{_HELM}"], folder=into, CGO_ENABLED="0", GOBIN=str(into))


def _version() -> str:
    found = re.search(r"k8s\.io/kubernetes v(\S+)", (SOURCES / "kube" / "go.mod").read_text())
    assert found is not None
    return found[1]


def _lacking() -> Iterator[str]:
    if sys.platform != "linux":
        yield "Linux"
        return
    if os.geteuid() != 0:
        yield "root, who may make namespaces and cgroups"
    for program, package in _PROGRAMS.items():
        if shutil.which(program) is None:
            yield f"the program {program} (Debian package {package})"
    if not (CNI_PLUGINS / "bridge").exists():
        yield f"network plugins in {CNI_PLUGINS} (Debian package containernetworking-plugins)"
    if not Path("/sys/fs/cgroup/memory/cgroup.procs").exists():
        yield "cgroups of version 1 in /sys/fs/cgroup (those of version 2 were never tried)"
