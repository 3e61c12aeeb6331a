"""The protocol of a PACS, which the folder and the DICOMweb archive implement.

The implementations are beside this module; ``stores.factory`` opens the one that the settings select.
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
    """The kinds of outcome of storing one file."""

    STORED = "stored"
    ALREADY_THERE = "already there"
    CONFLICT = "conflict"
    FAILED = "failed"


@dataclass(frozen=True)
class InstanceOutcome:
    """The outcome of storing one file, with the reason.

    Attributes:
        path: the file, as the caller named it.
        sop_instance_uid: empty if it could not be read.
        outcome: ``CONFLICT`` means that other content is stored under the same UIDs and stays there; ``FAILED``
            means that the file cannot be stored. An outage raises an error instead.
        reason: for a person to read; empty if the file is stored.
        is_over_limit: reading the file would take more memory than the settings allow.
        is_same_file: the stored file has the same bytes; else it is the same object in another encoding.
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
        size_bytes: size of its file.
        content_digest: made by ``kaapana_assets.dicom.digests.content_digest``.
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
        """Digest over all instances; it changes with every change of the series."""
        return series_digest({each.sop_instance_uid: each.content_digest for each in self.instances})

    @property
    def size_bytes(self) -> int:
        """The total size of its files."""
        return sum(each.size_bytes for each in self.instances)


@dataclass(frozen=True)
class PacsCounts:
    """The numbers of stored series and instances, and their size."""

    series: int
    instances: int
    size_bytes: int


class Pacs(Protocol):
    """An archive of DICOM instances. It never replaces an instance, and removes a series only by ``forget``."""

    def store(self, files: Sequence[Path]) -> list[InstanceOutcome]:
        """Store files. Returns one outcome per file, in order; a file that is reported as stored is durable.

        The files may belong to any number of series; one call with many files costs less than many calls.
        After an interruption, the same call goes on.

        Raises:
            StoreUnavailable: the PACS does not answer or cannot be written.
        """

    def series(self, series_instance_uid: str) -> StoredSeries:
        """The stored instances of a series.

        Raises:
            NotFound: no such series.
            StoreUnavailable: the PACS does not answer.
        """

    def retrieve(self, series_instance_uid: str, into: Path, *, writable_copy: bool) -> StoredSeries:
        """Put all files of a series into a folder, as ``<into>/<SOPInstanceUID>.dcm``, or none of them.

        Args:
            series_instance_uid: the series.
            into: the folder; it is replaced if it exists, and the folders above it are made.
            writable_copy: make copies that may be changed. Otherwise the files may be hard links to those of
                the PACS and must not be written to.

        Raises:
            NotFound: no such series, or files of it are gone.
            StoreUnavailable: the PACS does not answer, or ``into`` cannot be written.
        """

    def forget(self, series_instance_uid: str) -> str:
        """Remove a series; a missing one is ignored. After an interruption, the same call goes on.

        Returns:
            An empty text; or why the series remains, for a person to read, if the PACS does not let it be removed.

        Raises:
            StoreUnavailable: the PACS does not answer or cannot be written.
        """

    def counts(self) -> PacsCounts:
        """The numbers of stored series and instances, and their size.

        Raises:
            StoreUnavailable: the PACS does not answer.
        """

    def series_uids(self) -> Iterable[str]:
        """The SeriesInstanceUIDs of all stored series, sorted.

        Raises:
            StoreUnavailable: the PACS does not answer.
        """

    def check(self) -> StoreReport:
        """Check quickly that the PACS works, even while others use it; counts only what is cheap to count.

        Raises:
            StoreUnavailable: the PACS does not answer or cannot be written.
            ConfigurationError: the server is no PACS or refuses the credentials; the message names the setting.
        """

    def close(self) -> None:
        """Close files and connections; the next call opens them again."""
