"""Configures Dagster's K8sRunLauncher so that a run in a pod has the same home and settings as on this machine.

KAAPANA_HOME is mounted at the same path, and settings are passed on as they are here. Secrets are read from a Secret
of the cluster, so that a Job's manifest, which many people may read, holds none. ``containers.kubernetes`` starts
operators from there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from kaapana_assets.errors import ConfigurationError
from kaapana_assets.settings import PROJECT_ROOT, Settings, is_loopback

RUN_LABEL = "kaapana-assets/run-worker"
"""The label of all pods of runs, for use in the site's policies."""

_NOT_FOR_RUNS = (
    "images", "environments", "receiver_", "allowed_", "webserver_", "health_", "definitions",
    "docker_", "image_pull_secrets", "base_image", "kubeconfig", "run_launcher", "kubernetes_run_",
)  # fmt: skip
_GRACE_S = 60  # for a cancelled run to end its operators' pods
# Root needs these to give directories to the operators' user, and to remove that user's files.
_CAPABILITIES_OF_ROOT = ("CHOWN", "DAC_OVERRIDE", "FOWNER")


def run_launcher(settings: Settings, dagster_home: Path, variables: Mapping[str, str]) -> dict[str, Any]:
    """Return the section ``run_launcher`` of dagster.yaml.

    Args:
        settings: settings with ``run_launcher="kubernetes"``.
        dagster_home: DAGSTER_HOME, below the platform's home.
        variables: the environment variables that every process with Dagster needs.

    Raises:
        ConfigurationError: a file or server that the settings name is out of a pod's reach.

    References: ``dagster_k8s.job.DagsterK8sJobConfig.config_type_run_launcher``.
    """
    _check_files(settings)
    _check_addresses(settings)
    return {
        "module": "dagster_k8s",
        "class": "K8sRunLauncher",
        "config": {
            "load_incluster_config": settings.kubeconfig is None,
            "kubeconfig_file": None if settings.kubeconfig is None else str(settings.kubeconfig),
            "job_namespace": settings.kubernetes_run_namespace,
            "job_image": settings.kubernetes_run_image,
            "image_pull_policy": "IfNotPresent",
            "service_account_name": settings.kubernetes_run_account,
            "dagster_home": str(dagster_home),
            # Required but unused: a run gets the instance in its arguments.
            "instance_config_map": "none",
            "run_k8s_config": {
                "container_config": _container(settings, variables),
                "pod_spec_config": _pod(settings),
                "pod_template_spec_metadata": {"labels": {RUN_LABEL: "true"}},
            },
            # The user who launches a run may give it more memory, but no other rights.
            "only_allow_user_defined_k8s_config_fields": {"container_config": {"resources": True}},
            "only_allow_user_defined_env_vars": [],
        },
    }


def handed_on(settings: Settings) -> dict[str, str]:
    """Return the variables ``KAAPANA_*`` that give a pod the settings of this process, without secrets."""
    chosen = {"home", "runner", "operator_uid"}  # their defaults depend on the process
    for name in settings.model_fields_set:
        if not name.startswith(_NOT_FOR_RUNS) and not isinstance(getattr(settings, name), SecretStr):
            chosen.add(name)
    if settings.images != PROJECT_ROOT / "images":
        chosen.add("images")
    values = {name: getattr(settings, name) for name in sorted(chosen)}
    return {f"KAAPANA_{name.upper()}": _text(value) for name, value in values.items() if value is not None}


def _container(settings: Settings, variables: Mapping[str, str]) -> dict[str, Any]:
    uid = os.geteuid()
    plain = {**variables, **handed_on(settings)}
    # Kubernetes would expand "$(X)" in a value; "$$" escapes it.
    env: list[dict[str, Any]] = [{"name": name, "value": value.replace("$", "$$")} for name, value in plain.items()]
    for name in _secrets(settings):
        if not settings.kubernetes_run_secret:
            raise ConfigurationError(
                f"{name} is set, which runs in pods need, too: make a Secret with the key {name} in the namespace "
                f"{settings.kubernetes_run_namespace} and name it in KAAPANA_KUBERNETES_RUN_SECRET"
            )
        source = {"secretKeyRef": {"name": settings.kubernetes_run_secret, "key": name}}
        env.append({"name": name, "valueFrom": source})
    home: dict[str, Any] = {"name": "home", "mountPath": str(settings.home)}
    if settings.kubernetes_claim_path:
        home["subPath"] = settings.kubernetes_claim_path
    return {
        "env": env,
        "resources": settings.kubernetes_run_resources,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": uid != 0,
            "runAsUser": uid,
            "runAsGroup": os.getegid(),
            "capabilities": {"drop": ["ALL"], **({} if uid else {"add": list(_CAPABILITIES_OF_ROOT)})},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [home, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - in the container
    }


def _pod(settings: Settings) -> dict[str, Any]:
    scratch = {"sizeLimit": f"{settings.kubernetes_scratch_mb}Mi"} if settings.kubernetes_scratch_mb else {}
    return {
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": _GRACE_S,
        "volumes": [
            {"name": "home", "persistentVolumeClaim": {"claimName": settings.kubernetes_run_claim}},
            {"name": "tmp", "emptyDir": scratch},
        ],
    }


def _secrets(settings: Settings) -> Iterator[str]:
    for name in sorted(settings.model_fields_set):
        value = getattr(settings, name)
        if isinstance(value, SecretStr) and value.get_secret_value() and not name.startswith(_NOT_FOR_RUNS):
            yield f"KAAPANA_{name.upper()}"


def _check_files(settings: Settings) -> None:
    for name in ("images", "s3_ca", "dicomweb_ca", "elasticsearch_ca"):
        path = getattr(settings, name)
        if path is None or path == PROJECT_ROOT / "images":
            continue
        if not path.absolute().is_relative_to(settings.home):
            raise ConfigurationError(
                f"KAAPANA_{name.upper()}={path} is not below KAAPANA_HOME={settings.home}, which is all that a run in "
                "a pod (KAAPANA_RUN_LAUNCHER=kubernetes) sees of this machine: put it there"
            )


def _check_addresses(settings: Settings) -> None:
    addresses = {
        "KAAPANA_POSTGRES_URL": (settings.postgres_url,),
        "KAAPANA_ELASTICSEARCH_URLS": settings.elasticsearch_urls if settings.index == "elasticsearch" else (),
        "KAAPANA_S3_ENDPOINT": (f"//{settings.s3_endpoint}",) if settings.objects == "s3" else (),
        "KAAPANA_DICOMWEB_URL": (settings.dicomweb_url,) if settings.pacs != "folder" else (),
        "KAAPANA_DIMSE_URL": (settings.dimse_url,) if settings.pacs == "dimse" else (),
    }
    for name, urls in addresses.items():
        for url in urls:
            if is_loopback(urlsplit(url).hostname or ""):
                raise ConfigurationError(
                    f"{name}={url.lstrip('/')} is reached from this machine alone, and runs in pods "
                    "(KAAPANA_RUN_LAUNCHER=kubernetes) need the same server: give an address that they reach, too"
                )


def _text(value: object) -> str:
    """Return the value as text that ``Settings`` parses from the environment."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple) and all(isinstance(each, str) for each in value):
        return ",".join(value)
    if isinstance(value, (tuple, dict)):
        return json.dumps(value)
    return str(value)
