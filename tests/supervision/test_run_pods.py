"""Runs as pods: what their manifests hold, and what is refused because a pod would not have it."""

import os
from pathlib import Path

import pytest
from dagster._config import process_config, resolve_to_config_type
from dagster_k8s import K8sRunLauncher

from kaapana_assets.errors import ConfigurationError
from kaapana_assets.settings import PROJECT_ROOT, Settings, load_settings
from kaapana_assets.supervision.instance import launching
from kaapana_assets.supervision.run_pods import handed_on

CHOSEN = {
    "run_launcher": "kubernetes",
    "runner": "kubernetes",
    "postgres_url": "postgresql://kaapana@database.example:5432/runs",
    "kubernetes_run_image": "registry.example/kaapana-assets:0.1.0",
}


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # without the checkout's .env
    for name in os.environ:
        if name.startswith("KAAPANA_"):
            monkeypatch.delenv(name)


def chosen(tmp_path: Path, **changed) -> Settings:
    return load_settings(**(CHOSEN | {"home": tmp_path / "home"} | changed))


def config(settings: Settings) -> dict:
    return launching(settings, settings.home / "dagster")["run_launcher"]["config"]


def container(settings: Settings) -> dict:
    return config(settings)["run_k8s_config"]["container_config"]


def test_dagster_takes_the_configuration(tmp_path):
    settings = chosen(tmp_path, kubernetes_claim_path="site/home", postgres_password="x", kubernetes_run_secret="s")
    found = process_config(resolve_to_config_type(K8sRunLauncher.config_type()), config(settings))
    assert found.success, found.errors


def test_runs_are_processes_unless_the_site_wants_pods(tmp_path):
    assert "run_launcher" not in launching(load_settings(home=tmp_path), tmp_path)


@pytest.mark.parametrize("lacking", ["postgres_url", "kubernetes_run_image", "runner"])
def test_settings_that_runs_in_pods_need_are_named(tmp_path, lacking):
    given = {name: value for name, value in CHOSEN.items() if name != lacking}
    with pytest.raises(ConfigurationError, match=f"KAAPANA_RUN_LAUNCHER=kubernetes needs KAAPANA_{lacking.upper()}"):
        load_settings(home=tmp_path, **given)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"postgres_url": "postgresql://kaapana@127.0.0.1:5432/runs"}, "KAAPANA_POSTGRES_URL"),
        ({"postgres_url": "postgresql://kaapana@localhost/runs"}, "KAAPANA_POSTGRES_URL"),
        ({"index": "elasticsearch", "elasticsearch_urls": "http://[::1]:9200"}, "KAAPANA_ELASTICSEARCH_URLS"),
        (
            {"objects": "s3", "s3_endpoint": "127.0.0.1:9000", "s3_access_key": "a", "s3_secret_key": "b"},
            "KAAPANA_S3_ENDPOINT",
        ),
        ({"pacs": "dicomweb", "dicomweb_url": "http://127.0.0.1:8042/dicom-web"}, "KAAPANA_DICOMWEB_URL"),
    ],
    ids=["postgres", "postgres by name", "elasticsearch", "s3", "dicomweb"],
)
def test_servers_of_this_machine_alone_are_refused(tmp_path, changed, named):
    with pytest.raises(ConfigurationError, match=f"{named}=.* from this machine alone"):
        config(chosen(tmp_path, **changed))


def test_servers_that_are_not_used_may_be_anywhere(tmp_path):
    assert config(chosen(tmp_path, dicomweb_url="http://127.0.0.1:8042/dicom-web"))


@pytest.mark.parametrize("name", ["images", "s3_ca"])
def test_files_that_a_pod_does_not_see_are_refused(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=f"KAAPANA_{name.upper()}=.* is not below KAAPANA_HOME"):
        config(chosen(tmp_path, **{name: tmp_path / "file"}))


def test_files_in_the_home_are_handed_on(tmp_path):
    images = tmp_path / "home" / "images"
    assert handed_on(chosen(tmp_path, images=images))["KAAPANA_IMAGES"] == str(images)
    assert "KAAPANA_IMAGES" not in handed_on(chosen(tmp_path, images=PROJECT_ROOT / "images"))


def test_settings_are_read_in_the_pod_as_they_are_here(tmp_path, monkeypatch):
    settings = chosen(
        tmp_path,
        kubernetes_tolerations=({"key": "gpu", "operator": "Exists"},),
        kubernetes_node_selector={"disk": "ssd"},
        elasticsearch_urls="http://a.example:9200,http://b.example:9200",
        s3_secure=False,
        series_per_launch=7,
        image_tag_suffix="site",
    )
    for name, value in handed_on(settings).items():
        monkeypatch.setenv(name, value)
    there = load_settings()
    not_for_runs = {name for name in CHOSEN if name.startswith(("run_launcher", "kubernetes_run_"))}
    assert there.model_dump(exclude=not_for_runs) == settings.model_dump(exclude=not_for_runs)
    assert not {name for name in handed_on(settings) if "RUN_IMAGE" in name or "KUBECONFIG" in name}


def test_secrets_are_read_from_a_secret_of_the_cluster(tmp_path):
    settings = chosen(tmp_path, postgres_password="never told", kubernetes_run_secret="settings")
    assert "never told" not in repr(launching(settings, tmp_path))
    (found,) = [each for each in container(settings)["env"] if each["name"] == "KAAPANA_POSTGRES_PASSWORD"]
    assert found["valueFrom"] == {"secretKeyRef": {"name": "settings", "key": "KAAPANA_POSTGRES_PASSWORD"}}


def test_secret_without_a_place_in_the_cluster_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"KAAPANA_POSTGRES_PASSWORD is set.*_RUN_SECRET"):
        config(chosen(tmp_path, postgres_password="never told"))


def test_what_kubernetes_would_replace_in_a_value_stays(tmp_path):
    settings = chosen(tmp_path, image_registry="registry.example/group", dimse_ae_title="$(HOME)")
    assert {"name": "KAAPANA_DIMSE_AE_TITLE", "value": "$$(HOME)"} in container(settings)["env"]


def test_home_is_where_it_is_here(tmp_path):
    mount = container(chosen(tmp_path, kubernetes_claim_path="site/home"))["volumeMounts"][0]
    assert mount == {"name": "home", "mountPath": str(tmp_path / "home"), "subPath": "site/home"}


@pytest.mark.parametrize("uid", [0, 1234])
def test_run_has_the_platforms_user_and_no_rights_beside(tmp_path, monkeypatch, uid):
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    context = container(chosen(tmp_path))["securityContext"]
    assert (context["runAsUser"], context["runAsNonRoot"]) == (uid, uid != 0)
    assert context["capabilities"]["drop"] == ["ALL"]
    assert ("add" in context["capabilities"]) == (uid == 0)
    assert not context["allowPrivilegeEscalation"]
