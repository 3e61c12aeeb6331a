"""The association of an accepted request: pynetdicom's, with the parts replaced that trust the peer.

Nothing is patched elsewhere. Replaced for the associations made here: the connection, events that end
pynetdicom's thread with a traceback, a poll of each association every millisecond, messages that are
neither answered nor refused, and datasets kept in memory as a whole. With ``connection`` this is the
only module that knows the inside of pynetdicom.
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
from kaapana_assets.ingest.dimse_messages import AcceptedContext, MessageReader, Request
from kaapana_assets.ingest.received_dataset import ReceivedDataset
from kaapana_assets.ingest.sop_classes import is_storage_class

_WAIT_S = 0.1

_RECEIVED_WITH_VALUES = ("Evt6", "Evt16")  # A-ASSOCIATE-RQ, A-ABORT
_OF_THE_LOCAL_USER = frozenset(("Evt7", "Evt8", "Evt9", "Evt11", "Evt14", "Evt15"))
# Its values are read by pynetdicom, which raises whatever the first bad one leads to.
_UNREADABLE = (AssertionError, AttributeError, LookupError, NotImplementedError, TypeError, ValueError, struct.error)

_logger = logging.getLogger(__name__)


class _WakingQueue(queue.Queue):  # type: ignore[type-arg]
    """A queue that says when something was put into it."""

    def __init__(self, wake: Callable[[], None]) -> None:
        super().__init__()
        self._wake = wake

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:  # noqa: ANN401
        super().put(item, block, timeout)
        self._wake()


class _StateMachine(StateMachine):
    """Ends an association for what pynetdicom's own ends its thread with a traceback for."""

    def do_action(self, event: str) -> None:
        dul = self.dul
        if event in _OF_THE_LOCAL_USER and dul.to_provider_queue.empty():
            return  # pynetdicom announces a primitive again while another event is before it
        if event in _RECEIVED_WITH_VALUES and not _is_readable(dul._recv_pdu.queue[0]):
            dul._recv_pdu.get(False)
            event = INVALID_PDU
        if (event, self.current_state) in TRANSITION_TABLE:
            super().do_action(event)
        elif event in _OF_THE_LOCAL_USER:
            dul.to_provider_queue.get(False)  # the association has ended meanwhile
        if self.current_state in ("Sta1", "Sta13") and dul.assoc.requestor.primitive is None:
            # The association's thread still waits for the request.
            dul.to_user_queue.put(None)


class _Dimse(DIMSEServiceProvider):
    """Requests, one at a time; nothing more is read from the peer before the answer.

    Attributes:
        awaiting_response: whether a request waits for its answer.
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
            raise ProtocolViolation("more than the one request that may wait for its answer")
        request = self.reader.add_fragment(context_id, fragment)
        if request is not None:
            self.awaiting_response = True
            self.msg_queue.put((context_id, request))  # type: ignore[arg-type]

    def get_msg(self, block: bool = False) -> Any:  # noqa: ANN401
        """The next request; waits a little instead of being asked every millisecond."""
        try:
            return self.msg_queue.get(timeout=_WAIT_S)
        except queue.Empty:
            return None, None

    def answer(self, request: Request, status: int) -> None:
        response = P_DATA()
        fragment = [request.context.context_id, b"\3" + response_to(request.command, status)]
        response.presentation_data_value_list = [fragment]  # type: ignore[list-item]
        self.awaiting_response = False
        self.dul.send_pdu(response)

    def discard(self) -> None:
        """Remove what was received and will not be stored."""
        self.reader.discard()
        with contextlib.suppress(queue.Empty):
            while True:
                _, request = self.msg_queue.get(block=False)
                if isinstance(request, Request) and request.dataset is not None:
                    request.dataset.discard()


class _Acse(ACSE):
    """Rejects the presentation contexts that pynetdicom's unrestricted storage takes and nothing here serves."""

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
            "association of %s rejected: the title is not in KAAPANA_ALLOWED_CALLING_AE_TITLES", assoc.sender
        )
        super().send_reject(result, source, diagnostic)


class ServiceProvider(Protocol):
    """The services that associations offer."""

    def new_dataset(self, command: Command, context: AcceptedContext) -> ReceivedDataset | None:
        """What takes the dataset of a request; none if the request will be refused whatever it is."""

    def answer(self, assoc: AcceptedAssociation, request: Request) -> int:
        """Serve a request; gives its status."""

    def ended(self, assoc: AcceptedAssociation) -> None:
        """No request of this association will come any more."""


class AcceptedAssociation(Association):
    """An association from its request on; ``start`` makes it answer.

    Args:
        ae: title, presentation contexts and allowed callers.
        sock: the connection; closed when the association has ended.
        address: of the peer.
        request: the A-ASSOCIATE-RQ PDU that was read from it.
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
        self.network_timeout = None  # the connection keeps the timeouts
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
        """Who requested it, for messages."""
        return f"{str(self.requestor.ae_title).strip()!r} at {self._peer}"

    @property
    def busy(self) -> bool:
        """Whether a request is being received or answered."""
        return self.dimse.reader.receiving or self.dimse.awaiting_response

    def request_abort(self) -> None:
        """Abort from any thread, without waiting for the end."""
        self._connection.abort_requested = True
        self._connection.waker.wake()

    def run(self) -> None:
        """Negotiate and answer until it ends, however that is; then everything that it held is let go of."""
        try:
            super().run()
        finally:
            self.dul.kill_dul()
            if self.dul.ident is not None:
                self.dul.join()
            self.release_resources()

    def release_resources(self) -> None:
        """Close the connection and remove what was received in part."""
        self._connection._shutdown_socket()
        self.dimse.discard()
        self._provider.ended(self)

    def _context(self, context_id: int) -> AcceptedContext | None:
        found = self._accepted_cx.get(context_id)
        if found is None:
            return None
        return AcceptedContext(context_id, str(found.abstract_syntax), str(found.transfer_syntax[0]))

    def _serve_request(self, msg: Any, context_id: int) -> None:  # noqa: ANN401
        request = cast("Request", msg)
        self.dimse.answer(request, self._provider.answer(self, request))


def _is_readable(pdu: Any) -> bool:  # noqa: ANN401
    """Whether pynetdicom can make something of a PDU and its own negotiation can stand the result."""
    try:
        primitive = pdu.to_primitive()
    except _UNREADABLE:
        return False
    if not isinstance(primitive, A_ASSOCIATE):
        return True
    contexts = primitive.presentation_context_definition_list
    return bool(contexts) and all(cx.abstract_syntax and cx.transfer_syntax for cx in contexts)
