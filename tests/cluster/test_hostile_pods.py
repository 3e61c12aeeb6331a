"""What hostile operators in pods leave is refused by name, and from within a pod nothing else is reached."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from containers.runner_contract import CONTRACT
from security.hostile import Attacked, HostileOperators, attacked_platform
from services.cluster import Cluster
from services.operators import kubeconfig_of, operators_of
from system.conftest import Platforms, module_platforms  # noqa: F401 - fixture

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

OPERATOR = 60_810
SECRET = "planted-secret-of-the-platform"
# Tries what an operator could do for more rights, and writes down what came of it.
PROBE = r"""
export out; exec python3 - <<'END'
import ctypes, json, os, ssl, subprocess, urllib.request
from pathlib import Path

def attempt(act):
    try:
        return f"went through: {act()!r}"[:200]
    except Exception as exc:
        return str(exc)

def asked(path):
    address = f"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}{path}"
    return urllib.request.urlopen(address, context=ssl._create_unverified_context(), timeout=10).read()

libc = ctypes.CDLL(None, use_errno=True)

def call(name, *arguments):
    if getattr(libc, name)(*arguments):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

def all_files():
    for top, folders, names in os.walk("/"):
        folders[:] = [name for name in folders if f"{top}/{name}" not in ("//proc", "//sys", "//usr")]
        yield from (os.path.join(top, name) for name in names)

