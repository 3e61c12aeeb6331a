"""The accepted association: pynetdicom's class, without the parts that trust the peer.

Only associations made here differ from pynetdicom's; nothing is patched globally. Replaced are the
connection, events that end pynetdicom's thread with a traceback, the poll of each association every
millisecond, messages that get neither a response nor an abort, and datasets held entirely in memory.
Only this module and ``connection`` depend on pynetdicom's internals.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import struct
from collections.abc import Callable
from typing import Any, Protocol, cast

from pynetdicom import AE
from pynetdicom.acse import ACSE
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.fsm import TRANSITION_TABLE, StateMachine
from pynetdicom.pdu_primitives import A_ASSOCIATE, P_DATA
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from pynetdicom.transport import AddressInformation

from kaapana_assets.ingest.connection import INVALID_PDU, Connection, Timeouts
from kaapana_assets.ingest.dimse_commands import Command, ProtocolViolation, response_to
from kaapana_assets.ingest.dimse_messages import AcceptedContext, DimseRequest, MessageReader
from kaapana_assets.ingest.received_dataset import ReceivedDataset
from kaapana_assets.ingest.sop_classes import is_storage_class

_WAIT_S = 0.1

_RECEIVED_WITH_VALUES = ("Evt6", "Evt16")  # A-ASSOCIATE-RQ, A-ABORT
_OF_THE_LOCAL_USER = frozenset(("Evt7", "Evt8", "Evt9", "Evt11", "Evt14", "Evt15"))
# pynetdicom raises any of these for the first invalid value in a PDU.
_UNREADABLE = (AssertionError, AttributeError, LookupError, NotImplementedError, TypeError, ValueError, struct.error)

_logger = logging.getLogger(__name__)


class _WakingQueue(queue.Queue):  # type: ignore[type-arg]
    """A queue that wakes its reader when an item is put into it."""

    def __init__(self, wake: Callable[[], None]) -> None:
        super().__init__()
        self._wake = wake

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:  # noqa: ANN401
        super().put(item, block, timeout)
        self._wake()


class _StateMachine(StateMachine):
    """Ends the association where pynetdicom's state machine would end its thread with a traceback."""

    def do_action(self, event: str) -> None:
        dul = self.dul
        if event in _OF_THE_LOCAL_USER and dul.to_provider_queue.empty():
            return  # pynetdicom repeats the event of a primitive while another event precedes it
        if event in _RECEIVED_WITH_VALUES and not _is_readable(dul._recv_pdu.queue[0]):
            dul._recv_pdu.get(False)
            event = INVALID_PDU
        if (event, self.current_state) in TRANSITION_TABLE:
            super().do_action(event)
        elif event in _OF_THE_LOCAL_USER:
            dul.to_provider_queue.get(False)  # the association has ended in the meantime
        if self.current_state in ("Sta1", "Sta13") and dul.assoc.requestor.primitive is None:
            # The thread of the association still waits for the request.
            dul.to_user_queue.put(None)


class _Dimse(DIMSEServiceProvider):
    """Handles one request at a time; reads nothing more from the peer before its response is sent.

    Attributes:
        awaiting_response: whether a request has no response yet.
    """

    def __init__(self, assoc: AcceptedAssociation, reader: MessageReader) -> None:
        super().__init__(assoc)
        self._acceptor, self.reader = assoc, reader
        self.awaiting_response = False

    def receive_primitive(self, primitive: P_DATA) -> None:
        try:
            for context_id, fragment in primitive.presentation_data_value_list:
                self._add_fragment(context_id, fragment)
        except ProtocolViolation as exc:
            _logger.warning("association of %s aborted: %s", self._acceptor.sender, exc)
            self.reader.discard()
            self.dul.event_queue.put(INVALID_PDU)

    def _add_fragment(self, context_id: int, fragment: bytes) -> None:
        if self.awaiting_response:
            raise ProtocolViolation("a further request before the response to the last one")
        request = self.reader.add_fragment(context_id, fragment)
        if request is not None:
            self.awaiting_response = True
            self.msg_queue.put((context_id, request))  # type: ignore[arg-type]

    def get_msg(self, block: bool = False) -> Any:  # noqa: ANN401
        """The next request; waits 0.1 s for one, where pynetdicom polls every millisecond."""
        try:
            return self.msg_queue.get(timeout=_WAIT_S)
        except queue.Empty:
            return None, None

    def answer(self, request: DimseRequest, status: int) -> None:
        response = P_DATA()
        fragment = [request.context.context_id, b"\3" + response_to(request.command, status)]
        response.presentation_data_value_list = [fragment]  # type: ignore[list-item]
        self.awaiting_response = False
        self.dul.send_pdu(response)

    def discard(self) -> None:
        """Discard the received datasets that will not be stored."""
        self.reader.discard()
        with contextlib.suppress(queue.Empty):
            while True:
                _, request = self.msg_queue.get(block=False)
                if isinstance(request, DimseRequest) and request.dataset is not None:
                    request.dataset.discard()


