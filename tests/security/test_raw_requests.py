"""What is sent to a guarded server by raw sockets: every request of ``raw_requests``, and many slow ones."""

import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack

import pytest
import requests
from security import asgi
from security.raw_requests import ATTACKS, JSON, answers, request

from kaapana_assets.defs.webserver import graphql_refusal
from kaapana_assets.health.findings import HealthReport
from kaapana_assets.health.server import application
from kaapana_assets.web_guard import Hosts, WebGuard

SLOW = 300
MUTATION = b'{"query": "mutation{x}"}'
PARAMETERS = "query=mutation%7Bx%7D"


class Obeyed:
    """An application that does whatever gets to it, as Dagster's webserver does, and notes it."""

    def __init__(self) -> None:
        self.requests: list[str] = []

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] == "lifespan":
            return
        self.requests.append(f"{scope['type']} {scope['path']}")
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]})
        await send({"type": "http.response.body", "body": b"did"})


def serving(app) -> AbstractContextManager[int]:
    """With what uvicorn chooses by itself, as the platform's servers do."""
    return asgi.serving(app, log_level="critical", lifespan="off")


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[int, Obeyed]]:
    app = Obeyed()
    with serving(WebGuard(app, Hosts("127.0.0.1"), rules=(graphql_refusal,))) as port:
        yield port, app


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_no_raw_request_is_obeyed(server, attack):
    port, app = server
    said = answers(port, attack(port, MUTATION, PARAMETERS))
    assert app.requests == []
    assert said.split()[1] in (b"400", b"403", b"405", b"415"), said[:200]
    assert said.count(b"HTTP/1.1 ") == 1, "what was in the body, or behind it, got an answer of its own"


def test_what_the_table_sends_is_obeyed_where_nothing_is_wrong_with_it(server):
    """Else all of it would be refused for another reason."""
    port, app = server
    good = request("POST /graphql HTTP/1.1", f"Host: 127.0.0.1:{port}", JSON, "Content-Length: 0", "Connection: close")
    try:
        assert answers(port, good).endswith(b"did")
        assert app.requests == ["http /graphql"]
    finally:
        app.requests.clear()


def test_slow_clients_keep_nobody_from_the_health_page():
    def report() -> HealthReport:
        raise AssertionError("nobody asked for the whole page")

    with serving(WebGuard(application(report), Hosts("127.0.0.1"))) as port, ExitStack() as stack:
        for number in range(SLOW):
            slow = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
            slow.sendall(b"GET /live HTTP/1.1\r\nHost: 127.0" if number % 2 else b"POST /live HTTP/1.1\r\n")
        assert requests.get(f"http://127.0.0.1:{port}/live", timeout=5).text == "alive\n"
