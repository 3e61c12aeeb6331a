"""Settings choose the index; what cannot work is refused with the name of the setting."""

import pytest

from kaapana_assets.errors import ConfigurationError
from kaapana_assets.settings import load_settings
from kaapana_assets.stores.elastic_index import ElasticIndex
from kaapana_assets.stores.factory import elastic_connection, open_index
from kaapana_assets.stores.sqlite_index import SqliteIndex

HERE = "http://127.0.0.1:9200"


@pytest.fixture(autouse=True)
def no_settings(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # no .env
    monkeypatch.setenv("KAAPANA_HOME", str(tmp_path / "home"))
    return monkeypatch


def test_index_is_a_file_unless_settings_say_otherwise(monkeypatch):
    assert isinstance(open_index(load_settings()), SqliteIndex)
    monkeypatch.setenv("KAAPANA_INDEX", "elasticsearch")
    monkeypatch.setenv("KAAPANA_ELASTICSEARCH_URLS", f"{HERE}, https://two:9200")
    assert isinstance(open_index(load_settings()), ElasticIndex)
    assert elastic_connection(load_settings()).urls == (HERE, "https://two:9200")


def test_secrets_are_not_shown(monkeypatch):
    monkeypatch.setenv("KAAPANA_ELASTICSEARCH_API_KEY", "s3cret")
    settings = load_settings()
    assert "s3cret" not in repr(settings) + repr(elastic_connection(settings))
    assert elastic_connection(settings).api_key == "s3cret"


def test_secret_in_a_file_is_refused(tmp_path):
    (tmp_path / ".env").write_text("KAAPANA_ELASTICSEARCH_API_KEY=s3cret\n")
    with pytest.raises(ConfigurationError, match="KAAPANA_ELASTICSEARCH_API_KEY") as caught:
        load_settings()
    assert "s3cret" not in str(caught.value)


REFUSED = [
    ({"INDEX": "solr"}, "KAAPANA_INDEX"),
    ({"INDEX": "elasticsearch"}, "KAAPANA_ELASTICSEARCH_URLS"),
    ({"ELASTICSEARCH_URLS": "127.0.0.1:9200"}, "KAAPANA_ELASTICSEARCH_URLS"),
    ({"ELASTICSEARCH_URLS": "http://127.0.0.1"}, "KAAPANA_ELASTICSEARCH_URLS"),
    ({"ELASTICSEARCH_URLS": "http://u:p@127.0.0.1:9200"}, "KAAPANA_ELASTICSEARCH_USER"),
    ({"ELASTICSEARCH_USER": "u"}, "KAAPANA_ELASTICSEARCH_PASSWORD"),
    ({"ELASTICSEARCH_USER": "u", "ELASTICSEARCH_PASSWORD": "p", "ELASTICSEARCH_API_KEY": "k"}, "API_KEY"),
    ({"ELASTICSEARCH_CA": "/nowhere/ca.pem"}, "KAAPANA_ELASTICSEARCH_CA"),
    ({"ELASTICSEARCH_FINGERPRINT": "abc"}, "KAAPANA_ELASTICSEARCH_FINGERPRINT"),
    ({"ELASTICSEARCH_INDEX": "Upper"}, "KAAPANA_ELASTICSEARCH_INDEX"),
    ({"ELASTICSEARCH_SHARDS": "0"}, "KAAPANA_ELASTICSEARCH_SHARDS"),
    ({"ELASTICSEARCH_TIMEOUT_S": "0"}, "KAAPANA_ELASTICSEARCH_TIMEOUT_S"),
]


@pytest.mark.parametrize(("given", "named"), REFUSED, ids=[" ".join(given) for given, _ in REFUSED])
def test_setting_that_cannot_work_is_refused_by_name(monkeypatch, given, named):
    for name, value in given.items():
        monkeypatch.setenv(f"KAAPANA_{name}", value)
    with pytest.raises(ConfigurationError, match=named):
        load_settings()