class _Acse(ACSE):
    """Rejects presentation contexts that pynetdicom's unrestricted storage accepts and nothing here serves."""

    def send_accept(self) -> None:
        accepted, rejected = self.assoc._accepted_cx, self.assoc._rejected_cx
        for context_id, context in list(accepted.items()):
            uid = str(context.abstract_syntax)
            if uid != Verification and not is_storage_class(uid):
                context.result = 0x03  # PS3.8 table 9-18: abstract syntax not supported
                rejected.append(accepted.pop(context_id))
        super().send_accept()

    def send_reject(self, result: int, source: int, diagnostic: int) -> None:
        assoc = cast("AcceptedAssociation", self.assoc)
        _logger.warning(
            "association of %s rejected: its AE title is not in KAAPANA_ALLOWED_CALLING_AE_TITLES", assoc.sender
        )
        super().send_reject(result, source, diagnostic)


class ServiceProvider(Protocol):
    """The DIMSE services that associations offer."""

    def new_dataset(self, command: Command, context: AcceptedContext) -> ReceivedDataset | None:
        """A receiver of the request's dataset; None if the request is refused whatever its dataset holds."""

    def answer(self, assoc: AcceptedAssociation, request: DimseRequest) -> int:
        """Serve a request and return its status."""

    def ended(self, assoc: AcceptedAssociation) -> None:
        """Called when the association has ended; it makes no further request."""


class AcceptedAssociation(Association):
    """An association that a peer requested; ``start`` negotiates and serves it in a thread.

    Args:
        ae: AE title, presentation contexts and allowed calling AE titles.
        sock: the connection; closed when the association ends.
        address: address of the peer.
        request: the A-ASSOCIATE-RQ PDU, already read from ``sock``.
        timeouts: limits for the peer.
        provider: serves the requests.
    """

    dimse: _Dimse

    def __init__(
        self,
        ae: AE,
        sock: socket.socket,
        *,
        address: tuple[str, int],
        request: bytes,
        timeouts: Timeouts,
        provider: ServiceProvider,
    ) -> None:
        super().__init__(ae, "acceptor")
        self.name = f"association-{address[0]}:{address[1]}"
        self._provider = provider
        self.acse, self.dimse = _Acse(self), _Dimse(self, MessageReader(self._context, provider.new_dataset))
        self.dul.state_machine = _StateMachine(self.dul)
        self._connection = Connection(self, sock, timeouts)
        self._connection.start_with(request)
        self.set_socket(self._connection)
        self.dul.to_provider_queue = _WakingQueue(self._connection.waker.wake)
        self.dul.to_user_queue = _WakingQueue(lambda: self.dimse.msg_queue.put((None, None)))
        self.dul._run_loop_delay = 0.0
        self.dul.daemon = True
        self.network_timeout = None  # the connection enforces the timeouts
        self.acceptor.maximum_length = ae.maximum_pdu_size
        self.acceptor.ae_title = ae.ae_title
        self.acceptor.implementation_class_uid = ae.implementation_class_uid
        self.acceptor.implementation_version_name = ae.implementation_version_name
        self.acceptor.supported_contexts = ae.supported_contexts
        self.acceptor.address_info = AddressInformation.from_tuple(sock.getsockname())
        self.requestor.address_info = AddressInformation.from_tuple(address)
        self._peer = address[0]

    @property
    def sender(self) -> str:
        """Calling AE title and address of the requestor, for messages."""
        return f"{str(self.requestor.ae_title).strip()!r} at {self._peer}"

    @property
    def busy(self) -> bool:
        """Whether a request is being received or served."""
        return self.dimse.reader.receiving or self.dimse.awaiting_response

    def request_abort(self) -> None:
        """Ask the association to abort; any thread may call this, and it does not wait."""
        self._connection.abort_requested = True
        self._connection.waker.wake()

    def run(self) -> None:
        """Negotiate and serve requests until the association ends; then release its resources."""
        try:
            super().run()
        finally:
            self.dul.kill_dul()
            if self.dul.ident is not None:
                self.dul.join()
            self.release_resources()

    def release_resources(self) -> None:
        """Close the connection and discard partly received datasets."""
        self._connection._shutdown_socket()
        self.dimse.discard()
        self._provider.ended(self)

    def _context(self, context_id: int) -> AcceptedContext | None:
        found = self._accepted_cx.get(context_id)
        if found is None:
            return None
        return AcceptedContext(context_id, str(found.abstract_syntax), str(found.transfer_syntax[0]))

    def _serve_request(self, msg: Any, context_id: int) -> None:  # noqa: ANN401
        request = cast("DimseRequest", msg)
        self.dimse.answer(request, self._provider.answer(self, request))


def _is_readable(pdu: Any) -> bool:  # noqa: ANN401
    """Whether pynetdicom can decode a PDU and negotiate with the values in it."""
    try:
        primitive = pdu.to_primitive()
    except _UNREADABLE:
        return False
    if not isinstance(primitive, A_ASSOCIATE):
        return True
    contexts = primitive.presentation_context_definition_list
    return bool(contexts) and all(cx.abstract_syntax and cx.transfer_syntax for cx in contexts)
