"""Dagster's storage on a server of the site."""

import pytest

from kaapana_assets.errors import ConfigurationError, StoreUnavailable
from kaapana_assets.settings import load_settings
from kaapana_assets.supervision.postgres_server import check_server, claim_database

pytestmark = pytest.mark.services


@pytest.fixture
def given(postgres_server, tmp_path):
    settings = postgres_server.settings
    return {
        "home": tmp_path / "home",
        "postgres_url": settings["KAAPANA_POSTGRES_URL"],
        "postgres_password": settings["KAAPANA_POSTGRES_PASSWORD"],
    }


def test_a_database_belongs_to_one_home(given, tmp_path):
    database = given["postgres_url"].replace("/postgres", "/template1")
    given |= {"postgres_url": database}
    assert "template1" in check_server(load_settings(**given))
    for _ in range(2):
        claim_database(load_settings(**given))
    with pytest.raises(ConfigurationError, match="another KAAPANA_HOME"):
        claim_database(load_settings(**(given | {"home": tmp_path / "other"})))
    (tmp_path / "home" / "platform-id").unlink()
    with pytest.raises(ConfigurationError, match="a former KAAPANA_HOME"):
        claim_database(load_settings(**given))


@pytest.mark.parametrize(
    ("changed", "error", "text"),
    [
        ({"postgres_password": "not-this-one"}, ConfigurationError, "KAAPANA_POSTGRES_PASSWORD"),
        ({"postgres_password": ""}, ConfigurationError, "KAAPANA_POSTGRES_PASSWORD"),
    ],
)
def test_wrong_credentials_name_the_setting_and_not_the_password(given, changed, error, text):
    with pytest.raises(error, match=text) as raised:
        check_server(load_settings(**(given | changed)))
    assert "not-this-one" not in str(raised.value)


def test_a_database_that_is_not_there_is_said(given):
    address = given["postgres_url"].replace("/postgres", "/nothing")
    with pytest.raises(ConfigurationError, match="does not exist"):
        check_server(load_settings(**(given | {"postgres_url": address})))


def test_a_server_that_does_not_answer_is_away(given, free_port):
    address = f"postgresql://kaapana@127.0.0.1:{free_port}/postgres"
    with pytest.raises(StoreUnavailable, match="does not answer"):
        check_server(load_settings(**(given | {"postgres_url": address})))
