"""A TCP proxy that answers by itself, cuts or delays: what networks and busy servers do."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator

_PIECE = 1 << 16


class Listener:
    """Takes connections on a free port of the loopback interface, each handled in a thread of its own.

    Attributes:
        port: where it listens.
        connections: how many there were.
    """

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.connections = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Listen no more."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._handle, args=(client,), daemon=True).start()

    def _handle(self, client: socket.socket) -> None:
        raise NotImplementedError


class FaultProxy(Listener):
    """Passes connections on to a port of the loopback interface, except for the faults it was told.

    Attributes:
        port: where it listens.
        answers: each next connection gets one of these instead of the server's answer.
        cuts: each next connection is cut after so many bytes from the server.
        delay_s: before each piece is passed on.
        connections: how many there were.
    """

    def __init__(self, target_port: int) -> None:
        self._target = target_port
        self.answers: deque[bytes] = deque()
        self.cuts: deque[int] = deque()
        self.delay_s = 0.0
        super().__init__()

    def _handle(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            if self.answers:
                _answer(client, self.answers.popleft())
                return
            cut = self.cuts.popleft() if self.cuts else None
            with socket.create_connection(("127.0.0.1", self._target)) as server:
                threading.Thread(target=self._pipe, args=(client, server, None), daemon=True).start()
                self._pipe(server, client, cut)

    def _pipe(self, source: socket.socket, target: socket.socket, cut: int | None) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while piece := source.recv(_PIECE):
                time.sleep(self.delay_s)
                if cut is not None and passed + len(piece) > cut:
                    target.sendall(piece[: max(0, cut - passed)])
                    break
                target.sendall(piece)
                passed += len(piece)
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


def _answer(client: socket.socket, answer: bytes) -> None:
    """Take the whole request, so that the client reads the answer, and close."""
    client.settimeout(0.3)
    with contextlib.suppress(TimeoutError):
        while client.recv(_PIECE):
            pass
    client.sendall(answer)


def http_answer(status: int, body: bytes = b"", content_type: str = "text/plain") -> bytes:
    """The bytes of an HTTP answer that closes its connection."""
    fields = [f"Content-Type: {content_type}", f"Content-Length: {len(body)}", "Connection: close"]
    return "\r\n".join([f"HTTP/1.1 {status} Said", *fields, "", ""]).encode() + body


@contextlib.contextmanager
def fault_proxy(target_port: int) -> Iterator[FaultProxy]:
    """A proxy for one test."""
    proxy = FaultProxy(target_port)
    try:
        yield proxy
    finally:
        proxy.close()
