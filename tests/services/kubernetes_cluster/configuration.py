"""What is written before the programs of a cluster start: certificates and configuration.

Nothing here starts a program of the cluster or knows which runs.
"""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path

from services.kubernetes_cluster.address import Address

_DAYS = "365"
# Who a component is, is in its certificate: kind of user, groups.
_USERS = {
    "admin": "/O=system:masters/CN=admin",
    "controllers": "/CN=system:kube-controller-manager",
    "scheduler": "/CN=system:kube-scheduler",
    "proxy": "/CN=system:kube-proxy",
}
_UNUSED_PLUGINS = ("snapshotter.v1.btrfs", "snapshotter.v1.zfs", "snapshotter.v1.aufs", "snapshotter.v1.devmapper")


def write_configuration(folder: Path, address: Address) -> None:
    """All files that ``node.sh`` names, except the file ``node.env`` that lets it begin."""
    for name in ("pki", "cni", "log", "etcd", "kubelet", "pods", "sysctl", "stopped"):
        (folder / name).mkdir(exist_ok=True)
    _write_certificates(folder / "pki", address)
    (folder / "kubeconfig").write_text((folder / "pki" / "admin.kubeconfig").read_text())
    (folder / "containerd.toml").write_text(_containerd(folder))
    _write_json(folder / "cni" / "10-bridge.conflist", _pod_network(folder, address))
    _write_json(folder / "kubelet.json", _kubelet(folder, address))
    _write_json(folder / "kube-proxy.json", _kube_proxy(folder, address))
    (folder / "Corefile").write_text(
        f""".:53 {{
  bind {address.node_address}
  errors
  cache 5
  kubernetes cluster.local in-addr.arpa ip6.arpa {{
    kubeconfig {folder}/pki/admin.kubeconfig cluster
  }}
}}
"""
    )


def _write_certificates(pki: Path, address: Address) -> None:
    ca = ["-subj", "/CN=kaapana-test-cluster", "-keyout", "ca.key", "-out", "ca.crt"]
    _openssl(pki, "req", "-x509", "-days", _DAYS, "-noenc", *_ELLIPTIC, *ca)
    _openssl(pki, "genrsa", "-out", "accounts.key", "2048")
    _openssl(pki, "rsa", "-in", "accounts.key", "-pubout", "-out", "accounts.pub")
    service = "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc"
    own_addresses = f"IP:{address.node_address},IP:127.0.0.1,IP:{address.api_service_address}"
    _certificate(pki, "apiserver", "/CN=kube-apiserver", names=f"{own_addresses},DNS:localhost,{service}")
    _certificate(pki, "kubelet-client", "/O=system:masters/CN=kubelet-client")
    node_names = f"IP:{address.node_address},DNS:{address.node}"
    _certificate(pki, "node", f"/O=system:nodes/CN=system:node:{address.node}", names=node_names)
    for user, subject in _USERS.items():
        _certificate(pki, user, subject)
    for user in ("node", *_USERS):
        _write_kubeconfig(pki, user, address)


_ELLIPTIC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")


def _certificate(pki: Path, name: str, subject: str, *, names: str = "") -> None:
    extensions = ["-addext", "extendedKeyUsage=serverAuth,clientAuth"]
    if names:
        extensions += ["-addext", f"subjectAltName={names}"]
    files = ["-CA", "ca.crt", "-CAkey", "ca.key", "-keyout", f"{name}.key", "-out", f"{name}.crt"]
    _openssl(pki, "req", "-x509", "-days", _DAYS, "-noenc", *_ELLIPTIC, *extensions, "-subj", subject, *files)


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=60)


def _write_kubeconfig(pki: Path, user: str, address: Address) -> None:
    def encoded(name: str) -> str:
        return base64.b64encode((pki / name).read_bytes()).decode()

    path = pki / f"{user}.kubeconfig"
    path.touch(mode=0o600)
    server = {"server": address.api_url, "certificate-authority-data": encoded("ca.crt")}
    credentials = {
        "client-certificate-data": encoded(f"{user}.crt"),
        "client-key-data": encoded(f"{user}.key"),
    }
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "cluster", "cluster": server}],
        "users": [{"name": user, "user": credentials}],
        "contexts": [{"name": "cluster", "context": {"cluster": "cluster", "user": user}}],
        "current-context": "cluster",
    }
    _write_json(path, content)


def _containerd(folder: Path) -> str:
    unused = ", ".join(f'"io.containerd.{name}"' for name in (*_UNUSED_PLUGINS, "internal.v1.tracing"))
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    runc = f"{cri}.containerd.runtimes.runc"
    # restrict_oom_score_adj: without CAP_SYS_RESOURCE runc ends when it lowers a pod's score.
    return f"""version = 2
root = "{folder}/containerd"
disabled_plugins = [{unused}]
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/containerd-opt"
[{cri}]
  sandbox_image = "{PAUSE_IMAGE}"
  stream_server_address = "127.0.0.1"
  restrict_oom_score_adj = true
[{cri}.cni]
  bin_dir = "{CNI_PLUGINS}"
  conf_dir = "{folder}/cni"
[{cri}.containerd]
  snapshotter = "overlayfs"
[{runc}]
  runtime_type = "io.containerd.runc.v2"
[{runc}.options]
  SystemdCgroup = false
"""


PAUSE_IMAGE = "localhost/kaapana-pause:1"
CNI_PLUGINS = Path("/usr/lib/cni")


def _pod_network(folder: Path, address: Address) -> dict[str, object]:
    addresses = {
        "type": "host-local",
        "dataDir": f"{folder}/cni-addresses",
        "ranges": [[{"subnet": address.pod_network}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "hairpinMode": True, "ipam": addresses}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge, ports]}


def _kubelet(folder: Path, address: Address) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": address.node_address,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{folder}/pki/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{folder}/pki/node.crt",
        "tlsPrivateKeyFile": f"{folder}/pki/node.key",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{address.cgroup}",
        "failCgroupV1": False,
        "enforceNodeAllocatable": ["pods"],
        "failSwapOn": False,
        "podLogsDir": f"{folder}/pods",
        "resolvConf": "",
        "clusterDNS": [address.node_address],
        "clusterDomain": "cluster.local",
        "healthzBindAddress": "127.0.0.1",
        # A machine of development may be fuller than a node should be.
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "nodefs.inodesFree": "1%",
            "imagefs.available": "1%",
        },
        # No image can be pulled a second time.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "registryPullQPS": 0,
        "nodeLeaseDurationSeconds": 12,
        "volumePluginDir": f"{folder}/plugins",
        "shutdownGracePeriod": "0s",
    }


def _kube_proxy(folder: Path, address: Address) -> dict[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": f"{folder}/pki/proxy.kubeconfig"},
        "mode": "iptables",
        "clusterCIDR": address.pod_network,
        "hostnameOverride": address.node,
        "bindAddress": "0.0.0.0",
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        # These settings are the machine's, not the namespace's.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=1))
