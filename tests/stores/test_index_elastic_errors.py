"""What the Elasticsearch client and its transport raise becomes an error of this package, all of it."""

import inspect
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import elastic_transport
import elasticsearch
import pytest
from elastic_transport import ApiResponseMeta, HttpHeaders, NodeConfig

from kaapana_assets.errors import (
    ConfigurationError,
    InputError,
    KaapanaAssetsError,
    NotFound,
    StoreUnavailable,
)
from kaapana_assets.stores.elastic_index import ElasticConnection, ElasticIndex
from kaapana_assets.stores.elastic_index.errors import translated
from kaapana_assets.stores.query import All


def every_error():
    found = set()
    for module in (elasticsearch, elasticsearch.exceptions, elastic_transport):
        for _, kind in inspect.getmembers(module, inspect.isclass):
            if issubclass(kind, Exception) and not issubclass(kind, Warning):
                found.add(kind)
    return sorted(found, key=lambda kind: f"{kind.__module__}.{kind.__name__}")


def raised(kind, status=500, body=None):
    if issubclass(kind, elastic_transport.ApiError):
        node = NodeConfig("http", "127.0.0.1", 9200)
        meta = ApiResponseMeta(status=status, http_version="1.1", headers=HttpHeaders(), duration=0.1, node=node)
        return kind(message="Doe^Jane", meta=meta, body=body)
    if issubclass(kind, elastic_transport.SniffingError):
        return kind("Doe^Jane", errors=())
    return kind("Doe^Jane")


def translation_of(exc):
    with pytest.raises(KaapanaAssetsError) as caught, translated():
        raise exc
    return caught.value


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_every_error_of_the_client_is_translated(kind):
    exc = raised(kind)
    found = translation_of(exc)
    assert found.__cause__ is exc
    assert "Doe" not in str(found), "the server's own words may hold values"


STATUSES = [
    (401, elasticsearch.AuthenticationException, "security_exception", ConfigurationError, "API_KEY"),
    (403, elasticsearch.AuthorizationException, "security_exception", ConfigurationError, "privileges"),
    (403, elasticsearch.AuthorizationException, "cluster_block_exception", StoreUnavailable, "cluster_block"),
    (404, elasticsearch.NotFoundError, "index_not_found_exception", StoreUnavailable, "index rebuild"),
    (404, elasticsearch.NotFoundError, "other_exception", NotFound, "other_exception"),
    (400, elasticsearch.BadRequestError, "too_many_nested_clauses", InputError, "too_many_nested_clauses"),
    (429, elasticsearch.ApiError, "circuit_breaking_exception", StoreUnavailable, "429"),
    (503, elasticsearch.ApiError, "no_shard_available_action_exception", StoreUnavailable, "503"),
]


@pytest.mark.parametrize(
    ("status", "kind", "reason", "expected", "said"), STATUSES, ids=[f"{s[0]} {s[2]}" for s in STATUSES]
)
def test_answer_with_an_error_says_what_to_do(status, kind, reason, expected, said):
    body = {"error": {"type": reason, "reason": "Doe^Jane", "root_cause": [{"type": reason, "reason": "Doe^Jane"}]}}
    found = translation_of(raised(kind, status, body))
    assert type(found) is expected
    assert said in str(found)
    assert "Doe" not in str(found)


@pytest.mark.parametrize("body", [None, "", "text", {}, {"error": "text"}, {"error": {"root_cause": ["text"]}}])
def test_answer_of_something_else_is_translated_too(body):
    assert isinstance(translation_of(raised(elasticsearch.ApiError, 502, body)), StoreUnavailable)


def test_server_that_is_not_there_is_unavailable(free_port):
    index = ElasticIndex(ElasticConnection(urls=(f"http://127.0.0.1:{free_port}",), patience_s=0))
    for call in (lambda: index.count(All()), lambda: index.put([{"SeriesInstanceUID": "1.1"}])):
        with pytest.raises(StoreUnavailable, match="KAAPANA_ELASTICSEARCH_URLS"):
            call()


def test_server_that_is_not_elasticsearch_is_a_wrong_setting():
    class Page(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_PUT = do_POST = do_HEAD  # noqa: N815

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        index = ElasticIndex(ElasticConnection(urls=(f"http://127.0.0.1:{server.server_port}",)))
        with pytest.raises(ConfigurationError, match="not Elasticsearch"):
            index.count(All())
        index.close()
        server.shutdown()
        thread.join()
