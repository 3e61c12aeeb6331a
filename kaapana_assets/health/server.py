"""Serves the health page over HTTP.

=============== ============================================================
``/``           the page; status 503 if a component is broken
``/health.json`` the same as JSON, with the same status
``/live``       200 while this process runs
=============== ============================================================
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from kaapana_assets.errors import ConfigurationError
from kaapana_assets.health.findings import HealthReport
from kaapana_assets.health.page import CONTENT_SECURITY_POLICY, page
from kaapana_assets.web_guard import Hosts, WebGuard

MAX_AGE_S = 5.0
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class CachedReport:
    """Shares a report among many requests, and renews it only when it is older than ``max_age_s``.

    Args:
        make: makes a report; it is never called concurrently.
        max_age_s: age up to which a report is reused.
    """

    def __init__(self, make: Callable[[], HealthReport], *, max_age_s: float = MAX_AGE_S) -> None:
        self._make = make
        self._max_age_s = max_age_s
        self._lock = threading.Lock()
        self._report: HealthReport | None = None
        self._made = 0.0

    def __call__(self) -> HealthReport:
        """A report that is at most ``max_age_s`` old."""
        with self._lock:
            if self._report is None or time.monotonic() - self._made > self._max_age_s:
                self._report = self._make()
                self._made = time.monotonic()
            return self._report


def application(report: Callable[[], HealthReport]) -> Starlette:
    """The ASGI application with the three paths."""

    def html(_: Request) -> Response:
        now = report()
        return HTMLResponse(page(now), status_code=_status(now), headers=_HEADERS)

    def as_json(_: Request) -> Response:
        now = report()
        return JSONResponse(now.as_json(), status_code=_status(now), headers=_HEADERS)

    # A coroutine needs no thread: it answers even if all threads wait for a report.
    async def live(_: Request) -> Response:
        return PlainTextResponse("alive\n", headers=_HEADERS)

    return Starlette(routes=[Route("/", html), Route("/health.json", as_json), Route("/live", live)])


def serve(
    report: Callable[[], HealthReport],
    *,
    host: str,
    port: int,
    on_ready: Callable[[int], None],
    allowed_hosts: Sequence[str] = (),
) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Args:
        report: returns the report; called by several threads.
        host: address to listen on.
        port: port to listen on; 0 chooses a free one.
        on_ready: called with the port once the server accepts connections.
        allowed_hosts: host names of requests that are served, besides those of this machine; see ``web_guard``.

    Raises:
        ConfigurationError: the server cannot listen on the address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
        except OSError as exc:
            raise ConfigurationError(
                f"the health page cannot listen on {host}:{port} ({exc.strerror}): set KAAPANA_HEALTH_PORT to another "
                "port, or to 0 for a free one"
            ) from exc
        listening.listen()
        on_ready(int(listening.getsockname()[1]))
        app = WebGuard(application(report), Hosts(host, allowed_hosts))
        config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=1)
        uvicorn.Server(config).run(sockets=[listening])


def _status(report: HealthReport) -> int:
    return 200 if report.ok else 503
