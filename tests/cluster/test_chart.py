"""The chart: what it is made of without a cluster, and what values it refuses. Real installs are in the others."""

import json
from typing import Any

import pytest
import yaml
from services.cluster import Cluster, CommandFailed
from services.operators import PROJECT_ROOT

pytestmark = pytest.mark.cluster

CHART = PROJECT_ROOT / "helm" / "kaapana-assets"


def rendered(cluster: Cluster, *options: str) -> list[dict[str, Any]]:
    text = cluster.helm("template", "release", CHART, "--namespace", "kaapana", "--kube-version", "1.34.4", *options)
    return [each for each in yaml.safe_load_all(text) if each]


def of_kind(objects: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [each for each in objects if each["kind"] == kind]


def test_chart_is_without_faults(kubernetes_cluster: Cluster) -> None:
    said = kubernetes_cluster.helm("lint", "--strict", CHART)
    assert "0 chart(s) failed" in said


def test_every_object_lies_in_its_namespace_and_says_whose_it_is(kubernetes_cluster: Cluster) -> None:
    objects = rendered(kubernetes_cluster)
    assert {each["kind"] for each in objects} == {
        "Namespace", "ResourceQuota", "LimitRange", "ServiceAccount", "Role", "RoleBinding", "PersistentVolumeClaim",
        "NetworkPolicy",
    }  # fmt: skip
    for each in objects:
        assert each["metadata"]["labels"]["app.kubernetes.io/name"] == "kaapana-assets"
        if each["kind"] not in ("Namespace", "ServiceAccount"):
            assert each["metadata"]["namespace"] == "flow-jobs"


def test_rights_are_few_and_named(kubernetes_cluster: Cluster) -> None:
    objects = rendered(kubernetes_cluster, "--set=runs.create=true", "--set=home.hostPath=/srv/kaapana")
    assert of_kind(objects, "ClusterRole") == of_kind(objects, "ClusterRoleBinding") == []
    rules = [rule for role in of_kind(objects, "Role") for rule in role["rules"]]
    granted = {(resource, verb) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}
    assert not any("*" in pair for pair in granted)
    assert not {"secrets", "configmaps", "nodes", "pods/exec", "serviceaccounts"} & {
        resource for resource, _ in granted
    }


def test_namespace_is_held_to_the_restricted_profile(kubernetes_cluster: Cluster) -> None:
    (namespace,) = of_kind(rendered(kubernetes_cluster), "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_pods_reach_nothing_unless_their_author_asked(kubernetes_cluster: Cluster) -> None:
    policies = {
        each["metadata"]["name"]: each["spec"] for each in of_kind(rendered(kubernetes_cluster), "NetworkPolicy")
    }
    nothing = policies["operators-reach-nothing"]
    assert (nothing["podSelector"], sorted(nothing["policyTypes"])) == ({}, ["Egress", "Ingress"])
    assert not {"ingress", "egress"} & nothing.keys()
    asked = policies["operators-with-network"]
    assert asked["podSelector"]["matchLabels"] == {"kaapana-assets/network": "true"}


def test_folder_of_a_node_becomes_a_volume_that_is_never_emptied(kubernetes_cluster: Cluster) -> None:
    objects = rendered(kubernetes_cluster, "--set=home.hostPath=/srv/kaapana")
    (volume,) = of_kind(objects, "PersistentVolume")
    (claim,) = of_kind(objects, "PersistentVolumeClaim")
    assert volume["spec"]["hostPath"]["path"] == "/srv/kaapana"
    assert volume["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    assert claim["spec"]["volumeName"] == volume["metadata"]["name"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ("flowJobs.namespace=Flow_Jobs", "namespace"),
        ("home.size=plenty", "size"),
        ("home.hostPath=srv", "hostPath"),
        ("home.accessModes={ReadOnlyMany}", "accessModes"),
        ("flowJobs.quota.pods=-1", "pods"),
        ("network.enforce=perhaps", "enforce"),
        ("network.blocked={everything}", "blocked"),
        ("flowJobs.defaults.ephemeralStorageLimit=plenty", "ephemeralStorageLimit"),
        ("nonsense=1", "nonsense"),
        ("gpuResource=gpu", "gpuResource"),
    ],
)
def test_value_that_cannot_be_is_refused_with_its_place(kubernetes_cluster: Cluster, value: str, place: str) -> None:
    with pytest.raises(CommandFailed, match=place):
        rendered(kubernetes_cluster, f"--set={value}")


def test_values_of_the_chart_are_all_described(kubernetes_cluster: Cluster) -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for name, group in values.items():
        described = schema["properties"][name]
        if isinstance(group, dict):
            assert set(group) <= set(described["properties"]), name
