"""The two ways to send instances to an archive: STOW and C-STORE."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from kaapana_assets.errors import ConfigurationError, StoreUnavailable
from kaapana_assets.stores.pacs.candidates import Candidate
from kaapana_assets.stores.pacs.remote.dicomweb import DicomwebArchive
from kaapana_assets.stores.pacs.remote.dimse import Echo, Peer, echo, send_files
from kaapana_assets.stores.pacs.remote.store_status import Refusal, refusal, status_text


@dataclass(frozen=True)
class Refused:
    """The refusal of one instance by the archive."""

    meaning: Refusal
    reason: str


class InstanceSender(Protocol):
    """Sends instances to an archive.

    Attributes:
        keeps_bytes: whether the archive can be expected to keep the dataset as it was sent. Archives
            re-encode datasets that they receive by C-STORE.
    """

    keeps_bytes: bool

    def send(self, candidates: Sequence[Candidate]) -> list[Refused | None]:
        """Send instances, each SOPInstanceUID once. Returns one result each, in order: None if it was accepted.

        Raises:
            StoreUnavailable: the archive does not answer.
        """

    def check(self) -> None:
        """Check that this sender can reach the archive, in addition to its DICOMweb services.

        Raises:
            ConfigurationError: the archive rejects this sender.
            StoreUnavailable: the archive does not answer.
        """


class StowSender:
    """Sends instances by STOW, in requests of limited size.

    Args:
        archive: the archive.
        batch_bytes: size limit of one request; a larger instance is sent alone.
        batch_instances: limit of instances in one request.
    """

    keeps_bytes = True

    def __init__(self, archive: DicomwebArchive, *, batch_bytes: int, batch_instances: int) -> None:
        self._archive = archive
        self._batch_bytes = batch_bytes
        self._batch_instances = batch_instances

    def send(self, candidates: Sequence[Candidate]) -> list[Refused | None]:
        """See ``InstanceSender.send``; an instance refused for no clear reason is sent once more, alone."""
        results: list[Refused | None] = []
        for batch in self._batches(candidates):
            first = self._post(batch)
            for candidate, result in zip(batch, first, strict=True):
                unclear = result is not None and result.meaning is Refusal.UNKNOWN
                results += self._post([candidate]) if unclear else [result]
        return results

    def check(self) -> None:
        """See ``InstanceSender.check``; there is nothing to check, because STOW is part of DICOMweb."""

    def _post(self, batch: Sequence[Candidate]) -> list[Refused | None]:
        answer = self._archive.store([each.path for each in batch])
        if not answer.is_complete:
            return [None] * len(batch)  # the caller finds out what arrived
        return [self._result(each.identity.sop_instance_uid, answer.stored, answer.failed.get) for each in batch]

    def _result(self, sop: str, stored: frozenset[str], status_of: _StatusOf) -> Refused | None:
        if sop in stored:
            return None
        status = status_of(sop)
        said = f"Failure Reason 0x{status:04X} {status_text(status)}".rstrip() if status else "without a reason"
        return Refused(refusal(status or None), f"the archive {self._archive.url} refuses it: {said}")

    def _batches(self, candidates: Sequence[Candidate]) -> Iterator[list[Candidate]]:
        batch: list[Candidate] = []
        size = 0
        for each in candidates:
            if batch and (size + each.size_bytes > self._batch_bytes or len(batch) == self._batch_instances):
                yield batch
                batch, size = [], 0
            batch.append(each)
            size += each.size_bytes
        if batch:
            yield batch


class _StatusOf(Protocol):
    def __call__(self, sop: str, /) -> int | None: ...


class DimseSender:
    """Sends instances by C-STORE, for archives without STOW.

    Args:
        peer: the receiver.
        check_timeout_s: timeout for each step of ``check``.
    """

    keeps_bytes = False

    def __init__(self, peer: Peer, *, check_timeout_s: float = 3.0) -> None:
        self._peer = peer
        self._check_timeout_s = check_timeout_s

    def check(self) -> None:
        """See ``InstanceSender.check``; sends a C-ECHO."""
        where = f"{self._peer.called_ae_title} at {self._peer.host}:{self._peer.port}"
        answer = echo(self._peer, timeout_s=self._check_timeout_s)
        if answer is Echo.REJECTS:
            raise ConfigurationError(
                f"{where} rejects {self._peer.calling_ae_title}: see KAAPANA_DIMSE_URL and KAAPANA_DIMSE_AE_TITLE"
            )
        if answer is not Echo.ANSWERS:
            raise StoreUnavailable(f"{where} {answer.value} (C-ECHO)")

    def send(self, candidates: Sequence[Candidate]) -> list[Refused | None]:
        """See ``InstanceSender.send``."""
        sent = {each.path: each for each in send_files(self._peer, candidates)}
        where = f"{self._peer.called_ae_title} at {self._peer.host}:{self._peer.port}"
        results: list[Refused | None] = []
        for candidate in candidates:
            result = sent[candidate.path]
            if not result.failure:
                results.append(None)
            elif result.is_unfit:
                results.append(Refused(Refusal.UNFIT, f"{where}: {result.failure}"))
            elif result.status is None:
                raise StoreUnavailable(f"instance {candidate.identity.sop_instance_uid}: {where}: {result.failure}")
            else:
                results.append(Refused(refusal(result.status), f"{where}: {result.failure}"))
        return results
