"""Which requests a guarded server obeys, asked over HTTP as browsers, proxies and scripts do."""

import http.client
import json
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager

import pytest
import websocket
from security import asgi
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from kaapana_assets.defs.webserver import graphql_refusal, notebook_refusal
from kaapana_assets.errors import ConfigurationError
from kaapana_assets.settings import load_settings
from kaapana_assets.web_guard import Hosts, WebGuard

PORT = "{port}"
PROXIES = ("pacs.example", "other.example:8443")


async def _answer(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"did {request.url.path}")


async def _greet(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text("hello")
    await socket.close()


def _served(app: object) -> AbstractContextManager[int]:
    return asgi.serving(app, log_level="error", ws="websockets-sansio")


def _application() -> Starlette:
    methods = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"]
    routes = [WebSocketRoute("/graphql", _greet), Route("/{path:path}", _answer, methods=methods)]
    return Starlette(routes=[Mount("/prefix", routes=routes), *routes])


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    guarded = WebGuard(_application(), Hosts("127.0.0.1", PROXIES), rules=(graphql_refusal, notebook_refusal))
    with _served(guarded) as found:
        yield found


def ask(port: int, method: str, path: str, headers: dict[str, str] | list[tuple[str, str]]) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items() if isinstance(headers, dict) else headers:
            connection.putheader(name, value.replace(PORT, str(port)))
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


HERE = {"Host": "127.0.0.1:{port}"}
ORIGIN = {**HERE, "Origin": "http://127.0.0.1:{port}"}
JSON = {"Content-Type": "application/json"}
NAVIGATION = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
GET_MUTATION = "/graphql?query=mutation%7Bx%7D"

OBEYED = {
    "curl": ("GET", "/runs", HERE),
    "curl by name": ("GET", "/runs", {"Host": "LocalHost:{port}"}),
    "curl by IPv6": ("GET", "/runs", {"Host": "[::1]:{port}"}),
    "through a tunnel": ("POST", "/graphql", {"Host": "localhost:9", "Origin": "http://localhost:9", **JSON}),
    "a script's POST": ("POST", "/graphql", {**HERE, **JSON}),
    "with a charset": ("POST", "/graphql", {**HERE, "Content-Type": "Application/JSON; charset=utf-8"}),
    "own page": ("POST", "/graphql", {**ORIGIN, **JSON, "Sec-Fetch-Site": "same-origin"}),
    "typed address": ("GET", "/", {**HERE, **NAVIGATION, "Sec-Fetch-Site": "none"}),
    "a link elsewhere": ("GET", "/runs/1", {**HERE, **NAVIGATION, "Sec-Fetch-Site": "cross-site"}),
    "a query by GET": ("GET", "/graphql?query=%7Bversion%7D", HERE),
    "an asset of that name": ("GET", "/assets/notebook?view=partitions", HERE),
    "a proxy": (
        "POST", "/graphql", {"Host": "pacs.example", "Origin": "https://pacs.example", **JSON},
    ),
    "a proxy with its own Host": ("POST", "/graphql", {**HERE, "Origin": "https://pacs.example", **JSON}),
    "a proxy at a port": ("POST", "/graphql", {**HERE, "Origin": "https://other.example:8443", **JSON}),
    "below a path": ("POST", "/prefix/graphql", {**ORIGIN, **JSON}),
}  # fmt: skip

REFUSED = {
    "rebound name": (403, "GET", "/graphql?query=%7Bversion%7D", {"Host": "evil.example:{port}"}),
    "name with ours in it": (403, "GET", "/", {"Host": "127.0.0.1.evil.example"}),
    "all addresses": (403, "GET", "/", {"Host": "0.0.0.0:{port}"}),
    "port of a proxy": (403, "GET", "/", {"Host": "other.example:8444"}),
    "no Host": (400, "GET", "/", {"Host": ""}),
    "user in Host": (400, "GET", "/", {"Host": "127.0.0.1@evil.example"}),
    "foreign page": (403, "POST", "/graphql", {**HERE, **JSON, "Origin": "http://evil.example"}),
    "foreign page by GET": (403, "GET", "/graphql?query=%7Bversion%7D", {**HERE, "Origin": "http://evil.example"}),
    "page without origin": (403, "POST", "/graphql", {**HERE, **JSON, "Origin": "null"}),
    "page of a file": (403, "POST", "/graphql", {**HERE, **JSON, "Origin": "file://"}),
    "page of an extension": (403, "POST", "/graphql", {**HERE, **JSON, "Origin": "chrome-extension://127.0.0.1:{port}"}),
    "page at another port": (403, "POST", "/graphql", {**HERE, **JSON, "Origin": "http://127.0.0.1:1"}),
    "page at the default port": (403, "POST", "/graphql", {**HERE, **JSON, "Origin": "http://127.0.0.1"}),
    "page of another own name": (403, "POST", "/graphql", {**HERE, **JSON, "Origin": "http://localhost:{port}"}),
    "proxy at another port": (403, "POST", "/graphql", {**HERE, **JSON, "Origin": "https://pacs.example:81"}),
    "image": (403, "GET", "/logs/x", {**HERE, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}),
    "image of this site": (403, "GET", "/logs/x", {**HERE, "Sec-Fetch-Site": "same-site"}),
    "frame": (
        403, "GET", "/",
        {**HERE, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
    ),
    "form": (403, "POST", "/graphql", {**HERE, **JSON, **NAVIGATION, "Sec-Fetch-Site": "cross-site"}),
    "text": (415, "POST", "/graphql?query=mutation%7Bx%7D", {**HERE, "Content-Type": "text/plain"}),
    "text that names JSON": (415, "POST", "/graphql", {**HERE, "Content-Type": "text/plain; application/json"}),
    "form's fields": (415, "POST", "/graphql", {**HERE, "Content-Type": "application/x-www-form-urlencoded"}),
    "files": (415, "POST", "/graphql", {**HERE, "Content-Type": "multipart/form-data; boundary=application/json"}),
    "no type": (415, "POST", "/report_asset_materialization/x", HERE),
    "mutation by GET": (405, "GET", GET_MUTATION, HERE),
    "mutation by a link": (405, "GET", GET_MUTATION, {**HERE, **NAVIGATION, "Sec-Fetch-Site": "cross-site"}),
    "mutation below a path": (405, "GET", f"/prefix{GET_MUTATION}", HERE),
    "mutation at a slash": (405, "GET", "/graphql/?query=mutation%7Bx%7D", HERE),
    "mutation at a line's end": (405, "GET", "/graphql%0A?query=mutation%7Bx%7D", HERE),
    "mutation beside a query": (405, "GET", "/graphql?query=query+a%7Bx%7D+mutation+b%7Bx%7D&operationName=b", HERE),
    "mutation given twice": (405, "GET", "/graphql?query=%7Bx%7D&query=mutation%7Bx%7D", HERE),
    "subscription by GET": (405, "GET", "/graphql?query=subscription%7Bx%7D", HERE),
    "notebook by a link": (403, "GET", "/notebook?path=%2Fx.ipynb&repoLocName=a", {**HERE, **NAVIGATION}),
    "notebook by its old address": (403, "GET", "/dagit/notebook%0A?path=%2Fx.ipynb&repo%4cocName=a", HERE),
    "notebook below a path": (403, "GET", "/prefix/notebook?repoLocName=&path=%2Fx.ipynb", HERE),
    "no GraphQL": (400, "GET", "/graphql?query=%7B", HERE),
    "nested without end": (400, "GET", "/graphql?query=" + "%7Ba" * 5000, HERE),
    "other methods": (405, "PUT", "/x", {**HERE, **JSON}),
    "asked for permission": (
        403, "OPTIONS", "/graphql",
        {**HERE, "Origin": "http://evil.example", "Access-Control-Request-Method": "POST"},
    ),
    "Origin twice": (400, "POST", "/graphql", [*ORIGIN.items(), *JSON.items(), ("Origin", "http://evil.example")]),
    "Host twice": (400, "GET", "/", [("Host", "evil.example"), *HERE.items()]),
}  # fmt: skip


@pytest.mark.parametrize(("method", "path", "headers"), OBEYED.values(), ids=OBEYED)
def test_what_belongs_to_the_server_is_obeyed(port, method, path, headers):
    status, said = ask(port, method, path, headers)
    assert (status, said) == (200, f"did {path.partition('?')[0]}")


@pytest.mark.parametrize(("status", "method", "path", "headers"), REFUSED.values(), ids=REFUSED)
def test_what_a_page_of_another_site_can_send_is_refused(port, status, method, path, headers):
    answered, said = ask(port, method, path, headers)
    assert (answered, "did " in said) == (status, False), said


def test_a_refusal_says_which_setting_lets_a_proxy_in(port):
    for headers in ({"Host": "mine.example"}, {**HERE, "Origin": "https://mine.example"}):
        _, said = ask(port, "GET", "/", headers)
        assert "mine.example" in said
        assert "KAAPANA_ALLOWED_HOSTS" in said


SOCKETS = {
    "own page": ({"origin": "http://127.0.0.1:{port}"}, True),
    "own page below a proxy": ({"origin": "https://pacs.example"}, True),
    "foreign page": ({"origin": "http://evil.example"}, False),
    "page at another port": ({"origin": "http://127.0.0.1:1"}, False),
    "no page": ({"suppress_origin": True}, False),
    "rebound name": ({"origin": "http://evil.example:{port}", "host": "evil.example:{port}"}, False),
}


@pytest.mark.parametrize(("given", "is_opened"), SOCKETS.values(), ids=SOCKETS)
def test_only_pages_of_the_server_open_web_sockets(port, given, is_opened):
    given = {name: value.format(port=port) if isinstance(value, str) else value for name, value in given.items()}
    if not is_opened:
        with pytest.raises(websocket.WebSocketBadStatusException, match="403"):
            websocket.create_connection(f"ws://127.0.0.1:{port}/graphql", timeout=10, **given)
        return
    opened = websocket.create_connection(f"ws://127.0.0.1:{port}/graphql", timeout=10, **given)
    assert opened.recv() == "hello"
    opened.close()


def test_no_page_may_frame_or_include_what_is_answered(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/")
    answer = connection.getresponse()
    answer.read()
    connection.close()
    assert answer.headers["X-Frame-Options"] == "SAMEORIGIN"
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert answer.headers["Access-Control-Allow-Origin"] is None


def test_the_checks_take_less_than_a_millisecond():
    guard = WebGuard(_application(), Hosts("127.0.0.1", PROXIES), rules=(graphql_refusal, notebook_refusal))
    headers = [(name.lower().encode(), value.encode()) for name, value in {**ORIGIN, **JSON}.items()]
    headers = [(name, value.replace(b"{port}", b"3000")) for name, value in headers]
    scope = {"type": "http", "method": "POST", "path": "/graphql", "query_string": b"", "headers": headers}
    began = time.perf_counter()
    for _ in range(1000):
        assert [rule(scope) for rule in guard._rules] == [None, None, None]
    assert (time.perf_counter() - began) / 1000 < 0.001


@pytest.mark.parametrize("names", ["*", "http://pacs.example", "pacs.example/x", "a@b", "pacs.example:99999", "a b"])
def test_allowed_hosts_are_hosts(monkeypatch, tmp_path, names):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KAAPANA_ALLOWED_HOSTS", f"good.example, {names}")
    with pytest.raises(ConfigurationError, match=r"KAAPANA_ALLOWED_HOSTS.*host:port"):
        load_settings()


def test_json_is_what_the_answer_of_a_refusal_is_not(port):
    """A page that includes it as a script gets nothing that it can read."""
    _, said = ask(port, "GET", "/graphql?query=%7Bversion%7D", {"Host": "evil.example"})
    with pytest.raises(json.JSONDecodeError):
        json.loads(said)
