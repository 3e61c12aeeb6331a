"""A server that dies, hangs, or is too busy in the middle of writing: nothing is lost, nothing is there twice."""

import json
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from services.plugin import service
from stores.conftest import until

from kaapana_assets.errors import InvalidIdentifier, StoreUnavailable
from kaapana_assets.stores.elastic_index import ElasticConnection, ElasticIndex
from kaapana_assets.stores.elastic_index.writer import BATCH_OPERATIONS
from kaapana_assets.stores.query import All, parse

pytestmark = pytest.mark.services


def opened(running, **chosen):
    given = {"urls": (running.settings["KAAPANA_ELASTICSEARCH_URLS"],), "replicas": 0, "patience_s": 120}
    return ElasticIndex(ElasticConnection(**(given | {"index": f"test-{uuid.uuid4().hex}"} | chosen)))


@pytest.fixture(scope="module")
def mortal(tmp_path_factory):
    """A server that tests may kill."""
    with service("elasticsearch", tmp_path_factory.mktemp("mortal")) as running:
        yield running


@pytest.mark.parametrize("how", ["kill", "pause"])
def test_server_that_goes_away_during_put_loses_and_repeats_nothing(mortal, how, caplog):
    index = opened(mortal, timeout_s=5)
    index.count(All())
    under_way, back = threading.Event(), threading.Event()

    def documents():
        for number in range(6000):
            if number == 2000:
                under_way.set()
            elif number == 4000:
                assert back.wait(180)
            yield {"SeriesInstanceUID": f"1.2.{number}", "Modality": "MR", "SeriesDescription": f"number {number}"}

    failures = []

    def put():
        try:
            index.put(documents())
        except Exception as exc:  # noqa: BLE001 - shown by the test's own thread
            failures.append(exc)

    writing = threading.Thread(target=put)
    writing.start()
    assert under_way.wait(120)
    if how == "kill":
        mortal.kill()
        back.set()  # batches are sent to a server that is not there
        until(lambda: " wait (" in caplog.text)
        mortal.start()
    else:
        mortal.pause()
        back.set()
        until(lambda: " wait (ConnectionTimeout)" in caplog.text)  # the time limit of a request has passed
        mortal.resume()
    writing.join(240)
    assert failures == []
    assert list(index.series(All())) == sorted(f"1.2.{number}" for number in range(6000))
    assert index.count(parse('"number 4321"')) == 1
    index.close()


def test_put_gives_up_when_the_server_stays_away(mortal):
    index = opened(mortal, patience_s=1)
    index.put([{"SeriesInstanceUID": "1.1"}])
    mortal.kill()
    try:
        with pytest.raises(StoreUnavailable, match=r"1\.2"):
            index.put([{"SeriesInstanceUID": "1.2"}])
    finally:
        mortal.start()
    # The same object goes on as soon as the server is back.
    index.put([{"SeriesInstanceUID": "1.3"}])
    assert set(index.series(All())) >= {"1.1", "1.3"}
    index.close()


def searched_once_it_can_be(index: ElasticIndex, query: str, within_s: float = 60) -> list[str]:
    """A server that has just started answers before its shards are there."""
    end = time.monotonic() + within_s
    while True:
        try:
            return list(index.series(parse(query)))
        except StoreUnavailable:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def test_put_of_many_batches_waits_once_and_sends_nothing_after_what_failed(mortal):
    patience_s = 5
    index = opened(mortal, patience_s=patience_s)
    index.put([{"SeriesInstanceUID": "1.1"}])

    def documents():
        for number in range(10 * BATCH_OPERATIONS):
            if number == 2 * BATCH_OPERATIONS:
                mortal.kill()
            yield {"SeriesInstanceUID": f"1.2.{number}"}

    try:
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match=r"1\.2\."):
            index.put(documents())
        waited_s = time.monotonic() - began
    finally:
        mortal.start()
    found = searched_once_it_can_be(index, "SeriesInstanceUID:1.2.*")
    kept = sorted(int(uid.rpartition(".")[2]) for uid in found)
    assert kept == list(range(len(kept)))
    # Each of the batches that were prepared meanwhile would wait as long.
    assert waited_s < 3 * patience_s
    index.close()


