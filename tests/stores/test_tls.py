"""Stores behind TLS: the certificate is checked with the authority of the settings, and with no other."""

import uuid

import pytest
from services.tls import tls_door
from stores.instances import write

from kaapana_assets.errors import ConfigurationError
from kaapana_assets.settings import load_settings
from kaapana_assets.stores.factory import open_index, open_objects, open_pacs
from kaapana_assets.stores.pacs.protocol import StoreOutcome
from kaapana_assets.stores.query import All

pytestmark = pytest.mark.services


def given(running, home, **changed):
    settings = {name.removeprefix("KAAPANA_").lower(): value for name, value in running.settings.items()}
    return load_settings(**(settings | {"home": home} | changed))


@pytest.mark.parametrize("by", ["elasticsearch_ca", "elasticsearch_fingerprint"])
def test_elasticsearch_is_reached_by_tls_with_an_api_key(elasticsearch_server, tmp_path, by):
    with tls_door(elasticsearch_server.ports[0], tmp_path) as door:
        asked = {
            "elasticsearch_urls": f"https://127.0.0.1:{door.port}",
            "elasticsearch_api_key": "dGVzdDprZXk=",
            "elasticsearch_index": f"tls-{uuid.uuid4().hex}",
        }
        trusted = {"elasticsearch_ca": door.ca, "elasticsearch_fingerprint": door.fingerprint}
        index = open_index(given(elasticsearch_server, tmp_path, **asked, **{by: trusted[by]}))
        index.put([{"SeriesInstanceUID": "1.2", "Modality": "CT"}])
        assert list(index.series(All())) == ["1.2"]
        index.close()
        assert b"authorization: ApiKey dGVzdDprZXk=" in door.heard[0].replace(b"Authorization", b"authorization")
        untrusting = open_index(given(elasticsearch_server, tmp_path, **asked))
        for use in (lambda: untrusting.count(All()), lambda: untrusting.put([{"SeriesInstanceUID": "1.3"}])):
            with pytest.raises(ConfigurationError, match="KAAPANA_ELASTICSEARCH_CA"):
                use()


def test_an_archive_is_reached_by_tls(empty_orthanc, tmp_path):
    with tls_door(empty_orthanc.ports[0], tmp_path) as door:
        url = f"https://127.0.0.1:{door.port}/dicom-web"
        pacs = open_pacs(given(empty_orthanc, tmp_path / "home", dicomweb_url=url, dicomweb_ca=door.ca))
        (result,) = pacs.store([write(tmp_path / "in", "1.3.1")])
        assert result.outcome is StoreOutcome.STORED
        pacs.retrieve("1.2", tmp_path / "out", writable_copy=True)
        with pytest.raises(ConfigurationError, match="KAAPANA_DICOMWEB_CA"):
            open_pacs(given(empty_orthanc, tmp_path / "home", dicomweb_url=url)).counts()


def test_objects_are_reached_by_tls(minio_server, minio_store, tmp_path):
    with tls_door(minio_server.ports[0], tmp_path) as door:
        asked = {"s3_endpoint": f"127.0.0.1:{door.port}", "s3_secure": True}
        file = tmp_path / "file"
        file.write_bytes(b"content")
        store = open_objects(given(minio_server, tmp_path, **asked, s3_ca=door.ca))
        stored = store.put_file("results", "a/file", file)
        assert store.get_file("results", "a/file", tmp_path / "back").digest == stored.digest
        with pytest.raises(ConfigurationError, match="KAAPANA_S3_CA"):
            open_objects(given(minio_server, tmp_path, **asked)).exists("results", "a/file")
