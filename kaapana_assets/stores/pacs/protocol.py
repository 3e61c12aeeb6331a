"""What every PACS can do for us, in the words that a folder and DICOMweb share.

Implementations are beside this module; which one is used is said by ``opening``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

from kaapana_assets.dicom.digests import series_digest
from kaapana_assets.stores.checks import StoreReport


class StoreOutcome(Enum):
    """What became of one file that was to be stored."""

    STORED = "stored"
    ALREADY_THERE = "already there"
    CONFLICT = "conflict"
    FAILED = "failed"


@dataclass(frozen=True)
class InstanceOutcome:
    """What became of one file, and why.

    Attributes:
        path: the file as it was given.
        sop_instance_uid: empty when it could not be read.
        outcome: ``CONFLICT`` means that other content is stored under its UIDs and stays; ``FAILED``
            that the file is not fit to be stored. An outage raises instead.
        reason: for a person to read; empty when it is stored.
        is_over_limit: it would take more memory than the settings let it.
        is_same_file: what is stored has the very bytes; else the same object was stored before in another encoding.
    """

    path: Path
    sop_instance_uid: str
    outcome: StoreOutcome
    reason: str = ""
    is_over_limit: bool = False
    is_same_file: bool = True


@dataclass(frozen=True)
class StoredInstance:
    """One instance in the PACS.

    Attributes:
        size_bytes: of its file.
        content_digest: as ``kaapana_assets.dicom.digests.content_digest`` gives it.
    """

    sop_instance_uid: str
    size_bytes: int
    content_digest: str


@dataclass(frozen=True)
class StoredSeries:
    """One series in the PACS; ``instances`` are sorted by SOPInstanceUID."""

    study_instance_uid: str
    series_instance_uid: str
    instances: tuple[StoredInstance, ...]

    @property
    def digest(self) -> str:
        """Digest over all instances: another one for every change of the series."""
        return series_digest({each.sop_instance_uid: each.content_digest for each in self.instances})

    @property
    def size_bytes(self) -> int:
        """Bytes of all its files."""
        return sum(each.size_bytes for each in self.instances)


@dataclass(frozen=True)
class PacsCounts:
    """How much is stored."""

    series: int
    instances: int
    size_bytes: int


class Pacs(Protocol):
    """An archive of DICOM instances that never replaces one, and forgets only what it is told to."""

    def store(self, files: Sequence[Path]) -> list[InstanceOutcome]:
        """Put files in; what is reported as stored is durable. Gives one outcome per file, in order.

        Files of any number of series may be given; storing many at once costs less than one by one.
        Repeating a call that was interrupted finishes it.

        Raises:
            StoreUnavailable: the PACS does not answer or cannot be written.
        """

    def series(self, series_instance_uid: str) -> StoredSeries:
        """What is stored of a series.

        Raises:
            NotFound: no such series.
            StoreUnavailable: the PACS does not answer.
        """

    def retrieve(self, series_instance_uid: str, into: Path, *, writable_copy: bool) -> StoredSeries:
        """Put all files of a series at ``<into>/<SOPInstanceUID>.dcm``, whole or not at all.

        Args:
            series_instance_uid: the series.
            into: a folder that is replaced if it is there; what is above it is made.
            writable_copy: files that may be changed. Without it they may share their bytes with the
                PACS and must not be written to.

        Raises:
            NotFound: no such series, or files of it are gone.
            StoreUnavailable: the PACS does not answer, or ``into`` cannot be written.
        """

    def forget(self, series_instance_uid: str) -> str:
        """Remove a series; one that is not there is passed over. Cut short, the same call goes on.

        Gives why it remains, for a person to read, where the PACS does not let it be removed; else nothing.

        Raises:
            StoreUnavailable: the PACS does not answer or cannot be written.
        """

    def counts(self) -> PacsCounts:
        """How much is stored.

        Raises:
            StoreUnavailable: the PACS does not answer.
        """

    def series_uids(self) -> Iterable[str]:
        """The SeriesInstanceUIDs of all that is stored, sorted.

        Raises:
            StoreUnavailable: the PACS does not answer.
        """

    def check(self) -> StoreReport:
        """Whether it works, in a moment and whatever else goes on; counts are of what is known without asking much.

        Raises:
            StoreUnavailable: the PACS does not answer or cannot be written.
            ConfigurationError: what answers is no PACS or refuses the credentials; names the setting.
        """

    def close(self) -> None:
        """Let go of files and connections; the next call opens them again."""
