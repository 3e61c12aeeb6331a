"""What a launch is as a Job: pure text, no cluster."""

from pathlib import Path
from typing import Any

import pytest

from kaapana_assets.containers.kubernetes.job import ClusterTarget, identity_of, job, label, launch_slot, name_of
from kaapana_assets.containers.protocol import Launch
from kaapana_assets.errors import ConfigurationError

HOME = Path("/srv/kaapana")
TARGET = ClusterTarget(namespace="flow-jobs", claim="home", claim_path="", home=HOME, uid=1000)


def launch(**changed: Any) -> Launch:
    given: dict[str, Any] = {
        "run_id": "pool-study-ids-261124120000000000",
        "workflow": "pool-study-ids",
        "operator": "extract-study-id",
        "image": "extract-study-id",
        "directory": HOME / "workflows" / "data" / "run",
        "operator_in_dir": "initial-input",
        "operator_out_dir": "extract-study-id",
        "cohort": "ct",
    }
    return Launch(**{**given, **changed})


def manifest(given: Launch | None = None, target: ClusterTarget = TARGET) -> dict[str, Any]:
    return job(given or launch(), number=1, reference="localhost/x:1", image_digest="sha256:1", target=target)


def pod(given: Launch | None = None, target: ClusterTarget = TARGET) -> dict[str, Any]:
    return manifest(given, target)["spec"]["template"]["spec"]


def container(given: Launch | None = None, target: ClusterTarget = TARGET) -> dict[str, Any]:
    (found,) = pod(given, target)["containers"]
    return found


def test_only_the_directory_of_the_launch_is_mounted() -> None:
    mounts = {mount["mountPath"]: mount for mount in container()["volumeMounts"]}
    assert mounts["/data"]["subPath"] == "workflows/data/run"
    assert set(mounts) == {"/data", "/tmp", "/home/operator"}
    assert pod()["volumes"] == [
        {"name": "data", "persistentVolumeClaim": {"claimName": "home"}},
        {"name": "tmp", "emptyDir": {}},
        {"name": "home", "emptyDir": {}},
    ]


def test_home_may_lie_below_the_root_of_the_volume() -> None:
    target = ClusterTarget(**{**vars(TARGET), "claim_path": "site/kaapana"})
    assert container(target=target)["volumeMounts"][0]["subPath"] == "site/kaapana/workflows/data/run"


def test_directory_outside_of_the_volume_is_a_mistake_of_the_settings() -> None:
    with pytest.raises(ConfigurationError, match="KAAPANA_HOME"):
        manifest(launch(directory=Path("/elsewhere/run")))


def test_nothing_starts_a_pod_twice() -> None:
    spec = manifest()["spec"]
    assert (spec["backoffLimit"], spec["template"]["spec"]["restartPolicy"]) == (0, "Never")


def test_operator_is_no_root_has_no_privileges_and_no_token() -> None:
    found = pod()
    assert found["securityContext"]["runAsUser"] == 1000
    assert found["securityContext"]["runAsNonRoot"] is True
    assert found["automountServiceAccountToken"] is False
    secured = container()["securityContext"]
    assert secured["readOnlyRootFilesystem"] is True
    assert secured["allowPrivilegeEscalation"] is False
    assert secured["capabilities"] == {"drop": ["ALL"]}


def test_deadline_is_the_pods_so_that_its_log_stays() -> None:
    spec = manifest(launch(timeout_s=10.2))["spec"]
    assert spec["template"]["spec"]["activeDeadlineSeconds"] == 11
    assert spec["activeDeadlineSeconds"] > 11
    assert "activeDeadlineSeconds" not in manifest()["spec"]["template"]["spec"]


def test_limits_are_asked_for_in_full() -> None:
    resources = container(launch(memory_mb=512, cpu=1.5, gpus=2))["resources"]
    assert resources["limits"] == {"memory": "512Mi", "cpu": "1500m", "nvidia.com/gpu": "2"}
    assert resources["requests"] == resources["limits"]
    assert container()["resources"] == {}


def test_who_names_no_limit_has_those_of_the_site_and_asks_for_little() -> None:
    target = ClusterTarget(**{**vars(TARGET), "memory_mb": 16_384, "scratch_mb": 20_480})
    resources = container(target=target)["resources"]
    assert resources["limits"] == {"memory": "16384Mi", "ephemeral-storage": "20480Mi"}
    assert resources["requests"] == {"memory": "128Mi", "ephemeral-storage": "0"}
    own = container(launch(memory_mb=512), target)["resources"]
    assert own["limits"]["memory"] == own["requests"]["memory"] == "512Mi"
    sizes = [volume["emptyDir"]["sizeLimit"] for volume in pod(target=target)["volumes"] if "emptyDir" in volume]
    assert sizes == ["20480Mi", "20480Mi"]


def test_values_reach_the_operator_as_they_are() -> None:
    given = launch(parameters={"pattern": "$(HOME) $$ $x"}, command=("sh", "-c", "echo $(id)"))
    variables = {each["name"]: each["value"] for each in container(given)["env"]}
    assert variables["PATTERN"] == "$$(HOME) $$$$ $$x"  # Kubernetes reads $$ as $
    assert container(given)["command"] == ["sh", "-c", "echo $$(id)"]
    assert variables["WORKFLOW_DIR"] == "/data"
    assert variables["BATCHES_INPUT_DIR"] == "/data/batch"


def test_settings_of_the_site_reach_the_pod() -> None:
    toleration = {"key": "gpu", "operator": "Exists"}
    target = ClusterTarget(**{**vars(TARGET), "node_selector": {"kind": "big"}, "tolerations": (toleration,)})
    found = pod(launch(image_pull_secrets=("site",)), target)
    assert found["nodeSelector"] == {"kind": "big"}
    assert toleration in found["tolerations"]
    assert found["imagePullSecrets"] == [{"name": "site"}]


def test_labels_name_run_workflow_operator_and_cohort() -> None:
    labels = manifest()["spec"]["template"]["metadata"]["labels"]
    found = {name.partition("/")[2]: value for name, value in labels.items()}
    assert found["run"] == "pool-study-ids-261124120000000000"
    assert (found["workflow"], found["operator"], found["cohort"]) == ("pool-study-ids", "extract-study-id", "ct")
    assert found["network"] == "false"
    assert manifest(launch(network=True))["metadata"]["labels"]["kaapana-assets/network"] == "true"
    assert "kaapana-assets/cohort" not in manifest(launch(cohort=""))["metadata"]["labels"]


@pytest.mark.parametrize("text", ["", "ct", "CT_of-2024.v1", "x" * 63])
def test_what_a_label_can_hold_stays(text: str) -> None:
    assert label(text) == text


@pytest.mark.parametrize("text", ["x" * 64, "-begins", "ends-", "with space", "ümlaut", "-"])
def test_what_a_label_cannot_hold_is_shortened_and_stays_different(text: str) -> None:
    found = label(text)
    assert len(found) <= 63
    assert found[0].isalnum()
    assert found[-1].isalnum()
    assert found != label(text + "x")


@pytest.mark.parametrize("operator", ["extract", "Extract_Study-ID", "x" * 128, "9-", "_"])
def test_name_is_one_that_a_job_can_have(operator: str) -> None:
    name = name_of(launch(operator=operator), 12)
    assert len(name) <= 63
    assert name == name.lower()
    assert name.replace("-", "").isalnum()
    assert name[0].isalnum()


@pytest.mark.parametrize(
    "changed",
    [{"parameters": {"a": "1"}}, {"image": "other"}, {"timeout_s": 5.0}, {"command": ("x",)}, {"env_vars": {"A": "1"}}],
    ids=lambda changed: next(iter(changed)),
)
def test_other_launch_in_the_same_place_is_told_apart(changed: dict[str, Any]) -> None:
    one, other = launch(), launch(**changed)
    assert launch_slot(one) == launch_slot(other)
    assert identity_of(one, "sha256:1") != identity_of(other, "sha256:1")


def test_other_content_of_the_image_is_another_launch() -> None:
    assert identity_of(launch(), "sha256:1") != identity_of(launch(), "sha256:2")


def test_launch_slot_is_run_operator_and_directory() -> None:
    others = [{"run_id": "x"}, {"operator": "x"}, {"directory": HOME / "x"}]
    assert len({launch_slot(launch(**changed)) for changed in ({}, *others)}) == 4
