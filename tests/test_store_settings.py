"""Settings of the stores that can't work are refused, and the message names them."""

import pytest

from kaapana_assets.errors import ConfigurationError
from kaapana_assets.settings import load_settings

REFUSED = {
    "no such PACS": ({"PACS": "tape"}, "KAAPANA_PACS"),
    "S3 without address": ({"OBJECTS": "s3"}, "KAAPANA_S3_ENDPOINT"),
    "S3 without key": ({"OBJECTS": "s3", "S3_ENDPOINT": "h:9", "S3_SECRET_KEY": "x"}, "KAAPANA_S3_ACCESS_KEY"),
    "S3 without secret": ({"OBJECTS": "s3", "S3_ENDPOINT": "h:9", "S3_ACCESS_KEY": "x"}, "KAAPANA_S3_SECRET_KEY"),
    "S3 with a scheme": ({"S3_ENDPOINT": "http://h:9"}, "KAAPANA_S3_ENDPOINT"),
    "DICOMweb without address": ({"PACS": "dicomweb"}, "KAAPANA_DICOMWEB_URL"),
    "DICOMweb without scheme": ({"DICOMWEB_URL": "host:80/dicom-web"}, "KAAPANA_DICOMWEB_URL"),
    "password in the address": ({"DICOMWEB_URL": "http://a:b@host/x"}, "KAAPANA_DICOMWEB_PASSWORD"),
    "user without password": ({"DICOMWEB_USER": "a"}, "KAAPANA_DICOMWEB_PASSWORD"),
    "two credentials": (
        {"DICOMWEB_USER": "a", "DICOMWEB_PASSWORD": "b", "DICOMWEB_TOKEN": "c"},
        "KAAPANA_DICOMWEB_TOKEN",
    ),
    "no CA file": ({"DICOMWEB_CA": "/no/such/file"}, "KAAPANA_DICOMWEB_CA"),
    "C-STORE without address": ({"PACS": "dimse", "DICOMWEB_URL": "http://h"}, "KAAPANA_DIMSE_URL"),
    "C-STORE without DICOMweb": ({"PACS": "dimse", "DIMSE_URL": "dimse://A@h:1"}, "KAAPANA_DICOMWEB_URL"),
    "C-STORE without title": ({"DIMSE_URL": "dimse://h:1"}, "KAAPANA_DIMSE_URL"),
    "no attempt": ({"S3_ATTEMPTS": "0"}, "KAAPANA_S3_ATTEMPTS"),
}


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("given", "named"), REFUSED.values(), ids=REFUSED)
def test_a_setting_that_cannot_work_is_refused_and_named(monkeypatch, given, named):
    for name, value in given.items():
        monkeypatch.setenv(f"KAAPANA_{name}", value)
    with pytest.raises(ConfigurationError, match=named):
        load_settings()


@pytest.mark.parametrize("name", ["S3_ACCESS_KEY", "S3_SECRET_KEY", "DICOMWEB_PASSWORD", "DICOMWEB_TOKEN"])
def test_a_secret_in_a_file_is_refused(tmp_path, name):
    (tmp_path / ".env").write_text(f"KAAPANA_SERIES_QUIET_S=3\nKAAPANA_{name}=hidden-word\n")
    with pytest.raises(ConfigurationError, match=f"KAAPANA_{name}") as caught:
        load_settings()
    assert "hidden-word" not in str(caught.value)


def test_other_settings_are_read_from_the_file_and_secrets_from_the_environment(tmp_path, monkeypatch):
    (tmp_path / ".env").write_text("KAAPANA_OBJECTS=s3\nKAAPANA_S3_ENDPOINT=host:9000\n")
    monkeypatch.setenv("KAAPANA_S3_ACCESS_KEY", "name")
    monkeypatch.setenv("KAAPANA_S3_SECRET_KEY", "hidden-word")
    settings = load_settings()
    assert (settings.objects, settings.s3_endpoint) == ("s3", "host:9000")
    assert settings.s3_secret_key.get_secret_value() == "hidden-word"
    assert "hidden-word" not in repr(settings) + settings.model_dump_json()
