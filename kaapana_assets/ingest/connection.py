"""How pynetdicom's server takes bytes from a connection, where its own way is too slow or too big.

Three things of pynetdicom 3 are replaced for the connections of one server, and nothing is patched
elsewhere: reads of 4 KiB (one system call and one switch between threads each), a loop that sleeps a
millisecond between looks at the socket, and datasets kept in memory as a whole.
"""

from __future__ import annotations

import contextlib
import io
import os
import queue
import select
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

MAXIMUM_PDU_BYTES = 128 * 1024
_KEPT_IN_MEMORY_BYTES = 4 * 1024**2
# A peer that says a PDU is longer than this is not speaking DICOM: we offer MAXIMUM_PDU_BYTES.
_REFUSED_PDU_BYTES = 16 * 1024**2
_WAIT_S = 0.1
_POLL_S = 0.001


class ReceivedDataset(io.BytesIO):
    """The bytes of one dataset as they arrive: in memory while small, then in a file.

    Attributes:
        path: the file, once there is one; its owner removes it or moves it away.
        error: why the file could not be written; what arrives after that is dropped.
    """

    def __init__(self, new_path: Callable[[], Path], head: Callable[[], bytes]) -> None:
        super().__init__()
        self._new_path, self._head = new_path, head
        self._fd = -1
        self.path: Path | None = None
        self.head_size_bytes = 0
        self.error: OSError | None = None

    def write(self, data: Any, /) -> int:  # noqa: ANN401 - as io.BytesIO has it
        """Take the next fragment; never raises for a full disk, see ``error``."""
        if self.path is None and self.tell() + len(data) <= _KEPT_IN_MEMORY_BYTES:
            return super().write(data)
        if self.error is None:
            try:
                if self.path is None:
                    self._move_to_file()
                self._write_file(data)
            except OSError as exc:
                self.error = exc
        return len(data)

    def finish(self) -> None:
        """No more will come; the file is closed, but neither synced nor removed."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def discard(self) -> None:
        """Nobody wants it: the file is removed."""
        self.finish()
        if self.path is not None:
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)

    def _move_to_file(self) -> None:
        self.path = self._new_path()
        self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
        os.fchmod(self._fd, 0o444)  # whatever the umask: operators of another user read it; folders keep others out
        head = self._head()
        self.head_size_bytes = len(head)
        self._write_file(head)
        self._write_file(self.getbuffer())
        self.seek(0)
        self.truncate()

    def _write_file(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]


class _Dimse(DIMSEServiceProvider):
    """DIMSE messages whose datasets do not have to fit into memory."""

    def __init__(self, assoc: Association, new_dataset: Callable[[DIMSEMessage, Association], ReceivedDataset]) -> None:
        super().__init__(assoc)
        self._new_dataset = new_dataset

    def receive_primitive(self, primitive: P_DATA) -> None:
        if self.message is None:
            self.message = DIMSEMessage()
            self.message.data_set = self._new_dataset(self.message, self.assoc)
        super().receive_primitive(primitive)

    def discard_partial(self) -> None:
        """Remove what was received of an object that will not be completed."""
        message = self.message
        if message is not None and isinstance(message.data_set, ReceivedDataset):
            message.data_set.discard()


class _WakingQueue(queue.Queue):  # type: ignore[type-arg]
    """A queue that ends the wait of the thread that reads the socket."""

    def __init__(self, wake: socket.socket) -> None:
        super().__init__()
        self._wake = wake

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:  # noqa: ANN401
        super().put(item, block, timeout)
        with contextlib.suppress(OSError):  # closed with the connection, or so full that it wakes anyway
            self._wake.send(b"\0")


class _Socket(AssociationSocket):
    """Reads as much as there is, and wakes at once when there is something to read or to send."""

    def __init__(self, assoc: Association, client_socket: socket.socket) -> None:
        super().__init__(assoc, client_socket=client_socket)
        client_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._woken, self.wake = socket.socketpair()
        self._woken.setblocking(False)
        self.wake.setblocking(False)

    @property
    def ready(self) -> bool:
        if self.socket is None or not self._is_connected:
            time.sleep(_POLL_S)
            return False
        timeout_s = _WAIT_S if self.event_queue.empty() else 0.0
        try:
            readable, _, _ = select.select([self.socket, self._woken], [], [], timeout_s)
        except (OSError, ValueError):
            self.event_queue.put("Evt17")
            return False
        if self._woken in readable:
            with contextlib.suppress(OSError):
                self._woken.recv(1024)
        return self.socket in readable

    def recv(self, nr_bytes: int) -> bytearray:
        if nr_bytes > _REFUSED_PDU_BYTES:
            raise OSError(f"a PDU of {nr_bytes} bytes was announced")
        sock = self.socket
        received = bytearray(nr_bytes)
        size = 0
        with memoryview(received) as view:
            while size < nr_bytes:
                got = sock.recv_into(view[size:]) if sock is not None else 0
                if not got:
                    break
                size += got
        del received[size:]
        return received

    def close(self) -> None:
        super().close()
        self.wake.close()
        self._woken.close()


class Connection(RequestHandler):
    """Makes the association of a new connection; ``server`` is a :class:`Server`."""

    server: Server

    def _create_association(self) -> Association:
        assoc = super()._create_association()
        assoc.dimse = _Dimse(assoc, self.server.new_dataset)
        # pynetdicom has put its own socket there, with an event that ours puts again.
        assoc.dul.event_queue = queue.Queue()
        sock = _Socket(assoc, self.request)
        assoc.dul.socket = sock
        assoc.dul.to_provider_queue = _WakingQueue(sock.wake)
        assoc.dul._run_loop_delay = 0.0
        return assoc


class Server(ThreadedAssociationServer):
    """pynetdicom's server with our connections."""

    request_queue_size = 128
    new_dataset: Callable[[DIMSEMessage, Association], ReceivedDataset]


def discard_partial(assoc: Association) -> None:
    """Remove what was received of an object that an ended association did not complete."""
    if isinstance(assoc.dimse, _Dimse):
        assoc.dimse.discard_partial()