class Busy(BaseHTTPRequestHandler):
    """Stands before a real server; refuses some bulk requests, and some items of others."""

    protocol_version = "HTTP/1.1"

    def do_any(self):
        import urllib.error
        import urllib.request

        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        bulk = self.path.startswith("/") and "_bulk" in self.path
        refused = []
        if bulk:
            self.server.bulks += 1
            if self.server.bulks % 3 == 1:
                return self.answer(
                    429 if self.server.bulks % 2 else 503, b'{"error":{"type":"es_rejected"},"status":429}'
                )
            if self.server.bulks % 3 == 2:
                lines = body.split(b"\n")[:-1]
                pairs = list(zip(lines[::2], lines[1::2], strict=True))
                refused = [number for number in range(len(pairs)) if number % 4 == 1]
                kept = [line for number, pair in enumerate(pairs) if number not in refused for line in pair]
                body = b"\n".join(kept) + b"\n"
                self.server.seen += len(kept) // 2
            else:
                self.server.seen += body.count(b"\n") // 2
        request = urllib.request.Request(self.server.behind + self.path, data=body or None, method=self.command)
        for name in ("Content-Type", "Accept"):
            if self.headers.get(name):
                request.add_header(name, self.headers[name])
        try:
            with urllib.request.urlopen(request) as real:
                status, content = real.status, real.read()
        except urllib.error.HTTPError as exc:
            with exc:
                status, content = exc.code, exc.read()
        if refused:
            found = json.loads(content)
            for number in refused:
                item = {"index": {"_id": "", "status": 429, "error": {"type": "es_rejected_execution_exception"}}}
                found["items"].insert(number, item)
            found["errors"] = True
            content = json.dumps(found).encode()
        return self.answer(status, content)

    def answer(self, status, content):
        self.send_response(status)
        self.send_header("X-Elastic-Product", "Elasticsearch")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do_any  # noqa: N815

    def log_message(self, *args):
        pass


def test_only_what_a_busy_server_refused_is_sent_again(elasticsearch_server):
    behind = elasticsearch_server.settings["KAAPANA_ELASTICSEARCH_URLS"]
    with ThreadingHTTPServer(("127.0.0.1", 0), Busy) as server:
        server.behind, server.bulks, server.seen = behind, 0, 0
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            index = opened(elasticsearch_server, urls=(f"http://127.0.0.1:{server.server_port}",))
            index.put({"SeriesInstanceUID": f"1.2.{number}", "Number": number} for number in range(3000))
            assert index.count(All()) == 3000
            assert server.seen == 3000, "each document reached the server once"
            assert server.bulks > 6
            index.close()
        finally:
            server.shutdown()
            thread.join()


def test_documents_before_a_bad_one_are_in(elasticsearch_server):
    index = opened(elasticsearch_server)
    with pytest.raises(InvalidIdentifier):
        index.put([{"SeriesInstanceUID": "1.1"}, {"SeriesInstanceUID": "../x"}])
    assert list(index.series(All())) in ([], ["1.1"])
    index.put([{"SeriesInstanceUID": "1.2"}])
    assert "1.2" in list(index.series(All()))
    index.close()


ODD = {
    "name with a space": {"a b": "x"},
    "empty name": {"": "x", " ": "y", ".": "z", "a..b": "w", ".c": "v"},
    "text where others have numbers": {"Rows": "many"},
    "object where others have text": {"Modality": {"Coded": "CT"}},
    "text where others have an object": {"RequestAttributesSequence": "none"},
    "name of the sub-field": {"Modality.lower-case": "x"},
    "deep": json.loads('{"a":' * 60 + "1" + "}" * 60),
    "no day": {"StudyDate": "2020-02-31"},
    "long text": {"Comments": "long words " * 3000},
    "long word": {"Comments": "w" * 40_000},
    "many values": {"Values": [f"value {number}" for number in range(3000)]},
    "many fields": {f"Field{number}": number for number in range(4000)},
    "wide characters": {"Text": "\U0001f600\U0010ffff" * 300},
}


@pytest.mark.parametrize("fields", [2000, 5])
def test_no_document_is_refused(elasticsearch_server, fields):
    index = opened(elasticsearch_server, fields=fields)
    usual = {"Rows": 512, "Modality": "CT", "RequestAttributesSequence": [{"Step": "A1"}], "StudyDate": "2020-02-01"}
    index.put([{"SeriesInstanceUID": "1.1", **usual}])
    documents = {f"1.2.{number}": document for number, document in enumerate(ODD.values())}
    index.put({"SeriesInstanceUID": uid, **document} for uid, document in documents.items())
    for uid, document in documents.items():
        assert index.get(uid) == {"SeriesInstanceUID": uid, **document}
    assert index.count(All()) == 1 + len(ODD)
    for text in ("Rows:many", "Modality.Coded:CT", "Field3999:3999", "Field3999:[3998 TO 4000]", "exists:Field3999"):
        assert index.count(parse(text)) == 1, text
    assert index.count(parse('Values:"value 999"')) == 1
    index.close()
