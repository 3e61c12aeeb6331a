"""Requests as no browser and no library sends them: bytes on a socket, each of which must change nothing."""

import base64
import os
import socket
from collections.abc import Callable

Request = Callable[[int, bytes, str], bytes]
"""Of a port, the body of a mutation as JSON, and the same as parameters of an address."""

JSON = "Content-Type: application/json"
EVIL = "Host: evil.example"
_WAIT_S = 5


def answers(port: int, request: bytes, *, wait_s: float = _WAIT_S) -> bytes:
    """All that a server answers to the bytes, until it closes the connection."""
    found = b""
    with socket.create_connection(("127.0.0.1", port), timeout=wait_s) as connection:
        try:
            connection.sendall(request)
            while piece := connection.recv(1 << 16):
                found += piece
        except (TimeoutError, ConnectionError):
            pass
    return found


def request(line: str, *headers: str, body: bytes = b"") -> bytes:
    return "\r\n".join((line, *headers, "", "")).encode("latin-1") + body


def _posts(*headers: str, kind: str = JSON, target: str = "/graphql", host: str | None = "") -> Request:
    def made(port: int, body: bytes, _: str) -> bytes:
        here = f"127.0.0.1:{port}"
        first = [] if host is None else [host or f"Host: {here}"]
        lines = [line.replace("HERE", here) for line in (*first, kind, *headers)]
        ends = (f"Content-Length: {len(body)}", "Connection: close")
        return request(f"POST {target.replace('HERE', here)} HTTP/1.1", *lines, *ends, body=body)

    return made


def _gets(target: str, *headers: str, method: str = "GET") -> Request:
    def made(port: int, body: bytes, parameters: str) -> bytes:
        here = f"127.0.0.1:{port}"
        line = f"{method} {target.replace('HERE', here)}?{parameters} HTTP/1.1"
        ends = (f"Content-Length: {len(body)}", "Connection: close")
        return request(line, f"Host: {here}", *(each.replace("HERE", here) for each in headers), *ends, body=body)

    return made


def _inside(*headers: str, prefix: bytes = b"0\r\n\r\n", length: str = "", ends: str = "\r\n") -> Request:
    """A request that is refused, with a whole one where its body may be."""

    def made(port: int, body: bytes, _: str) -> bytes:
        inner = prefix + _posts()(port, body, "")
        size = [f"Content-Length: {length or len(inner)}"] if length != "none" else []
        outer = request("POST /graphql HTTP/1.1", EVIL, JSON, *headers, *size)
        return outer.replace(b"\r\n", ends.encode()) + inner

    return made


def _upgrades(*headers: str) -> Request:
    def made(port: int, body: bytes, _: str) -> bytes:
        here = f"127.0.0.1:{port}"
        key = base64.b64encode(os.urandom(16)).decode()
        ours = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}")
        given = (each.replace("HERE", here) for each in headers)
        return request("GET /graphql HTTP/1.1", f"Host: {here}", *ours, "Sec-WebSocket-Protocol: graphql-ws", *given)

    return made


_MULTIPART = "Content-Type: multipart/form-data; boundary=b"

ATTACKS: dict[str, Request] = {
    "host twice": _posts(EVIL),
    "hosts in one header": _posts(host="Host: HERE, evil.example"),
    "host of a page with ours behind a tab": _posts(host="Host: evil.example\tHERE"),
    "host on two lines": _posts(host="Host: evil.example\r\n HERE"),
    "host with a dot at its end": _posts(host="Host: localhost."),
    "host in other letters": _posts(host="Host: \xe2\x93\x9docalhost"),
    "host with a zone": _posts(host="Host: [::1%lo]"),
    "host as IPv4 in IPv6": _posts(host="Host: [::ffff:127.0.0.1]"),
    "host as a number": _posts(host="Host: 2130706433"),
    "host of a proxy's header": _posts("X-Forwarded-Host: HERE", "Forwarded: host=HERE", host=EVIL),
    "host in the target only": _posts(target="http://HERE/graphql", host=None),
    "host in the target, another in the header": _posts(target="http://HERE/graphql", host=EVIL),
    "origin twice, ours first": _posts("Origin: http://HERE", "Origin: http://evil.example"),
    "origins in one header": _posts("Origin: http://HERE http://evil.example"),
    "origin of nobody": _posts("Origin: null"),
    "origin that is empty": _posts("Origin: "),
    "origin with ours as its user": _posts("Origin: http://HERE@evil.example"),
    "origin with ours as its beginning": _posts("Origin: http://HERE.evil.example"),
    "origin with a path": _posts("Origin: http://HERE/"),
    "origin in odd capitals": _posts("oRiGiN: http://evil.example"),
    "target of a page": _posts("Origin: http://evil.example", target="http://HERE/graphql"),
    "upload of files": _posts(kind=_MULTIPART),
    "type twice": _posts("Content-Type: text/plain"),
    "types in one header": _posts(kind="Content-Type: text/plain, application/json"),
    "type of a beacon": _posts(kind="Content-Type: application/csp-report"),
    "type that begins like JSON": _posts(kind="Content-Type: application/jsonp"),
    "type of GraphQL": _posts(kind="Content-Type: application/graphql"),
    "path with two slashes": _gets("//graphql"),
    "path in hexadecimal": _gets("/%67raphql"),
    "path with dots": _gets("/x/../graphql"),
    "path with a zero byte": _gets("/graphql%00"),
    "target with a host": _gets("http://HERE/graphql"),
    "method by a header": _gets("/graphql", "X-HTTP-Method-Override: POST", JSON),
    "method TRACE": _gets("/graphql", JSON, method="TRACE"),
    "method OPTIONS": _gets("/graphql", JSON, method="OPTIONS"),
    "method in small letters": _gets("/graphql", JSON, method="post"),
    "HTTP/1.0 without a host": lambda _, __, parameters: f"GET /graphql?{parameters} HTTP/1.0\r\n\r\n".encode(),
    "HTTP/0.9": lambda _, __, parameters: f"GET /graphql?{parameters}\r\n\r\n".encode(),
    "length and chunks": _inside("Transfer-Encoding: chunked"),
    "chunks and a short length": _inside("Transfer-Encoding: chunked", length="4"),
    "two lengths": _inside("Content-Length: 0"),
    "chunks of another name": _inside("Transfer-Encoding: xchunked", length="none"),
    "request in a body": _inside(prefix=b""),
    "request behind a refused one": _inside(prefix=b"", length="0"),
    "request behind line feeds alone": _inside(prefix=b"", length="0", ends="\n"),
    "WebSocket of two pages": _upgrades("Origin: http://HERE", "Origin: http://evil.example"),
    "WebSocket of nobody": _upgrades("Origin: null"),
    "WebSocket of a page with ours in its name": _upgrades("Origin: http://HERE.evil.example"),
    "WebSocket of another scheme": _upgrades("Origin: ws://HERE"),
}  # fmt: skip
