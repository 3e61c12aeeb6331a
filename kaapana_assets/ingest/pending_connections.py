"""Connections that have not yet requested an association.

Each costs a socket but no thread, and does not count as an association. One thread reads all of them,
each up to the end of its first PDU.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

MAXIMUM_PENDING = 128

_HEADER_BYTES = 6
_REQUEST = 0x01
# From the fixed fields (PS3.8 table 9-11) to twice the size of 128 contexts with 60 transfer syntaxes.
_REQUEST_BYTES = 68, 1024**2
_ABORT = 0x07
_ABORT_HEADER = b"\x07\x00\x00\x00\x00\x04"
# PS3.8 9.3.8: source service provider; reason unrecognized PDU, unexpected PDU, invalid PDU parameter.
_UNRECOGNIZED, _UNEXPECTED, _INVALID = b"\0\0\2\1", b"\0\0\2\2", b"\0\0\2\6"
# Closing a socket with unread bytes may discard what was sent, so the peer has this time to close first.
_CLOSE_TIMEOUT_S = 0.5
_READ_BYTES = 64 * 1024

_logger = logging.getLogger(__name__)

OnRequest = Callable[[socket.socket, tuple[str, int], bytes], bytes]


@dataclass(eq=False)
class _Pending:
    sock: socket.socket
    address: tuple[str, int]
    deadline: float
    received: bytearray = field(default_factory=bytearray)
    refused: bool = False

    def missing_bytes(self) -> int:
        """The number of bytes missing from the header, or else from the PDU."""
        size = _HEADER_BYTES
        if len(self.received) >= size:
            size += int.from_bytes(self.received[2:6], "big")
        return size - len(self.received)


class PendingConnections:
    """Reads each new connection until it requests an association, closes or times out.

    Args:
        selector: registers the sockets, each with this object as data.
        timeout_s: time for the whole association request.
        on_request: called with socket, address and A-ASSOCIATE-RQ PDU. Returns the PDU that refuses the
            request, or nothing, and then owns the socket.
    """

    def __init__(self, selector: selectors.BaseSelector, *, timeout_s: float, on_request: OnRequest) -> None:
        self._selector, self._timeout_s, self._on_request = selector, timeout_s, on_request
        self._waiting: dict[socket.socket, _Pending] = {}  # the oldest first

    def add(self, sock: socket.socket, address: tuple[str, int]) -> None:
        """Add a new connection; above the limit, close the oldest of the peer that has most."""
        sock.setblocking(False)
        self._waiting[sock] = _Pending(sock, address, time.monotonic() + self._timeout_s)
        self._selector.register(sock, selectors.EVENT_READ, self)
        if len(self._waiting) > MAXIMUM_PENDING:
            self.close_oldest()

    def read(self, sock: socket.socket) -> None:
        """Read the bytes that have arrived on a connection."""
        pending = self._waiting.get(sock)
        if pending is None:  # closed by ``close_oldest`` after the selector reported it
            return
        try:
            size = _READ_BYTES if pending.refused else pending.missing_bytes()
            received = sock.recv(min(size, _READ_BYTES))
        except BlockingIOError:
            return
        except OSError:
            received = b""
        if not received:
            self._close(pending)
        elif not pending.refused:
            pending.received += received
            self._check_pdu(pending)

    def expire(self) -> None:
        """Close the connections that have timed out."""
        now = time.monotonic()
        for pending in [each for each in self._waiting.values() if each.deadline < now]:
            if not pending.refused:
                _logger.warning(
                    "connection from %s closed: it requested no association within %g s "
                    "(KAAPANA_RECEIVER_REQUEST_TIMEOUT_S)",
                    pending.address[0],
                    self._timeout_s,
                )
            self._close(pending)

    def close_oldest(self) -> None:
        """Close the oldest connection of the address with the most connections."""
        counts = Counter(each.address[0] for each in self._waiting.values())
        if counts:
            ((busiest, number),) = counts.most_common(1)
            oldest = next(each for each in self._waiting.values() if each.address[0] == busiest)
            _logger.warning(
                "connection from %s closed: the address has %d of %d connections without a request",
                busiest,
                number,
                len(self._waiting),
            )
            self._close(oldest)

    def close(self) -> None:
        """Close all connections."""
        for pending in list(self._waiting.values()):
            self._close(pending)

    def _check_pdu(self, pending: _Pending) -> None:
        kind, length = pending.received[0], int.from_bytes(pending.received[2:6], "big")
        if kind == _ABORT:
            self._close(pending)
        elif kind != _REQUEST:
            self._refuse(pending, _ABORT_HEADER + (_UNEXPECTED if 0 < kind < _ABORT else _UNRECOGNIZED))
        elif len(pending.received) >= _HEADER_BYTES and not _REQUEST_BYTES[0] <= length <= _REQUEST_BYTES[1]:
            self._refuse(pending, _ABORT_HEADER + _INVALID)
        elif not pending.missing_bytes():
            self._hand_over(pending)

    def _hand_over(self, pending: _Pending) -> None:
        self._selector.unregister(pending.sock)
        del self._waiting[pending.sock]
        refusal = self._on_request(pending.sock, pending.address, bytes(pending.received))
        if refusal:
            self._waiting[pending.sock] = pending
            self._selector.register(pending.sock, selectors.EVENT_READ, self)
            self._refuse(pending, refusal)

    def _refuse(self, pending: _Pending, pdu: bytes) -> None:
        pending.refused = True
        pending.deadline = time.monotonic() + _CLOSE_TIMEOUT_S
        try:
            pending.sock.send(pdu)
            pending.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(pending)

    def _close(self, pending: _Pending) -> None:
        self._selector.unregister(pending.sock)
        del self._waiting[pending.sock]
        with contextlib.suppress(OSError):
            pending.sock.shutdown(socket.SHUT_RDWR)
        pending.sock.close()
