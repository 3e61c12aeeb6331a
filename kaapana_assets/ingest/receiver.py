"""The DICOM receiver: a C-STORE and C-ECHO SCP that writes what arrives to the spool.

An object is acknowledged when it is durable. Nothing of it is decoded but the identifiers that say
where it belongs. Statuses (PS3.4 B.2.3, PS3.7 C):

====== ==========================================================================
0x0000 durable in the spool, was there already, or is kept apart in the quarantine
       because other content waits under its UIDs
0xA700 no space left or not writable: send it again later
0xA900 the dataset is of another SOP class than the request says
0xC000 not readable, an identifier is missing or is no UID
====== ==========================================================================
"""

from __future__ import annotations

import logging
import mmap
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from pynetdicom import AE, PYNETDICOM_IMPLEMENTATION_UID, _config, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from kaapana_assets.errors import ConfigurationError, InputError, SpoolUnavailable
from kaapana_assets.ingest.connection import (
    MAXIMUM_PDU_BYTES,
    Connection,
    ReceivedDataset,
    Server,
    discard_partial,
)
from kaapana_assets.ingest.dataset_start import DatasetStart, file_head, read_dataset_start
from kaapana_assets.ingest.spool import Outcome, Spool

if TYPE_CHECKING:
    from pynetdicom.association import Association
    from pynetdicom.dimse_messages import DIMSEMessage
    from pynetdicom.dimse_primitives import C_STORE
    from pynetdicom.events import Event

    from kaapana_assets.ingest.associations import OpenAssociation
    from kaapana_assets.settings import Settings

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
OTHER_SOP_CLASS = 0xA900
CANNOT_UNDERSTAND = 0xC000

_FINISH_S = 10.0
_POLL_S = 0.005

_logger = logging.getLogger(__name__)


class _OtherSopClass(InputError):
    """The dataset is of another SOP class than the request says."""


class Receiver:
    """Listens while it is used as a context manager, or between ``start`` and ``stop``.

    Args:
        settings: address, port, AE titles and limits.
        spool: where objects are put; several receivers may share it.
    """

    def __init__(self, settings: Settings, spool: Spool) -> None:
        self._settings = settings
        self._spool = spool
        self._sessions: dict[Association, _Session] = {}
        self._lock = threading.Lock()
        self._server: Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that it listens on."""
        if self._server is None or self._server.socket is None:
            raise RuntimeError("the receiver was not started")
        host, port = self._server.socket.getsockname()[:2]
        return host, port

    def start(self) -> None:
        """Listen; returns once connections are taken.

        Raises:
            ConfigurationError: the address cannot be listened on.
            SpoolUnavailable: the spool cannot be made.
        """
        self._spool.prepare()
        # For all of this process, which is there for nothing else.
        _config.UNRESTRICTED_STORAGE_SERVICE = True
        _config.LOG_HANDLER_LEVEL = "none"
        settings = self._settings
        ae = AE(ae_title=settings.receiver_ae_title)
        ae.maximum_pdu_size = MAXIMUM_PDU_BYTES
        ae.maximum_associations = settings.receiver_max_associations
        ae.require_calling_aet = list(settings.allowed_calling_ae_titles)
        ae.add_supported_context(Verification)
        handlers: list[evt.EventHandlerType] = [
            (evt.EVT_C_STORE, self._on_store),
            (evt.EVT_CONN_CLOSE, self._on_end),
            (evt.EVT_ABORTED, self._on_end),
            (evt.EVT_RELEASED, self._on_end),
            (evt.EVT_REJECTED, _on_rejected),
        ]
        host, port = settings.receiver_host, settings.receiver_port
        try:
            made = ae.make_server((host, port), server_class=Server, request_handler=Connection, evt_handlers=handlers)
        except OSError as exc:
            raise ConfigurationError(
                f"cannot listen on {host}:{port} ({exc.strerror}): set KAAPANA_RECEIVER_HOST and KAAPANA_RECEIVER_PORT"
            ) from exc
        self._server = cast("Server", made)
        self._server.new_dataset = self._new_dataset
        ae._servers.append(self._server)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="receiver", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take no more connections, finish the objects that are on their way, end all associations."""
        if self._server is None or self._thread is None:
            return
        server, self._server = self._server, None
        server.shutdown()
        self._thread.join()
        deadline = time.monotonic() + _FINISH_S
        while open_associations := server.active_associations:
            for assoc in open_associations:
                if time.monotonic() > deadline or not self._is_busy(assoc):
                    assoc.abort()
            time.sleep(_POLL_S)
        for assoc in list(self._sessions):
            self._end(assoc)

    def __enter__(self) -> Receiver:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _is_busy(self, assoc: Association) -> bool:
        with self._lock:
            session = self._sessions.get(assoc)
        return assoc.dimse.message is not None or (session is not None and session.busy)

    def _session(self, assoc: Association) -> _Session:
        with self._lock:
            session = self._sessions.get(assoc)
            if session is None:
                session = self._sessions[assoc] = _Session(_sender(assoc), self._spool.open_association())
            return session

    def _new_dataset(self, message: DIMSEMessage, assoc: Association) -> ReceivedDataset:
        def head() -> bytes:
            command = message.command_set
            syntax = assoc._accepted_cx[cast("int", message.context_id)].transfer_syntax[0]
            return _head(str(command.AffectedSOPClassUID), str(command.AffectedSOPInstanceUID), str(syntax))

        return ReceivedDataset(self._spool.temporary_file, head)

    def _on_store(self, event: Event) -> int:
        request = cast("C_STORE", event.request)
        dataset = cast("ReceivedDataset", request.DataSet)
        try:
            dataset.finish()
            with self._session(event.assoc).at_work() as session:
                outcome = self._take(request, str(event.context.transfer_syntax), session)
                session.outcomes[outcome.value] += 1
            return SUCCESS
        except (InputError, SpoolUnavailable) as exc:
            status = _status_for(exc)
            _logger.warning("C-STORE from %s refused with 0x%04X: %s", _sender(event.assoc), status, exc)
            return status
        finally:
            dataset.discard()

    def _take(self, request: C_STORE, transfer_syntax_uid: str, session: _Session) -> Outcome:
        dataset = cast("ReceivedDataset", request.DataSet)
        if dataset.error is not None:
            raise SpoolUnavailable(f"{dataset.path} cannot be written ({dataset.error.strerror}): free space")
        start = _start_of(dataset, transfer_syntax_uid)
        _check_request(request, start)
        series, sop = start.series_instance_uid, start.sop_instance_uid
        session.touch(series)
        if dataset.path is not None:
            outcome = self._spool.adopt(series, sop, dataset.path, origin=session.sender)
        else:
            head = _head(start.sop_class_uid, sop, transfer_syntax_uid)
            with dataset.getbuffer() as data:
                outcome = self._spool.add(series, sop, (head, data), origin=session.sender)
        if outcome is Outcome.CONFLICT:
            _logger.warning(
                "C-STORE from %s: instance %s of series %s has other content than the one that waits; "
                "it is kept in the quarantine",
                session.sender,
                sop,
                series,
            )
        return outcome

    def _on_end(self, event: Event) -> None:
        self._end(event.assoc)

    def _end(self, assoc: Association) -> None:
        discard_partial(assoc)
        with self._lock:
            session = self._sessions.pop(assoc, None)
        if session is not None:
            session.mark.close()
            counts = ", ".join(f"{number} {outcome}" for outcome, number in session.outcomes.items())
            _logger.info("association of %s ended: %s", session.sender, counts)


