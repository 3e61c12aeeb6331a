"""Imports the DICOM files of a folder into the spool, without the network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from kaapana_assets.dicom.limits import DEFAULT_LIMITS, ReadingLimits
from kaapana_assets.errors import NotFound, SpoolUnavailable
from kaapana_assets.ingest.association_markers import AssociationMarker
from kaapana_assets.ingest.dataset_identifiers import IMPLEMENTATION_UID, part10_header
from kaapana_assets.ingest.dicom_folder import FolderFile, inspect
from kaapana_assets.ingest.spool import IMPORT, Spool, SpoolOutcome

# Import mostly waits for the disk, so more threads than cores help.
_THREADS = 4


class ImportOutcome(Enum):
    """The outcome of importing a file."""

    STORED = "stored"
    ALREADY_THERE = "already there"
    CONFLICT = "in quarantine: the spool has different content under its UIDs"
    QUARANTINED = "in quarantine: cannot be read"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class ImportedFile:
    """One file of the folder and its outcome; ``reason`` is a sentence for people."""

    path: Path
    outcome: ImportOutcome
    reason: str = ""


def import_files(
    spool: Spool, files: Iterable[Path], *, limits: ReadingLimits = DEFAULT_LIMITS
) -> Iterator[ImportedFile]:
    """Copy files into the spool and yield the outcome of each, in order; the files stay unchanged.

    The series are held back from ingest until the last file is in the spool.

    Raises:
        SpoolUnavailable: no space left or not writable; files already yielded are in the spool.
    """
    with spool.mark_association() as marker, ThreadPoolExecutor(_THREADS) as pool:
        yield from pool.map(lambda path: _import_file(spool, marker, inspect(path, limits=limits)), files)


def _import_file(spool: Spool, marker: AssociationMarker, found: FolderFile) -> ImportedFile:
    path = found.path
    if found.skipped:
        return ImportedFile(path, ImportOutcome.SKIPPED, found.skipped)
    try:
        if found.identity is None:
            spool.quarantine_copy(path, found.damage)
            return ImportedFile(path, ImportOutcome.QUARANTINED, found.damage)
        series, sop = found.identity.series_instance_uid, found.identity.sop_instance_uid
        try:
            marker.hold(series)
        except OSError as exc:
            raise SpoolUnavailable(f"{spool.incoming} cannot be written ({exc.strerror})") from exc
        outcome = spool.add_file(series, sop, path, origin=IMPORT, **_head(found))
    except NotFound as exc:
        return ImportedFile(path, ImportOutcome.SKIPPED, str(exc))
    return ImportedFile(path, _OUTCOMES[outcome])


def _head(found: FolderFile) -> dict[str, Any]:
    """Arguments of ``Spool.add_file`` that complete missing file meta information; else none."""
    if found.dataset_offset is None or found.identity is None:
        return {}
    head = part10_header(
        sop_class_uid=found.identity.sop_class_uid,
        sop_instance_uid=found.identity.sop_instance_uid,
        transfer_syntax_uid=found.identity.transfer_syntax_uid,
        implementation=IMPLEMENTATION_UID,
    )
    return {"head": head, "offset": found.dataset_offset}


_OUTCOMES = {
    SpoolOutcome.STORED: ImportOutcome.STORED,
    SpoolOutcome.ALREADY_THERE: ImportOutcome.ALREADY_THERE,
    SpoolOutcome.CONFLICT: ImportOutcome.CONFLICT,
}
