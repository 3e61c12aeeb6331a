"""Commands beside a running platform use its stores, or say that they would look elsewhere."""

import os

import pytest

from kaapana_assets.errors import ConfigurationError
from kaapana_assets.settings import load_settings, take_environment
from kaapana_assets.supervision.record import PlatformRecord, lock_home, settings_in_use, write_record

SERVERS = {
    "KAAPANA_OBJECTS": "s3",
    "KAAPANA_S3_ENDPOINT": "127.0.0.1:9000",
    "KAAPANA_S3_ACCESS_KEY": "user",
    "KAAPANA_S3_SECRET_KEY": "not-to-be-seen",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """What a test sets in this process's environment is gone after it."""
    for name in [name for name in os.environ if name.startswith("KAAPANA_")] + list(SERVERS):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path):
    made = tmp_path / "servers.env"
    made.write_text("".join(f"{name}={value}\n" for name, value in SERVERS.items()))
    made.chmod(0o600)
    return made


@pytest.fixture
def up(tmp_path, monkeypatch):
    """Stands for a platform on this home: holds its lock and has its record there."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("KAAPANA_HOME", str(home))
    held = lock_home(home)

    def record(**given):
        port = load_settings().webserver_port + 1
        addresses = {"webserver_host": "127.0.0.1", "webserver_port": port}
        addresses |= {"receiver_host": "127.0.0.1", "receiver_port": 1, "receiver_ae_title": "X"}
        write_record(home, PlatformRecord(pid=os.getpid(), token="t", folder="/", **addresses, **given))
        return port

    yield record
    held.close()


def test_a_file_that_is_named_may_hold_secrets_and_the_environment_wins(file, monkeypatch):
    monkeypatch.setenv("KAAPANA_S3_ACCESS_KEY", "other")
    take_environment(file)
    settings = load_settings()
    assert settings.s3_secret_key.get_secret_value() == "not-to-be-seen"
    assert settings.s3_access_key.get_secret_value() == "other"


def test_a_file_that_others_may_read_is_refused(file):
    file.chmod(0o640)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        take_environment(file)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"nothing\.env"):
        take_environment(tmp_path / "nothing.env")


def test_commands_take_the_addresses_and_the_file_of_the_running_platform(up, file):
    take = {"objects": "s3 127.0.0.1:9000"}
    port = up(env_file=str(file), stores=take)
    settings = settings_in_use()
    assert settings.webserver_port == port
    assert settings.stores()["objects"] == take["objects"]


def test_commands_with_other_stores_than_the_running_platform_are_refused(up):
    up(stores={"objects": "s3 127.0.0.1:9000"})
    with pytest.raises(ConfigurationError, match="KAAPANA_OBJECTS"):
        settings_in_use()


def test_without_a_platform_the_settings_are_those_of_the_process(tmp_path, monkeypatch):
    monkeypatch.setenv("KAAPANA_HOME", str(tmp_path / "nobody"))
    assert settings_in_use() == load_settings()