class _Session:
    """What is known of one association that has sent an object."""

    def __init__(self, sender: str, mark: OpenAssociation) -> None:
        self.sender = sender
        self.mark = mark
        self.busy = False
        self.outcomes: Counter[str] = Counter()

    @contextmanager
    def at_work(self) -> Iterator[_Session]:
        """Says, inside, that an object is being put into the spool; counts it as refused if that fails."""
        self.busy = True
        try:
            yield self
        except (InputError, SpoolUnavailable):
            self.outcomes["refused"] += 1
            raise
        finally:
            self.busy = False

    def touch(self, series_uid: str) -> None:
        try:
            self.mark.touch(series_uid)
        except OSError as exc:
            raise SpoolUnavailable(f"the mark of an association cannot be written ({exc.strerror})") from exc


def _status_for(error: InputError | SpoolUnavailable) -> int:
    if isinstance(error, SpoolUnavailable):
        return OUT_OF_RESOURCES
    return OTHER_SOP_CLASS if isinstance(error, _OtherSopClass) else CANNOT_UNDERSTAND


def _check_request(request: C_STORE, start: DatasetStart) -> None:
    sop_uid = str(request.AffectedSOPInstanceUID or "").rstrip("\0 ")
    sop_class = str(request.AffectedSOPClassUID or "").rstrip("\0 ")
    if start.sop_instance_uid != sop_uid:
        raise InputError(f"the request says SOPInstanceUID {sop_uid[:64]!r}, its dataset says {start.sop_instance_uid}")
    if start.sop_class_uid != sop_class:
        raise _OtherSopClass(
            f"the request for instance {sop_uid} says SOPClassUID {sop_class[:64]!r}, its dataset says "
            f"{start.sop_class_uid}"
        )


def _sender(assoc: Association) -> str:
    requestor = assoc.requestor
    address = requestor.address_info.address if requestor.address_info else "unknown"
    return f"{str(requestor.ae_title).strip()!r} at {address}"


def _on_rejected(event: Event) -> None:
    _logger.warning(
        "association of %s rejected: the title is not in KAAPANA_ALLOWED_CALLING_AE_TITLES, "
        "or there are KAAPANA_RECEIVER_MAX_ASSOCIATIONS already",
        _sender(event.assoc),
    )


def _head(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    return file_head(
        sop_class_uid=sop_class_uid,
        sop_instance_uid=sop_instance_uid,
        transfer_syntax_uid=transfer_syntax_uid,
        implementation=PYNETDICOM_IMPLEMENTATION_UID,
    )


def _start_of(dataset: ReceivedDataset, transfer_syntax_uid: str) -> DatasetStart:
    if dataset.path is None:
        with dataset.getbuffer() as data:
            return read_dataset_start(data, transfer_syntax_uid)
    with (
        dataset.path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as whole,
        whole[dataset.head_size_bytes :] as data,
    ):
        return read_dataset_start(data, transfer_syntax_uid)
