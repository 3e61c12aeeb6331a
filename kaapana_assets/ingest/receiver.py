"""The DICOM receiver: a C-STORE and C-ECHO SCP that writes objects to the spool.

An object is acknowledged once it is durable. Only its identifiers are decoded. Statuses (PS3.4 B.2.3,
PS3.7 C):

====== ==========================================================================
0x0000 durable in the spool, already there, or in the quarantine because different
       content waits under its UIDs
0xA700 no space left or not writable: send the object again later
0xA900 the SOP class of the dataset is not that of the request
0xC000 the dataset is missing or unreadable, or an identifier is missing or not a UID
0x0110 an error of the receiver itself; its log has the traceback
0x0117 the SOP Instance UID of the request is missing or not a UID
0x0122 no SOP class, or a presentation context that is not for storage
0x0211 neither C-STORE nor C-ECHO
====== ==========================================================================
"""

from __future__ import annotations

import logging
import mmap
import sys
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, cast

from pynetdicom import AE, PYNETDICOM_IMPLEMENTATION_UID, _config
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from kaapana_assets.dicom.identifiers import checked_uid
from kaapana_assets.errors import ConfigurationError, InputError, InvalidIdentifier, SpoolUnavailable
from kaapana_assets.ingest.connection import MAXIMUM_PDU_BYTES
from kaapana_assets.ingest.dataset_identifiers import DatasetIdentifiers, part10_header, read_dataset_identifiers
from kaapana_assets.ingest.dimse_commands import C_ECHO_RQ, C_STORE_RQ, Command
from kaapana_assets.ingest.received_dataset import ReceivedDataset
from kaapana_assets.ingest.server import AssociationServer
from kaapana_assets.ingest.sop_classes import is_storage_class
from kaapana_assets.ingest.spool import Spool, SpoolOutcome

if TYPE_CHECKING:
    from kaapana_assets.ingest.acceptor import AcceptedAssociation
    from kaapana_assets.ingest.association_markers import AssociationMarker
    from kaapana_assets.ingest.dimse_messages import AcceptedContext, DimseRequest
    from kaapana_assets.settings import Settings

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
DATASET_NOT_OF_SOP_CLASS = 0xA900
CANNOT_UNDERSTAND = 0xC000
PROCESSING_FAILURE = 0x0110
INVALID_SOP_INSTANCE = 0x0117
SOP_CLASS_NOT_SUPPORTED = 0x0122
UNRECOGNIZED_OPERATION = 0x0211

_FINISH_S = 10.0
_POLL_S = 0.005

_logger = logging.getLogger(__name__)


class _SopClassMismatch(InputError):
    """The SOP class of the dataset is not that of the request."""


class Receiver:
    """Receives between ``start`` and ``stop``, or while used as a context manager.

    Args:
        settings: address, port, AE titles and limits.
        spool: stores the received objects; several receivers may share it.
    """

    def __init__(self, settings: Settings, spool: Spool) -> None:
        self._settings = settings
        self._spool = spool
        self._sessions: dict[AcceptedAssociation, _Session] = {}
        self._lock = threading.Lock()
        self._server: AssociationServer | None = None

    @property
    def address(self) -> tuple[str, int]:
        """The host and port on which it listens."""
        if self._server is None:
            raise RuntimeError("the receiver was not started")
        return self._server.address

    def start(self) -> None:
        """Start to listen; on return, connections are accepted.

        Raises:
            ConfigurationError: it cannot listen on the address.
            SpoolUnavailable: the folders of the spool cannot be created.
        """
        self._spool.prepare()
        # These are global to the process, which serves nothing else.
        _config.UNRESTRICTED_STORAGE_SERVICE = True
        _config.LOG_HANDLER_LEVEL = "none"
        settings = self._settings
        ae = AE(ae_title=settings.receiver_ae_title)
        ae.maximum_pdu_size = MAXIMUM_PDU_BYTES
        ae.require_calling_aet = list(settings.allowed_calling_ae_titles)
        ae.maximum_associations = sys.maxsize  # the server counts them
        ae.add_supported_context(Verification)
        try:
            self._server = AssociationServer(ae, settings, self)
        except OSError as exc:
            raise ConfigurationError(
                f"cannot listen on {settings.receiver_host}:{settings.receiver_port} ({exc.strerror}): set "
                "KAAPANA_RECEIVER_HOST and KAAPANA_RECEIVER_PORT"
            ) from exc
        self._server.start()

    def stop(self) -> None:
        """Accept no more connections, finish the objects being received and end all associations."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.stop()
        deadline = time.monotonic() + _FINISH_S
        while open_associations := server.associations:
            for assoc in open_associations:
                if time.monotonic() > deadline or not assoc.busy:
                    assoc.request_abort()
            time.sleep(_POLL_S)

    def __enter__(self) -> Receiver:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def new_dataset(self, command: Command, context: AcceptedContext) -> ReceivedDataset | None:
        """A receiver of the request's dataset; None if the request is refused whatever its dataset holds."""
        if command.field != C_STORE_RQ or _refusal(command, context) is not None:
            return None

        def head() -> bytes:
            return _head(command.sop_class_uid, command.sop_instance_uid, context.transfer_syntax_uid)

        return ReceivedDataset(self._spool.temporary_file, head)

    def answer(self, assoc: AcceptedAssociation, request: DimseRequest) -> int:
        """Serve a request and return its status."""
        if request.command.field == C_ECHO_RQ:
            return SUCCESS
        try:
            return self._store(assoc, request)
        except (InputError, SpoolUnavailable) as exc:
            status = _status_for(exc)
            _logger.warning("request of %s refused with 0x%04X: %s", assoc.sender, status, exc)
            return status
        except Exception:
            _logger.exception("a request of %s failed", assoc.sender)
            return PROCESSING_FAILURE
        finally:
            if request.dataset is not None:
                request.dataset.discard()

    def ended(self, assoc: AcceptedAssociation) -> None:
        """Stop holding back the series of an association that has ended."""
        with self._lock:
            session = self._sessions.pop(assoc, None)
        if session is not None:
            session.marker.close()
            counts = ", ".join(f"{number} {outcome}" for outcome, number in session.outcomes.items())
            _logger.info("association of %s ended: %s", session.sender, counts)

    def _session(self, assoc: AcceptedAssociation) -> _Session:
        with self._lock:
            session = self._sessions.get(assoc)
            if session is None:
                session = self._sessions[assoc] = _Session(assoc.sender, self._spool.mark_association())
            return session

    def _store(self, assoc: AcceptedAssociation, request: DimseRequest) -> int:
        refusal = _refusal(request.command, request.context)
        if refusal is not None:
            raise refusal
        if request.dataset is None:
            raise InputError(f"the request for instance {request.command.sop_instance_uid} has no dataset")
        request.dataset.finish()
        session = self._session(assoc)
        try:
            outcome = self._spool_object(request, session)
        except (InputError, SpoolUnavailable):
            session.outcomes["refused"] += 1
            raise
        session.outcomes[outcome.value] += 1
        return SUCCESS

    def _spool_object(self, request: DimseRequest, session: _Session) -> SpoolOutcome:
        dataset = cast("ReceivedDataset", request.dataset)
        if dataset.error is not None:
            raise SpoolUnavailable(f"{dataset.path} cannot be written ({dataset.error.strerror}): free space")
        transfer_syntax_uid = request.context.transfer_syntax_uid
        identifiers = _identifiers_of(dataset, transfer_syntax_uid)
        _check_request(request.command, identifiers)
        series, sop = identifiers.series_instance_uid, identifiers.sop_instance_uid
        session.hold(series)
        if dataset.path is not None:
            outcome = self._spool.adopt(series, sop, dataset.path, origin=session.sender)
        else:
            head = _head(identifiers.sop_class_uid, sop, transfer_syntax_uid)
            with dataset.getbuffer() as data:
                outcome = self._spool.add(series, sop, (head, data), origin=session.sender)
        if outcome is SpoolOutcome.CONFLICT:
            _logger.warning(
                "C-STORE from %s: instance %s of series %s differs from the one in the spool and is in the quarantine",
                session.sender,
                sop,
                series,
            )
        return outcome


