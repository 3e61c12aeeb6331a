"""Sending DICOM files by C-STORE, each in the transfer syntax that it has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydicom.errors import InvalidDicomError
from pynetdicom import AE, _config
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from kaapana_assets.ingest.dicom_folder import FolderFile

if TYPE_CHECKING:
    from pynetdicom.association import Association

_CONTEXTS_PER_ASSOCIATION = 128  # PS3.8 9.3.2.2: odd numbers from 1 to 255
_ATTEMPTS = 3
_ECHO_TIMEOUT_S = 3.0
_TIMEOUT_S = 60.0
_STATUS_TEXTS = {
    0x0110: "processing failure",
    0x0111: "it has an instance of this UID already",
    0x0122: "SOP class not supported",
    0x0124: "not authorized",
    0xA700: "out of resources: send it again later",
    0xA900: "the dataset does not match its SOP class",
    0xC000: "it cannot understand the object",
}


@dataclass(frozen=True)
class Peer:
    """The receiver to send to, and the name to call oneself by."""

    host: str
    port: int
    called_ae_title: str
    calling_ae_title: str = "KAAPANA_SEND"


@dataclass(frozen=True)
class SentFile:
    """One file and, where it was not taken, why; empty when it was."""

    path: Path
    failure: str = ""


def send_files(peer: Peer, files: Sequence[FolderFile]) -> Iterator[SentFile]:
    """Send DICOM objects over as few associations as their kinds need; one result for each, in any order.

    A broken association is opened again up to two times for one object; nobody at the other end, or
    an association that is rejected, ends in a failure of every file that was left.

    Args:
        peer: who takes them.
        files: with ``identity``, that is: objects.
    """
    _config.STORE_SEND_CHUNKED_DATASET = True  # sends the file's own bytes; pydicom would encode them anew
    for group in _groups(files):
        yield from _send_group(peer, group)


def answers_echo(peer: Peer) -> bool:
    """Whether a DICOM receiver answers there."""
    ae = _new_ae(peer)
    ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = _ECHO_TIMEOUT_S
    ae.add_requested_context(Verification)
    assoc = ae.associate(peer.host, peer.port, ae_title=peer.called_ae_title)
    if not assoc.is_established:
        return False
    status = assoc.send_c_echo()
    assoc.release()
    return "Status" in status and status.Status == 0x0000


def _new_ae(peer: Peer) -> AE:
    ae = AE(ae_title=peer.calling_ae_title)
    ae.maximum_pdu_size = 0
    ae.dimse_timeout = ae.network_timeout = _TIMEOUT_S
    return ae


def _groups(files: Sequence[FolderFile]) -> Iterator[list[FolderFile]]:
    group: list[FolderFile] = []
    contexts: set[tuple[str, str]] = set()
    for file in files:
        if (context := _context(file)) not in contexts and len(contexts) == _CONTEXTS_PER_ASSOCIATION:
            yield group
            group, contexts = [], set()
        contexts.add(context)
        group.append(file)
    if group:
        yield group


def _context(file: FolderFile) -> tuple[str, str]:
    if file.identity is None:
        raise ValueError(f"{file.path} is no DICOM object")
    return file.identity.sop_class_uid, file.identity.transfer_syntax_uid


def _send_group(peer: Peer, group: list[FolderFile]) -> Iterator[SentFile]:
    assoc: Association | None = None
    try:
        for index, file in enumerate(group):
            failure = ""
            for _ in range(_ATTEMPTS):
                if assoc is None or not assoc.is_established:
                    assoc = _associate(peer, group)
                if not assoc.is_established:
                    failure = _refusal(peer, assoc)
                    break
                failure, final = _send(assoc, file.path)
                if final:
                    break
            yield SentFile(file.path, failure)
            if assoc is not None and not assoc.is_established and failure:
                yield from (SentFile(left.path, failure) for left in group[index + 1 :])
                return
    finally:
        if assoc is not None and assoc.is_established:
            assoc.release()


def _associate(peer: Peer, group: list[FolderFile]) -> Association:
    # One context for each transfer syntax, so that none can be chosen that a file does not have.
    contexts = [build_context(*kind) for kind in dict.fromkeys(_context(file) for file in group)]
    return _new_ae(peer).associate(peer.host, peer.port, contexts=contexts, ae_title=peer.called_ae_title)


def _send(assoc: Association, path: Path) -> tuple[str, bool]:
    """Why the object was not taken, and whether trying again is of no use."""
    try:
        status = assoc.send_c_store(path)
    except (AttributeError, InvalidDicomError, OSError, ValueError) as exc:
        return f"cannot be sent: {exc}", assoc.is_established
    except RuntimeError:
        return "the association broke", False
    if "Status" not in status:
        return "the association broke before the answer", False
    code = int(status.Status)
    if code == 0x0000 or code & 0xF000 == 0xB000:  # success, or a warning: it was stored
        return "", True
    known = _STATUS_TEXTS.get(code) or _STATUS_TEXTS.get(code & 0xFF00) or _STATUS_TEXTS.get(code & 0xF000, "")
    return f"refused with 0x{code:04X} {known}".rstrip(), True


def _refusal(peer: Peer, assoc: Association) -> str:
    where = f"{peer.called_ae_title} at {peer.host}:{peer.port}"
    if assoc.is_rejected:
        return f"{where} rejects {peer.calling_ae_title}"
    return f"no association with {where}: is the receiver running?"
