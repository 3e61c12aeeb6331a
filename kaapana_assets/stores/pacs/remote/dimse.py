"""Sends DICOM files by C-STORE, each in its own transfer syntax."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pynetdicom import AE, _config, evt
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from kaapana_assets.stores.pacs.remote.store_status import is_stored, status_text

if TYPE_CHECKING:
    from pynetdicom.association import Association
    from pynetdicom.events import Event

    from kaapana_assets.dicom.headers import InstanceIdentity

_CONTEXTS_PER_ASSOCIATION = 128  # PS3.8 9.3.2.2: odd numbers from 1 to 255
_ATTEMPTS = 3
_ECHO_TIMEOUT_S = 3.0
_TIMEOUT_S = 60.0


class IdentifiedFile(Protocol):
    """A file and the identifiers of the object in it."""

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def identity(self) -> InstanceIdentity | None:
        """The identifiers of the object; None for a file without one, which cannot be sent."""


@dataclass(frozen=True)
class Peer:
    """The receiver to send to, and the AE title of the sender."""

    host: str
    port: int
    called_ae_title: str
    calling_ae_title: str = "KAAPANA_SEND"


@dataclass(frozen=True)
class SentFile:
    """The outcome of sending one file.

    Attributes:
        failure: why the receiver did not store it; empty if it did.
        status: the status of the C-STORE response; None if there was no response.
        is_unfit: the file itself cannot be sent, while the association goes on.
    """

    path: Path
    failure: str = ""
    status: int | None = None
    is_unfit: bool = False


def peer_of(url: str, *, calling_ae_title: str) -> Peer:
    """The receiver that ``dimse://AET@host:port`` names."""
    called, _, address = url.removeprefix("dimse://").rpartition("@")
    host, _, port = address.rpartition(":")
    return Peer(host, int(port), called, calling_ae_title)


def send_files(peer: Peer, files: Sequence[IdentifiedFile]) -> Iterator[SentFile]:
    """Send DICOM objects over as few associations as possible, and yield an outcome for each, in any order.

    A broken association is opened again up to two times for one object. If the peer does not answer or
    rejects the association, all remaining files fail.

    Args:
        peer: the receiver.
        files: files that have an ``identity``.
    """
    _config.STORE_SEND_CHUNKED_DATASET = True  # sends the file's own bytes; pydicom would encode them anew
    for group in _groups(files):
        yield from _send_group(peer, group)


class Echo(Enum):
    """The outcome of a C-ECHO."""

    ANSWERS = "answers"
    IS_BUSY = "has as many associations as it takes"
    REJECTS = "rejects this sender"
    IS_SILENT = "does not answer"


def echo(peer: Peer, *, timeout_s: float = _ECHO_TIMEOUT_S) -> Echo:
    """Send a C-ECHO to a DICOM receiver and return its outcome.

    Args:
        peer: the receiver.
        timeout_s: timeout for each of the connection, the association and the response.

    References: PS3.8 9.3.4 (result 2 of a rejection is transient).
    """
    ae = _new_ae(peer)
    ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = timeout_s
    ae.add_requested_context(Verification)
    assoc = ae.associate(peer.host, peer.port, ae_title=peer.called_ae_title)
    if assoc.is_rejected:
        said = assoc.acceptor.primitive
        return Echo.IS_BUSY if said is not None and said.result == 2 else Echo.REJECTS
    if not assoc.is_established:
        return Echo.IS_SILENT
    status = assoc.send_c_echo()
    assoc.release()
    return Echo.ANSWERS if "Status" in status and status.Status == 0x0000 else Echo.IS_SILENT


def _new_ae(peer: Peer) -> AE:
    ae = AE(ae_title=peer.calling_ae_title)
    ae.maximum_pdu_size = 0
    ae.dimse_timeout = ae.network_timeout = _TIMEOUT_S
    return ae


def _groups(files: Sequence[IdentifiedFile]) -> Iterator[list[IdentifiedFile]]:
    group: list[IdentifiedFile] = []
    contexts: set[tuple[str, str]] = set()
    for file in files:
        if (context := _context(file)) not in contexts and len(contexts) == _CONTEXTS_PER_ASSOCIATION:
            yield group
            group, contexts = [], set()
        contexts.add(context)
        group.append(file)
    if group:
        yield group


def _context(file: IdentifiedFile) -> tuple[str, str]:
    if file.identity is None:
        raise ValueError(f"{file.path} is no DICOM object")
    return file.identity.sop_class_uid, file.identity.transfer_syntax_uid


def _send_group(peer: Peer, group: Sequence[IdentifiedFile]) -> Iterator[SentFile]:
    assoc: Association | None = None
    try:
        for index, file in enumerate(group):
            sent = SentFile(file.path)
            for _ in range(_ATTEMPTS):
                if assoc is None or not assoc.is_established:
                    assoc = _associate(peer, group)
                if not assoc.is_established:
                    sent = SentFile(file.path, _refusal(peer, assoc))
                    break
                sent = _send(assoc, file)
                if not sent.failure or sent.status is not None or sent.is_unfit:
                    break
            yield sent
            if assoc is not None and not assoc.is_established and sent.failure:
                yield from (SentFile(left.path, sent.failure) for left in group[index + 1 :])
                return
    finally:
        if assoc is not None and assoc.is_established:
            assoc.release()


def _associate(peer: Peer, group: Sequence[IdentifiedFile]) -> Association:
    # One presentation context for each transfer syntax: the peer cannot choose one that a file does not have.
    contexts = [build_context(*kind) for kind in dict.fromkeys(_context(file) for file in group)]
    handlers: list[evt.EventHandlerType] = [(evt.EVT_CONN_OPEN, _send_at_once)]
    return _new_ae(peer).associate(
        peer.host, peer.port, contexts=contexts, ae_title=peer.called_ae_title, evt_handlers=handlers
    )


def _send_at_once(event: Event) -> None:
    """Turn off Nagle's algorithm, which delays the end of each message: 40 ms for every object."""
    connection = event.assoc.dul.socket
    if connection is not None and connection.socket is not None:
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _send(assoc: Association, file: IdentifiedFile) -> SentFile:
    path = file.path
    try:
        status = assoc.send_c_store(path)
    except (AttributeError, InvalidDicomError, OSError, ValueError) as exc:
        return SentFile(path, f"cannot be sent: {exc}", is_unfit=assoc.is_established)
    except RuntimeError:
        return SentFile(path, "the association broke")
    if "Status" not in status:
        return SentFile(path, "the association broke before the answer")
    code = int(status.Status)
    if is_stored(code):
        return SentFile(path, status=code)
    return SentFile(path, f"refused with 0x{code:04X} {status_text(code)}".rstrip() + _hint(file), status=code)


def _hint(file: IdentifiedFile) -> str:
    """A possible reason for a refusal: the request has the UID of the file header, not the dataset's (PS3.10 7.1)."""
    announced = str(read_file_meta_info(file.path).get("MediaStorageSOPInstanceUID", ""))
    if file.identity is None or announced == file.identity.sop_instance_uid:
        return ""
    return f": its file header says SOPInstanceUID {announced}, its dataset {file.identity.sop_instance_uid}"


def _refusal(peer: Peer, assoc: Association) -> str:
    where = f"{peer.called_ae_title} at {peer.host}:{peer.port}"
    if assoc.is_rejected:
        return f"{where} rejects {peer.calling_ae_title}"
    return f"no association with {where}: is the receiver running?"