status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
mounted = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
archived = next(Path("/data/batch").rglob("*.dcm"))
found = {
    "user": [os.getuid(), os.getgid(), os.getgroups()],
    "status": {name: value.split() for name, value in status.items()},
    "environment": dict(os.environ),
    "files": list(all_files()),
    "writable": [path for path in mounted if os.access(path, os.W_OK)],
    "programs": [Path(f"/proc/{pid}/cmdline").read_text() for pid in os.listdir("/proc") if pid.isdigit()],
    "api": [attempt(lambda: asked(f"/{kind}")) for kind in ("api/v1/secrets", "api/v1/nodes", "apis/batch/v1/jobs")],
    "tried": {
        "another user": attempt(lambda: os.setuid(0)),
        "another group": attempt(lambda: os.setgroups([0])),
        "a mount": attempt(lambda: call("mount", b"none", b"/tmp", b"tmpfs", 0, None)),
        "a user namespace": attempt(lambda: call("unshare", 0x10000000)),
        "a file by its handle": attempt(
            lambda: call("open_by_handle_at", os.open("/data", os.O_RDONLY), bytes([8, 0, 0, 0, 1] + 11 * [0]), 0)
        ),
        "another root": attempt(lambda: os.chroot("/data")),
        "a disk": attempt(lambda: os.mknod("/tmp/disk", 0o60600, os.makedev(254, 0))),
        "a program": attempt(lambda: Path("/usr/bin/x").touch()),
        "names of hosts": attempt(lambda: Path("/etc/hosts").write_text("x")),
        "content of the archive": attempt(lambda: archived.open("a")),
        "modes of the archive": attempt(lambda: archived.chmod(0o666)),
        "a link to the archive": attempt(lambda: os.link(archived, "/data/x")),
        "the record that is shown": attempt(lambda: Path("/data/conf").rename("/data/aside")),
    },
    "setuid programs": subprocess.run(
        "cp /bin/sh /tmp/sh; chmod 6755 /tmp/sh; /tmp/sh -p -c 'id -u; id -g'; su -c 'id -u' < /dev/null; "
        "find / -xdev -perm -4000 2> /dev/null",
        shell=True, capture_output=True, text=True,
    ).stdout.split(),
}
Path(os.environ["out"], "found.json").write_text(json.dumps(found))
END
"""
# What shells and Python add to the contract's variables and the image's; the API server's address has no secret.
OF_PROGRAMS = {
    "HOME",
    "HOSTNAME",
    "LC_CTYPE",
    "OLDPWD",
    "PATH",
    "PWD",
    "PYTHONUNBUFFERED",
    "SHLVL",
    "TMPDIR",
    "_",
    "out",
}


@pytest.fixture(scope="module")
def attacked(
    kubernetes_cluster: Cluster,
    module_platforms: Platforms,  # noqa: F811
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Attacked]:
    folder, home = tmp_path_factory.mktemp("hostile"), module_platforms.new_home()
    with operators_of(kubernetes_cluster, home) as operators:
        settings = {
            "KAAPANA_RUNNER": "kubernetes",
            "KAAPANA_KUBERNETES_NAMESPACE": operators.namespace,
            "KAAPANA_KUBECONFIG": str(kubeconfig_of(kubernetes_cluster, operators.release, folder)),
            "KAAPANA_S3_SECRET_KEY": SECRET,
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }
        (folder / "sent").mkdir()
        pooled = {"probe": PROBE}
        with attacked_platform(module_platforms, folder / "sent", pooled, home=home, **settings) as made:
            yield made


class TestPods(HostileOperators):
    """What every runner in containers promises, and the walls of a pod as its operator finds them."""

    def found(self, attacked: Attacked) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((attacked.shelf / "probe" / "all" / "found.json").read_text())
        return found

    def test_operator_has_no_privilege(self, attacked: Attacked) -> None:
        found = self.found(attacked)
        assert found["user"] == [OPERATOR, OPERATOR, [OPERATOR]]
        status = found["status"]
        assert [int(value, 16) for name, (value, *_) in status.items() if name.startswith("Cap")] == [0] * 5
        assert (status["NoNewPrivs"], status["Seccomp"]) == (["1"], ["2"])
        uid, gid, *_ = found["setuid programs"]
        assert (uid, gid) == (str(OPERATOR), str(OPERATOR))
        assert "0" not in found["setuid programs"]

    def test_nothing_that_gives_more_rights_goes_through(self, attacked: Attacked) -> None:
        for what, answer in self.found(attacked)["tried"].items():
            assert re.search("not permitted|denied|Read-only|not implemented", answer), (what, answer)

    def test_api_server_answers_no_operator(self, attacked: Attacked) -> None:
        found = self.found(attacked)
        assert all(re.match("HTTP Error 40[13]", answer) for answer in found["api"]), found["api"]
        assert not [path for path in found["files"] if "serviceaccount" in path or path.endswith("token")]

    def test_only_its_view_and_scratch_can_be_written(self, attacked: Attacked) -> None:
        folders = {"/data", "/tmp", "/home/operator", "/dev/shm", "/dev/mqueue"}
        assert {path for path in self.found(attacked)["writable"] if not path.startswith("/proc")} <= folders | {
            "/dev/termination-log"
        }

    def test_nothing_of_the_platform_is_seen_but_the_view(self, attacked: Attacked) -> None:
        found = self.found(attacked)
        seen = {path for path in found["files"] if path.startswith("/data/")}
        inputs = {path for path in seen if path.endswith(".dcm")}
        assert {path.split("/")[3] for path in inputs} == set(attacked.series.values())
        assert {path for path in found["files"] if path.endswith((".dcm", ".json"))} == inputs | {
            "/data/conf/conf.json"
        }
        assert not [program for program in found["programs"] if "kaapana" in program or "kubelet" in program]

    def test_environment_has_the_contract_and_no_secret(self, attacked: Attacked) -> None:
        environment = self.found(attacked)["environment"]
        others = environment.keys() - CONTRACT - OF_PROGRAMS
        assert all(name.startswith("KUBERNETES_") for name in others), others
        text = json.dumps(environment)
        assert not [word for word in (SECRET, "postgresql", str(attacked.platform.home)) if word in text]

    def test_cluster_is_told_no_secret(self, attacked: Attacked, kubernetes_cluster: Cluster) -> None:
        namespace = attacked.platform.environment["KAAPANA_KUBERNETES_NAMESPACE"]
        kept = kubernetes_cluster.kubectl("get", "jobs,pods", "-n", namespace, "-o", "json")
        assert len(json.loads(kept)["items"]) >= 2
        assert SECRET not in kept
