"""The connection of an association, with timeouts; pynetdicom's own connection trusts the peer.

pynetdicom 3 blocks in a read or write for as long as the peer wants, reads 4 KiB at a time, and polls
the socket every millisecond.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import struct
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pynetdicom.transport import AssociationSocket

if TYPE_CHECKING:
    from kaapana_assets.ingest.acceptor import AcceptedAssociation

MAXIMUM_PDU_BYTES = 128 * 1024

# A peer that announces a longer PDU does not speak DICOM: the receiver offers MAXIMUM_PDU_BYTES.
_REFUSED_PDU_BYTES = 16 * 1024**2
_RESERVED_BYTES = 256 * 1024
_HEADER_BYTES = 6
_P_DATA, _RELEASE_RQ, _ABORT = 0x04, 0x05, 0x07
_WAIT_S = 0.1
_CLOSE_TIMEOUT_S = 0.5
# A pulled cable is noticed after 15 + 3 * 5 seconds.
_KEEPALIVE = (socket.TCP_KEEPIDLE, 15), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3)

# Events of pynetdicom's state machine (PS3.8 table 9-10).
CLOSED, INVALID_PDU = "Evt17", "Evt19"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Timeouts:
    """Limits for the peer, in seconds.

    Attributes:
        stall_s: between two bytes of a PDU, or until the peer reads a byte of a response.
        pdu_s: for a PDU, and for each ``MAXIMUM_PDU_BYTES`` of a message.
        idle_s: between two PDUs.
    """

    stall_s: float
    pdu_s: float
    idle_s: float


class Waker:
    """Wakes a thread that polls sockets."""

    def __init__(self) -> None:
        self.reader, self._writer = socket.socketpair()
        self.reader.setblocking(False)
        self._writer.setblocking(False)
        self._lock = threading.Lock()

    def wake(self) -> None:
        """Wake the thread."""
        with self._lock, contextlib.suppress(OSError):  # closed, or so full that the thread wakes anyway
            self._writer.send(b"\0")

    def clear(self) -> None:
        """Reset, once the thread is awake."""
        with contextlib.suppress(OSError):
            self.reader.recv(1024)

    def close(self) -> None:
        """Close both ends."""
        with self._lock:
            self._writer.close()
            self.reader.close()


class _Pdu:
    """A PDU that is being read."""

    def __init__(self, header: bytes = b"", body: bytes = b"") -> None:
        self.header, self.body = bytearray(header), bytearray(body)
        self.size = self._filled = len(body)

    @property
    def whole(self) -> bool:
        """Whether the PDU is complete."""
        return self._filled == self.size > 0

    def receive(self, sock: socket.socket) -> int:
        """Read into the header or the body; returns the number of bytes, 0 at the end of the connection."""
        if len(self.header) < _HEADER_BYTES:
            received = sock.recv(_HEADER_BYTES - len(self.header))
            self.header += received
            return len(received)
        if self._filled == len(self.body):
            self.body += bytes(min(self.size - self._filled, _RESERVED_BYTES))
        with memoryview(self.body) as body, body[self._filled :] as rest:
            size = sock.recv_into(rest)
        self._filled += size
        return size


class Connection(AssociationSocket):
    """Reads whole PDUs without blocking within one, and enforces the timeouts."""

    def __init__(self, assoc: AcceptedAssociation, client_socket: socket.socket, timeouts: Timeouts) -> None:
        super().__init__(assoc, client_socket=client_socket)
        # A timeout of the socket costs one system call, a poll before each read would cost two.
        client_socket.setblocking(True)
        client_socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(_WAIT_S))
        client_socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(timeouts.stall_s))
        client_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client_socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            client_socket.setsockopt(socket.IPPROTO_TCP, option, value)
        self.waker = Waker()
        self._acceptor, self._timeouts = assoc, timeouts
        self._answering, self._listening = select.poll(), select.poll()
        self._answering.register(self.waker.reader, select.POLLIN)
        self._listening.register(self.waker.reader, select.POLLIN)
        self._listening.register(client_socket, select.POLLIN)
        self._pdu = _Pdu()
        self._lost, self.abort_requested = False, False
        self._last_byte = time.monotonic()
        self._window_begin, self._window_bytes = 0.0, 0

    def start_with(self, pdu: bytes) -> None:
        """Start with a PDU that was already read from the socket."""
        self._pdu = _Pdu(pdu[:_HEADER_BYTES], pdu[_HEADER_BYTES:])

    @property
    def ready(self) -> bool:
        """Whether a whole PDU has been read; waits up to 0.1 s for bytes."""
        sock = self.socket
        if sock is None or self._lost:
            time.sleep(_WAIT_S / 100)
            return False
        if self._acceptor.dul.state_machine.current_state == "Sta13":
            return self._await_close(sock)
        if self.abort_requested:
            self._end(INVALID_PDU, "the receiver stops")
            return False
        # Within a message there is nothing to send, so the read itself waits: one system call less per PDU.
        begun = bool(self._pdu.header) or self._acceptor.dimse.reader.receiving
        if not self._pdu.whole and (begun or self._wait(sock)):
            self._read(sock)
        return self._pdu.whole

    def recv(self, nr_bytes: int) -> bytearray:
        """The header of the PDU that was read, then its body."""
        pdu = self._pdu
        if nr_bytes == _HEADER_BYTES and pdu.header:
            header, pdu.header = pdu.header, bytearray()
            return header
        self._pdu = _Pdu()
        return pdu.body

    def send(self, bytestream: bytes) -> None:
        """Send a PDU; a peer that reads no byte of it within ``stall_s`` counts as disconnected."""
        sock = self.socket
        try:
            if sock is not None:
                sock.sendall(bytestream)
        except OSError:
            self.event_queue.put(CLOSED)
        self._last_byte = time.monotonic()

    def _shutdown_socket(self) -> None:
        """Close the socket and the waker; pynetdicom leaves a reset socket to the garbage collector."""
        self.waker.close()
        sock = self.socket
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _wait(self, sock: socket.socket) -> bool:
        """Wait for the first byte of a PDU or a PDU to send; reads nothing before a pending response is sent."""
        answering = self._acceptor.dimse.awaiting_response
        waiting = self._answering if answering else self._listening
        found = {fd for fd, _ in waiting.poll(1000 * _WAIT_S if self.event_queue.empty() else 0)}
        if self.waker.reader.fileno() in found:
            self.waker.clear()
        if answering:
            self._last_byte = time.monotonic()
            return False
        if sock.fileno() not in found:
            self._check_timeouts()
            return False
        return True

    def _read(self, sock: socket.socket) -> None:
        """Read until the PDU is complete, or no byte arrives for ``_WAIT_S``."""
        pdu = self._pdu
        while pdu is self._pdu and not pdu.whole and not self.abort_requested:
            try:
                size = pdu.receive(sock)
            except BlockingIOError:
                self._check_timeouts()
                return
            except OSError:
                size = 0
            if not size:
                self._end(CLOSED)
                return
            self._count(size)
            if len(pdu.header) == _HEADER_BYTES and not pdu.size:
                self._begin_body(pdu)
            self._check_timeouts()

    def _begin_body(self, pdu: _Pdu) -> None:
        kind, pdu.size = pdu.header[0], int.from_bytes(pdu.header[2:], "big")
        if kind not in (_P_DATA, _RELEASE_RQ, _ABORT):
            self._end(INVALID_PDU, f"a PDU of type 0x{kind:02X} in an association")
        elif not (_HEADER_BYTES <= pdu.size <= _REFUSED_PDU_BYTES if kind == _P_DATA else pdu.size == 4):
            self._end(INVALID_PDU, f"a PDU of type 0x{kind:02X} and {pdu.size} bytes")

    def _count(self, size: int) -> None:
        self._last_byte = time.monotonic()
        if not self._window_bytes or self._window_bytes > MAXIMUM_PDU_BYTES:
            self._window_begin, self._window_bytes = self._last_byte, 0
        self._window_bytes += size

    def _check_timeouts(self) -> None:
        limits, now, begun = self._timeouts, time.monotonic(), bool(self._pdu.header)
        if not begun and not self._acceptor.dimse.reader.receiving:
            self._window_bytes = 0
        elif now - self._window_begin > limits.pdu_s:
            sent = f"{self._window_bytes} bytes in {limits.pdu_s:g} s"
            self._end(INVALID_PDU, f"{sent} (KAAPANA_RECEIVER_PDU_TIMEOUT_S)")
            return
        silence_s = now - self._last_byte
        if begun and silence_s > limits.stall_s:
            self._end(INVALID_PDU, f"no byte of a PDU for {limits.stall_s:g} s (KAAPANA_RECEIVER_STALL_TIMEOUT_S)")
        elif not begun and silence_s > limits.idle_s:
            self._end(INVALID_PDU, f"no PDU for {limits.idle_s:g} s (KAAPANA_RECEIVER_IDLE_TIMEOUT_S)")

    def _end(self, event: str, reason: str = "") -> None:
        self._lost = event == CLOSED
        self._pdu = _Pdu()
        if reason:
            _logger.warning("association of %s aborted: %s", self._acceptor.sender, reason)
        self.event_queue.put(event)

    def _await_close(self, sock: socket.socket) -> bool:
        """Let the peer close first: closing a socket with unread bytes may discard the PDU that was sent last."""
        end = time.monotonic() + _CLOSE_TIMEOUT_S
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_WR)
            while time.monotonic() < end:
                with contextlib.suppress(BlockingIOError):
                    if not sock.recv(_RESERVED_BYTES):
                        break
        return False


def _timeval(seconds: float) -> bytes:
    return struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6))
