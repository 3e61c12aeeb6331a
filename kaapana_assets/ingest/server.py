"""Listens for connections and limits the number of associations.

Only a connection that requests an association counts, and no address can use up the limit.
"""

from __future__ import annotations

import gc
import logging
import selectors
import socket
import threading
import time
from collections import Counter
from typing import cast

from pynetdicom import AE

from kaapana_assets.ingest.acceptor import AcceptedAssociation, ServiceProvider
from kaapana_assets.ingest.connection import Timeouts
from kaapana_assets.ingest.dimse_commands import Command
from kaapana_assets.ingest.dimse_messages import AcceptedContext, DimseRequest
from kaapana_assets.ingest.pending_connections import PendingConnections
from kaapana_assets.ingest.received_dataset import ReceivedDataset
from kaapana_assets.settings import Settings

_POLL_S = 0.1
_BACKLOG = 128
_ENDED_UNTIL_COLLECTION = 50
# PS3.8 9.3.4: rejected for now, by the service provider (presentation), local limit exceeded.
_LOCAL_LIMIT_EXCEEDED = b"\x03\x00\x00\x00\x00\x04\x00\x02\x03\x02"
_CALLING_TITLE = slice(26, 42)

_logger = logging.getLogger(__name__)


class AssociationServer:
    """Accepts connections and associations in its own thread, from ``start`` to ``stop``.

    Args:
        ae: AE title, presentation contexts and allowed calling AE titles.
        settings: address and limits.
        provider: serves the requests of associations.

    Raises:
        OSError: it cannot listen on the address.
    """

    def __init__(self, ae: AE, settings: Settings, provider: ServiceProvider) -> None:
        self._ae, self._settings, self._provider = ae, settings, provider
        self._timeouts = Timeouts(
            stall_s=settings.receiver_stall_timeout_s,
            pdu_s=settings.receiver_pdu_timeout_s,
            idle_s=settings.receiver_idle_timeout_s,
        )
        self._lock = threading.Lock()
        self._associations: dict[AcceptedAssociation, str] = {}
        self._ended = 0
        self._stopping = threading.Event()
        self._listener = _listen(settings.receiver_host, settings.receiver_port)
        self._thread = threading.Thread(target=self._serve, name="receiver", daemon=True)

    @property
    def address(self) -> tuple[str, int]:
        """The host and port on which it listens."""
        host, port = self._listener.getsockname()[:2]
        return host, port

    @property
    def associations(self) -> list[AcceptedAssociation]:
        """The associations that have not ended."""
        with self._lock:
            return list(self._associations)

    def start(self) -> None:
        """Start to accept connections."""
        self._thread.start()

    def stop(self) -> None:
        """Accept no more connections; associations continue."""
        self._stopping.set()
        self._thread.join()

    def new_dataset(self, command: Command, context: AcceptedContext) -> ReceivedDataset | None:
        """Pass on to the provider."""
        return self._provider.new_dataset(command, context)

    def answer(self, assoc: AcceptedAssociation, request: DimseRequest) -> int:
        """Pass on to the provider."""
        return self._provider.answer(assoc, request)

    def ended(self, assoc: AcceptedAssociation) -> None:
        """Pass on to the provider; the association no longer counts towards the limit."""
        self._provider.ended(assoc)
        with self._lock:
            self._associations.pop(assoc, None)
            self._ended += 1

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector, self._listener:
            pending = PendingConnections(
                selector, timeout_s=self._settings.receiver_request_timeout_s, on_request=self._requested
            )
            selector.register(self._listener, selectors.EVENT_READ)
            while not self._stopping.is_set():
                for key, _ in selector.select(_POLL_S):
                    if key.fileobj is self._listener:
                        self._accept(pending)
                    else:
                        pending.read(cast("socket.socket", key.fileobj))
                pending.expire()
                self._collect()
            pending.close()

    def _accept(self, pending: PendingConnections) -> None:
        try:
            sock, address = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as exc:
            _logger.error("a connection cannot be accepted: %s", exc.strerror)
            pending.close_oldest()
            time.sleep(_POLL_S)
            return
        pending.add(sock, address[:2])

    def _requested(self, sock: socket.socket, address: tuple[str, int], request: bytes) -> bytes:
        refusal = self._refusal(address[0])
        if refusal:
            title = request[_CALLING_TITLE].decode("ascii", "replace").strip()
            _logger.warning("association of %r at %s rejected: %s", title, address[0], refusal)
            return _LOCAL_LIMIT_EXCEEDED
        try:
            self._begin(sock, address, request)
        except (OSError, RuntimeError) as exc:  # no file descriptors or threads left
            _logger.error("association from %s lost: %s", address[0], exc)
            sock.close()
        return b""

    def _begin(self, sock: socket.socket, address: tuple[str, int], request: bytes) -> None:
        assoc = AcceptedAssociation(
            self._ae, sock, address=address, request=request, timeouts=self._timeouts, provider=self
        )
        with self._lock:
            self._associations[assoc] = address[0]
        try:
            assoc.start()
        except RuntimeError:
            assoc.release_resources()
            raise

    def _refusal(self, host: str) -> str:
        settings = self._settings
        with self._lock:
            open_counts = Counter(self._associations.values())
        if open_counts.total() >= settings.receiver_max_associations:
            return f"{open_counts.total()} are open already (KAAPANA_RECEIVER_MAX_ASSOCIATIONS)"
        if open_counts[host] >= settings.receiver_share:
            return (
                f"{open_counts[host]} of this address are open already (KAAPANA_RECEIVER_MAX_ASSOCIATIONS_PER_ADDRESS)"
            )
        return ""

    def _collect(self) -> None:
        """Free the memory of ended associations, which contain reference cycles."""
        with self._lock:
            due = self._ended >= _ENDED_UNTIL_COLLECTION
            if due:
                self._ended = 0
        if due:
            gc.collect()


def _listen(host: str, port: int) -> socket.socket:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)  # IPv4 first
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock
