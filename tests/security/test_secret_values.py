"""Secrets that no server can be asked with, and servers that refuse a secret: no message repeats it."""

import base64
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from kaapana_assets.errors import ConfigurationError, KaapanaAssetsError
from kaapana_assets.settings import Settings, load_settings
from kaapana_assets.stores.factory import open_index, open_objects, open_pacs
from kaapana_assets.stores.query import All
from kaapana_assets.withheld import SECRETS

HEADERS = {"KAAPANA_ELASTICSEARCH_API_KEY", "KAAPANA_S3_ACCESS_KEY", "KAAPANA_S3_SECRET_KEY", "KAAPANA_DICOMWEB_TOKEN"}
PASSWORDS = {"KAAPANA_POSTGRES_PASSWORD", "KAAPANA_ELASTICSEARCH_PASSWORD", "KAAPANA_DICOMWEB_PASSWORD"}
JSON_FILE = "KAAPANA_IMAGE_PULL_SECRETS"
VALUES = {"line end": "planted\n", "return": "planted\r\nX-Evil: 1", "control": "plan\x01ted"}


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch, tmp_path) -> pytest.MonkeyPatch:
    for name in [name for name in os.environ if name.startswith("KAAPANA_") or name in SECRETS]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KAAPANA_HOME", str(tmp_path / "home"))
    return monkeypatch


def test_every_secret_is_checked_here():
    assert {name for name in SECRETS if name.startswith("KAAPANA_")} == HEADERS | PASSWORDS | {JSON_FILE}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("name", sorted(HEADERS | PASSWORDS))
def test_a_secret_of_several_lines_is_refused_without_showing_it(monkeypatch, name, value):
    """As a file with a line end becomes one: libraries then refuse it by errors that repeat it."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=f"{name}.*line end") as refused:
        load_settings()
    assert "plan" not in str(refused.value)


@pytest.mark.parametrize("name", sorted(HEADERS))
def test_a_key_with_other_letters_is_refused_without_showing_it(monkeypatch, name):
    monkeypatch.setenv(name, "planted\u20ac")
    with pytest.raises(ConfigurationError, match=name) as refused:
        load_settings()
    assert "planted" not in str(refused.value)


def test_the_credentials_of_registries_are_json_of_several_lines(monkeypatch):
    monkeypatch.setenv(JSON_FILE, '{\n"site": {"auths": {}}\n}\n')
    load_settings()


class Echo(BaseHTTPRequestHandler):
    """Refuses, and repeats in its answer what it was asked with, as pages for finding mistakes do."""

    protocol_version = "HTTP/1.1"
    status, kind = 401, "text/plain"

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        said = str(self.headers)
        body = f'{{"error": {{"reason": "{said!a}", "type": "{said!a}"}}}}' if "json" in self.kind else said
        self.send_response(self.status, said.replace("\n", " ")[:900])
        self.send_header("Content-Type", self.kind)
        self.send_header("X-Elastic-Product", "Elasticsearch")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body.encode())

    do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = _answer  # noqa: N815 - the names are the library's

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def echo() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def archive(settings: Settings) -> None:
    list(open_pacs(settings).series_uids())


def index(settings: Settings) -> None:
    list(open_index(settings).series(All()))


def objects(settings: Settings) -> None:
    list(open_objects(settings).buckets())


SECRET = "planted-secret"
DICOMWEB = {"KAAPANA_PACS": "dicomweb", "KAAPANA_DICOMWEB_URL": "http://{host}/web", "KAAPANA_DICOMWEB_ATTEMPTS": "1"}
ELASTIC = {
    "KAAPANA_INDEX": "elasticsearch",
    "KAAPANA_ELASTICSEARCH_URLS": "http://{host}",
    "KAAPANA_ELASTICSEARCH_PATIENCE_S": "0",
}
S3 = {"KAAPANA_OBJECTS": "s3", "KAAPANA_S3_ENDPOINT": "{host}", "KAAPANA_S3_SECURE": "false"}
S3 |= {"KAAPANA_S3_ATTEMPTS": "1", "KAAPANA_S3_REGION": "here"}
STORES = {
    "archive by password": (archive, {**DICOMWEB, "KAAPANA_DICOMWEB_USER": "u", "KAAPANA_DICOMWEB_PASSWORD": SECRET}),
    "archive by token": (archive, {**DICOMWEB, "KAAPANA_DICOMWEB_TOKEN": SECRET}),
    "index by password": (
        index, {**ELASTIC, "KAAPANA_ELASTICSEARCH_USER": "u", "KAAPANA_ELASTICSEARCH_PASSWORD": SECRET},
    ),
    "index by key": (index, {**ELASTIC, "KAAPANA_ELASTICSEARCH_API_KEY": SECRET}),
    "objects": (objects, {**S3, "KAAPANA_S3_ACCESS_KEY": SECRET, "KAAPANA_S3_SECRET_KEY": SECRET}),
}  # fmt: skip


@pytest.mark.parametrize(("status", "kind"), [(401, "text/plain"), (500, "text/html"), (400, "application/json")])
@pytest.mark.parametrize(("ask", "variables"), STORES.values(), ids=STORES)
def test_what_a_server_repeats_of_a_secret_is_in_no_message(monkeypatch, echo, ask, variables, status, kind):
    monkeypatch.setattr(Echo, "status", status)
    monkeypatch.setattr(Echo, "kind", kind)
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(host=echo))
    with pytest.raises(KaapanaAssetsError) as refused:
        ask(load_settings())
    for form in (SECRET, base64.b64encode(f"u:{SECRET}".encode()).decode()[:12]):
        assert form not in str(refused.value)
