"""Refuses requests that a page of another site sends to a web server of the platform.

A browser sends the requests of any page to any address that it can reach, including this machine's own, and a page
can make its own name resolve to such an address (DNS rebinding). The servers of the platform have no login to stop
this, so they refuse

=============================== =====================================================================
a Host that is not theirs       theirs: names of this machine, the listening address, and the settings
an Origin that is not theirs    theirs: the same host and port as Host, or one that a setting names
Sec-Fetch-Site of another site  except when the user follows a link to this server
a POST that is not JSON         forms, and pages without permission, can send such a POST
a WebSocket without Origin      every browser sends Origin
methods besides GET, HEAD, POST
=============================== =====================================================================

Clients that are not browsers (``curl``, scripts) send no Origin and are served. Nothing here knows Dagster.

References:
    RFC 6454 section 7 (Origin); W3C Fetch Metadata Request Headers; Fetch, CORS-safelisted
    request-header (the content types of a form).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kaapana_assets.addresses import authority, bracketed
from kaapana_assets.shown import shown

logger = logging.getLogger(__name__)

_THIS_MACHINE = ("localhost", "127.0.0.1", "[::1]")
_READ = frozenset({b"host", b"origin", b"content-type", b"sec-fetch-site", b"sec-fetch-mode", b"sec-fetch-dest"})
_DEFAULT_PORTS = {"http": 80, "https": 443}
_METHODS = frozenset({"GET", "HEAD", "POST"})
_REFUSALS_LOGGED = 20
_SHOWN = 100
# For browsers that send no Sec-Fetch-Site: pages of other sites may not frame it, load it or keep its window.
_HEADERS = (
    (b"x-frame-options", b"SAMEORIGIN"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)


@dataclass(frozen=True)
class HttpRefusal:
    """Why a request is refused, and what its sender can do."""

    status: int
    reason: str


Rule = Callable[[Scope], HttpRefusal | None]


class Hosts:
    """The names by which a server may be reached.

    Args:
        listening: the address on which it listens.
        allowed: further names, such as a proxy's, as ``host`` or ``host:port``.
    """

    def __init__(self, listening: str, allowed: Iterable[str] = ()) -> None:
        self._allowed = frozenset(authority(name) for name in allowed)
        self._own = frozenset(authority(name) for name in (*_THIS_MACHINE, bracketed(listening)))

    def is_host(self, host: str, port: int | None) -> bool:
        """Whether a Host header names this server; ``port`` None is the default port of the scheme."""
        names = self._own | self._allowed
        return (host, None) in names or (host, port) in names

    def is_origin(self, origin: str, host: tuple[str, int | None]) -> bool:
        """Whether a page of ``origin`` may send requests to ``host``."""
        scheme, _, rest = origin.partition("://")
        default = _DEFAULT_PORTS.get(scheme.lower())
        if default is None:
            return False
        try:
            name, given = authority(rest)
        except ValueError:
            return False
        port = given or default
        same = (name, port) == (host[0], host[1] or default)
        # A proxy may have replaced Host by its own; the settings have the name that the browser used.
        return same or (name, port) in {(each, number or default) for each, number in self._allowed}


class WebGuard:
    """An ASGI application that refuses forbidden requests and passes all others on to ``app``.

    Args:
        app: the server's application.
        hosts: the names of the server.
        rules: further rules of this server, applied after those of this module.
    """

    def __init__(self, app: ASGIApp, hosts: Hosts, *, rules: Sequence[Rule] = ()) -> None:
        self._app = app
        self._rules: Sequence[Rule] = (lambda scope: refusal(scope, hosts), *rules)
        self._logged: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        kind = scope["type"]
        if kind not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refused = next((found for rule in self._rules if (found := rule(scope)) is not None), None)
        if refused is not None:
            self._log(refused)
            await _refuse(kind, refused, send)
        elif kind == "websocket":
            await self._app(scope, receive, send)
        else:
            await self._app(scope, receive, _with_headers(send))

    def _log(self, refused: HttpRefusal) -> None:
        # A page can send thousands of requests a second: each reason is logged once, up to a limit.
        if refused.reason not in self._logged and len(self._logged) < _REFUSALS_LOGGED:
            self._logged.add(refused.reason)
            logger.warning("a request was refused: %s", refused.reason)


def refusal(scope: Scope, hosts: Hosts) -> HttpRefusal | None:
    """Return why the request is refused; None if it is allowed.

    Args:
        scope: the ASGI scope of an ``http`` or ``websocket`` connection.
        hosts: the names of the server.
    """
    headers: dict[bytes, str] = {}
    for name, value in scope["headers"]:
        if name in _READ:
            if name in headers:
                return HttpRefusal(400, f"the header {name.decode()} was sent twice: send it once")
            headers[name] = value.decode("latin-1")
    method = scope.get("method", "GET")
    try:
        host = authority(headers.get(b"host", ""))
    except ValueError:
        return HttpRefusal(400, "the header Host is missing, or is not host:port")
    if not hosts.is_host(*host):
        return HttpRefusal(
            403,
            f"{_shown(headers[b'host'])} is not a name of this server: set KAAPANA_ALLOWED_HOSTS to it if it should "
            "be reached by that name",
        )
    return (
        _refused_page(scope["type"], method, headers, host, hosts)
        or _refused_method(method)
        or _refused_content(method, headers)
    )


def _refused_page(
    kind: str, method: str, headers: dict[bytes, str], host: tuple[str, int | None], hosts: Hosts
) -> HttpRefusal | None:
    origin = headers.get(b"origin")
    if origin is None and kind == "websocket":
        return HttpRefusal(403, "a WebSocket needs the header Origin, with the address of this server")
    if origin is not None and not hosts.is_origin(origin, host):
        return HttpRefusal(
            403,
            f"a page of {_shown(origin)} may not send requests to {_shown(headers[b'host'])}: if that page is this "
            "server's own behind a proxy, set KAAPANA_ALLOWED_HOSTS to the proxy's host (and :port)",
        )
    site = headers.get(b"sec-fetch-site", "none")
    follows_link = (
        kind == "http"
        and method == "GET"
        and headers.get(b"sec-fetch-mode") == "navigate"
        and headers.get(b"sec-fetch-dest") == "document"
    )
    if site not in ("none", "same-origin") and not follows_link:
        return HttpRefusal(403, f"pages of other sites may not send requests to {_shown(headers[b'host'])}")
    return None


def _refused_method(method: str) -> HttpRefusal | None:
    return None if method in _METHODS else HttpRefusal(405, f"{_shown(method)} is not GET, HEAD or POST")


def _refused_content(method: str, headers: dict[bytes, str]) -> HttpRefusal | None:
    # Only the media type counts: a page may send "text/plain; application/json" without a preflight request.
    kind = headers.get(b"content-type", "").partition(";")[0].strip().lower()
    if method == "POST" and kind != "application/json":
        return HttpRefusal(415, "a POST needs the header Content-Type: application/json, also without a body")
    return None


async def _refuse(kind: str, refused: HttpRefusal, send: Send) -> None:
    if kind == "websocket":
        # Closed before it is accepted, so the server answers with 403.
        await send({"type": "websocket.close", "code": 1008, "reason": "refused"})
        return
    body = f"refused: {refused.reason}\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"cache-control", b"no-store"),
        (b"connection", b"close"),
        *_HEADERS,
    ]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _with_headers(send: Send) -> Send:
    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *_HEADERS]
        await send(message)

    return with_headers


def _shown(text: str) -> str:
    return shown(text[:_SHOWN])
