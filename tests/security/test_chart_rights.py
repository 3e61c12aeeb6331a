"""What the chart lets operators reach and the platform do, rendered by helm; no cluster is needed."""

from __future__ import annotations

import re
import shutil
import subprocess
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml
from services.service import CACHE

from kaapana_assets.containers.kubernetes.job import ClusterTarget, job
from kaapana_assets.containers.protocol import Launch
from kaapana_assets.settings import PROJECT_ROOT, Settings

CHART = PROJECT_ROOT / "helm" / "kaapana-assets"
RUNS = ("--set=runs.create=true", "--set=home.hostPath=/srv/kaapana")


def rendered(*options: str) -> list[dict[str, Any]]:
    helm = next((str(file) for file in sorted(CACHE.glob("helm-*/helm"))), None) or shutil.which("helm")
    if helm is None:
        pytest.skip("needs helm (`make services-build ONLY=kubernetes` makes it)")
    command = [helm, "template", "release", CHART, "--namespace", "kaapana", "--kube-version", "1.34.4", *options]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [each for each in yaml.safe_load_all(text) if each]


def policies(*options: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each["spec"] for each in rendered(*options) if each["kind"] == "NetworkPolicy"}


def reaches(spec: dict[str, Any], address: str) -> bool:
    """Whether a rule without ports lets an address through."""
    for rule in spec.get("egress", []):
        if not rule:
            return True
        for each in rule.get("to", []):
            block = each.get("ipBlock")
            inside = block and ip_address(address) in ip_network(block["cidr"])
            if inside and not any(ip_address(address) in ip_network(left) for left in block.get("except", [])):
                return True
    return False


INTERNAL = {
    "cloud metadata": "169.254.169.254",
    "metadata of AWS tasks": "169.254.170.2",
    "metadata in IPv6": "fd00:ec2::254",
    "metadata by NAT64": "64:ff9b::a9fe:a9fe",
    "metadata by 6to4": "2002:a9fe:a9fe::1",
    "metadata of Azure": "168.63.129.16",
    "metadata of Alibaba": "100.100.100.200",
    "metadata of Oracle": "192.0.0.192",
    "API server": "10.96.0.1",
    "a database of the site": "192.168.1.20",
    "a pod": "172.17.0.5",
    "the node itself": "127.0.0.1",
    "link-local": "fe80::1",
    "multicast": "224.0.0.251",
}


@pytest.mark.parametrize("address", INTERNAL.values(), ids=INTERNAL)
def test_an_operator_with_network_does_not_reach_what_is_internal(address):
    assert not reaches(policies()["operators-with-network"], address)


def test_an_operator_with_network_reaches_names_and_the_world():
    spec = policies()["operators-with-network"]
    assert spec["podSelector"]["matchLabels"] == {"kaapana-assets/network": "true"}
    assert reaches(spec, "93.184.216.34")
    assert reaches(spec, "2606:2800:220:1::1")
    (names,) = [rule for rule in spec["egress"] if "ports" in rule]
    assert {(each["protocol"], each["port"]) for each in names["ports"]} == {("UDP", 53), ("TCP", 53)}
    assert names["to"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}]


def test_excepted_networks_are_within_what_they_are_excepted_from():
    """The API server refuses others."""
    blocks = [each["ipBlock"] for rule in policies()["operators-with-network"]["egress"] for each in rule["to"]
              if "ipBlock" in each]  # fmt: skip
    for block in blocks:
        for left in block["except"]:
            assert ip_network(left).subnet_of(ip_network(block["cidr"]))
            assert left != block["cidr"]


def test_a_site_blocks_more_and_a_site_with_rules_of_its_own_has_those():
    spec = policies("--set=network.blocked={93.184.216.34/32}")["operators-with-network"]
    assert not reaches(spec, "93.184.216.34")
    own = policies("--set=network.egress[0].to[0].ipBlock.cidr=10.1.2.3/32")["operators-with-network"]
    assert own["egress"] == [{"to": [{"ipBlock": {"cidr": "10.1.2.3/32"}}]}]


def test_others_reach_nothing_and_nobody_reaches_them():
    spec = policies()["operators-reach-nothing"]
    assert (spec["podSelector"], sorted(spec["policyTypes"])) == ({}, ["Egress", "Ingress"])
    assert not {"ingress", "egress"} & spec.keys()


def test_nobody_reaches_the_pod_of_a_run():
    spec = policies(*RUNS)["runs-are-reached-by-nothing"]
    assert spec == {"podSelector": {"matchLabels": {"kaapana-assets/run-worker": "true"}}, "policyTypes": ["Ingress"]}
    assert "runs-are-reached-by-nothing" not in policies()


def test_who_names_no_limits_has_some():
    (limits,) = [each["spec"]["limits"][0] for each in rendered() if each["kind"] == "LimitRange"]
    assert limits["default"] == {"memory": "16Gi", "ephemeral-storage": "20Gi"}
    assert limits["defaultRequest"]["ephemeral-storage"] == "0"


def test_namespace_of_operators_is_held_to_the_restricted_profile():
    (namespace,) = [each for each in rendered() if each["kind"] == "Namespace"]
    labels = namespace["metadata"]["labels"]
    assert {labels[f"pod-security.kubernetes.io/{mode}"] for mode in ("enforce", "audit", "warn")} == {"restricted"}


VERBS = {"read": "get", "create": "create", "list": "list", "patch": "patch", "delete": "delete"}


def test_the_rights_of_the_runner_are_the_calls_that_it_makes():
    source = (PROJECT_ROOT / "kaapana_assets" / "containers" / "kubernetes" / "api.py").read_text()
    called = {(f"{kind}s", VERBS[verb]) for verb, kind in re.findall(r"\.([a-z]+)_namespaced_([a-z]+)\(", source)}
    assert "watch=True" in source
    assert "/pods/{name}/log" in source
    called |= {("pods", "watch"), ("pods/log", "get")}
    (role,) = [each for each in rendered() if each["kind"] == "Role"]
    granted = {(resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}
    assert granted == called
    assert role["metadata"]["namespace"] == "flow-jobs"


def test_nothing_is_granted_in_the_whole_cluster():
    assert not [each for each in rendered(*RUNS) if each["kind"].startswith("ClusterRole")]
    granted = {
        (resource, verb)
        for role in rendered(*RUNS) if role["kind"] == "Role"
        for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]
    }  # fmt: skip
    assert not {resource for resource, _ in granted} & {"secrets", "configmaps", "pods/exec", "serviceaccounts", "*"}
    assert not {verb for _, verb in granted} & {"*", "escalate", "bind", "impersonate", "deletecollection"}


def test_the_pod_of_an_operator_keeps_to_the_restricted_profile_and_has_limits():
    settings = Settings()
    place = ClusterTarget(
        namespace="flow-jobs", claim="home", claim_path="", home=Path("/srv"), uid=1000,
        memory_mb=settings.kubernetes_memory_mb, scratch_mb=settings.kubernetes_scratch_mb,
    )  # fmt: skip
    launch = Launch(
        run_id="r", workflow="w", operator="o", image="i", directory=Path("/srv/run"), operator_in_dir="initial-input",
        operator_out_dir="out",
    )  # fmt: skip
    pod = job(launch, number=1, reference="x", image_digest="y", target=place)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert container["resources"]["limits"].keys() == {"memory", "ephemeral-storage"}
    assert all("sizeLimit" in volume["emptyDir"] for volume in pod["volumes"] if "emptyDir" in volume)
