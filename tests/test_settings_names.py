"""A mistyped setting is refused where it would be passed over, with the name that was meant."""

import pytest

from kaapana_assets.errors import ConfigurationError
from kaapana_assets.settings import load_settings


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KAAPANA_HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.mark.parametrize("name", ["KAAPANA_RECIEVER_PORT", "kaapana_reciever_port", "KAAPANA_RECEIVERPORT"])
def test_a_mistyped_variable_is_refused_with_the_nearest_name(folder, monkeypatch, name):
    monkeypatch.setenv(name, "11113")
    with pytest.raises(ConfigurationError, match=rf"{name} in the environment is no setting: .*KAAPANA_RECEIVER_PORT"):
        load_settings()


def test_a_mistyped_line_of_the_file_is_refused_with_the_file(folder):
    (folder / ".env").write_text("KAAPANA_RUNER=docker\nOTHERS=1\n")
    with pytest.raises(ConfigurationError, match=rf"KAAPANA_RUNER in {folder}/\.env .*KAAPANA_RUNNER"):
        load_settings()


def test_a_name_like_no_other_is_refused_without_a_guess(folder, monkeypatch):
    monkeypatch.setenv("KAAPANA_ZZZ", "1")
    with pytest.raises(ConfigurationError, match=r"is no setting: docs/settings\.md lists all"):
        load_settings()


def test_what_others_tell_by_such_names_is_no_mistake(folder, monkeypatch):
    """Kubernetes tells pods where a service of such a name is; the platform marks its processes."""
    told = {
        "KAAPANA_ASSETS_SERVICE_HOST": "10.0.0.1",
        "KAAPANA_ASSETS_SERVICE_PORT_HTTP": "80",
        "KAAPANA_ASSETS_PORT": "tcp://10.0.0.1:80",
        "KAAPANA_ASSETS_PORT_80_TCP_ADDR": "10.0.0.1",
        "KAAPANA_PLATFORM": "token",
        "KAAPANA_WITHHELD": "KAAPANA_S3_SECRET_KEY",
    }
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    load_settings()
