"""A TLS door in front of a server that has none, with a certificate of its own authority."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.proxy import Listener

_PIECE = 1 << 16


class TlsDoor(Listener):
    """Passes decrypted bytes on to a port of the loopback interface.

    Attributes:
        port: where it listens.
        ca: file of the certificate that clients must trust.
        heard: the first bytes of each connection, decrypted.
    """

    def __init__(self, target_port: int, folder: Path) -> None:
        self._target = target_port
        self.ca = folder / "ca.pem"
        key = folder / "key.pem"
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"]
        command += ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-keyout", str(key), "-out", str(self.ca)]
        subprocess.run(command, check=True, capture_output=True)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(self.ca, key)
        self.heard: list[bytes] = []
        super().__init__()

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate, hexadecimal."""
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(self.ca.read_text())).hexdigest()

    def _handle(self, plain: socket.socket) -> None:
        with plain, contextlib.suppress(OSError), self._context.wrap_socket(plain, server_side=True) as client:
            first = client.recv(_PIECE)
            self.heard.append(first)
            with socket.create_connection(("127.0.0.1", self._target)) as server:
                server.sendall(first)
                threading.Thread(target=_pipe, args=(server, client), daemon=True).start()
                _pipe(client, server)


def _pipe(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(_PIECE):
            target.sendall(piece)
    for each in (source, target):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def tls_door(target_port: int, folder: Path) -> Iterator[TlsDoor]:
    """A door for one test."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the program openssl, which makes a certificate")
    door = TlsDoor(target_port, folder)
    try:
        yield door
    finally:
        door.close()