class _Session:
    """The marker and the outcomes of one association that has sent an object."""

    def __init__(self, sender: str, marker: AssociationMarker) -> None:
        self.sender = sender
        self.marker = marker
        self.outcomes: Counter[str] = Counter()

    def hold(self, series_uid: str) -> None:
        try:
            self.marker.hold(series_uid)
        except OSError as exc:
            raise SpoolUnavailable(f"the marker of the association cannot be written ({exc.strerror})") from exc


class _RefusedRequest(InputError):
    """The request is refused with this status, whatever its dataset holds."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def _refusal(command: Command, context: AcceptedContext) -> _RefusedRequest | None:
    if command.field != C_STORE_RQ:
        return _RefusedRequest(
            UNRECOGNIZED_OPERATION, f"operation 0x{command.field:04X}: only C-STORE and C-ECHO are served"
        )
    if not is_storage_class(context.abstract_syntax_uid) or not command.sop_class_uid:
        return _RefusedRequest(
            SOP_CLASS_NOT_SUPPORTED,
            f"a C-STORE for SOP class {command.sop_class_uid[:64]!r} in a presentation context for "
            f"{context.abstract_syntax_uid[:64]!r}",
        )
    try:
        checked_uid(command.sop_instance_uid, keyword="AffectedSOPInstanceUID of the request")
    except InvalidIdentifier as exc:
        return _RefusedRequest(INVALID_SOP_INSTANCE, str(exc))
    return None


def _status_for(error: InputError | SpoolUnavailable) -> int:
    if isinstance(error, SpoolUnavailable):
        return OUT_OF_RESOURCES
    if isinstance(error, _RefusedRequest):
        return error.status
    return DATASET_NOT_OF_SOP_CLASS if isinstance(error, _SopClassMismatch) else CANNOT_UNDERSTAND


def _check_request(command: Command, identifiers: DatasetIdentifiers) -> None:
    sop_uid, sop_class = command.sop_instance_uid, command.sop_class_uid
    if identifiers.sop_instance_uid != sop_uid:
        raise InputError(
            f"the request says SOPInstanceUID {sop_uid[:64]!r}, its dataset says {identifiers.sop_instance_uid}"
        )
    if identifiers.sop_class_uid != sop_class:
        raise _SopClassMismatch(
            f"the request for instance {sop_uid} says SOPClassUID {sop_class[:64]!r}, its dataset says "
            f"{identifiers.sop_class_uid}"
        )


def _head(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    return part10_header(
        sop_class_uid=sop_class_uid,
        sop_instance_uid=sop_instance_uid,
        transfer_syntax_uid=transfer_syntax_uid,
        implementation=PYNETDICOM_IMPLEMENTATION_UID,
    )


def _identifiers_of(dataset: ReceivedDataset, transfer_syntax_uid: str) -> DatasetIdentifiers:
    if dataset.path is None:
        with dataset.getbuffer() as data:
            return read_dataset_identifiers(data, transfer_syntax_uid)
    with (
        dataset.path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as whole,
        whole[dataset.head_size_bytes :] as data,
    ):
        return read_dataset_identifiers(data, transfer_syntax_uid)
