"""What is read of settings and references for an engine, without one."""

from __future__ import annotations

import json

import pytest

from kaapana_assets.containers.docker.engine import PullSecrets, registry_of
from kaapana_assets.containers.docker.runner import DockerRunner
from kaapana_assets.errors import ConfigurationError

HUB = "https://index.docker.io/v1/"


@pytest.mark.parametrize(
    ("reference", "registry"),
    [
        ("registry.example/group/made:1", "registry.example"),
        ("registry.example:5000/made", "registry.example:5000"),
        ("localhost/made:1", "localhost"),
        ("localhost:5000/made:1", "localhost:5000"),
        ("group/made:1", HUB),
        ("made:1", HUB),
        ("made@sha256:abc", HUB),
    ],
)
def test_the_registry_is_read_as_the_engine_does(reference: str, registry: str) -> None:
    assert registry_of(reference) == registry


@pytest.mark.parametrize("server", ["registry.example", "https://registry.example", "https://registry.example/v2/"])
def test_a_login_is_found_by_its_host(server: str) -> None:
    secrets = PullSecrets(
        json.dumps({"site": {"auths": {server: {"username": "u", "password": "p"}, "x.example": {}}}})
    )
    assert secrets.logins("registry.example/made:1", ["site"]) == [
        {"username": "u", "password": "p", "serveraddress": server}
    ]
    assert secrets.logins("other.example/made:1", ["site"]) == []


@pytest.mark.parametrize("text", ["[]", "{", '{"a": 1}', '{"a": {"auth": {}}}', '{"a": {"auths": [1]}}'])
def test_secrets_that_cannot_be_read_are_not_shown(text: str) -> None:
    with pytest.raises(ConfigurationError, match="KAAPANA_IMAGE_PULL_SECRETS is no JSON object") as raised:
        PullSecrets(text)
    assert raised.value.__cause__ is None


def test_only_root_can_have_operators_of_another_user(tmp_path) -> None:
    with pytest.raises(ConfigurationError, match="KAAPANA_OPERATOR_UID=1000"):
        DockerRunner(tmp_path, url="unix:///x", uid=1000, own_uid=1001)
    assert not DockerRunner(tmp_path, url="unix:///x", uid=1001, own_uid=1001).isolates
