"""One series on its way from the spool into the PACS and the index, without Dagster.

The order is what makes it safe to be killed anywhere: into the PACS, into the index, recorded by
the caller, and only then out of the spool. Doing it again finishes it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from kaapana_assets.dicom.consistency import SeriesFinding, check_series
from kaapana_assets.dicom.documents import series_document
from kaapana_assets.dicom.headers import identity_of, read_header
from kaapana_assets.dicom.limits import DEFAULT_LIMITS, ReadingLimits
from kaapana_assets.errors import InputError, NotFound
from kaapana_assets.ingest.spool import Spool
from kaapana_assets.stores.index.protocol import MetadataIndex
from kaapana_assets.stores.pacs.protocol import Pacs, StoredSeries, StoreOutcome


@dataclass(frozen=True, kw_only=True)
class IngestedSeries:
    """A series as it now stands in the PACS, and what was found on the way.

    Attributes:
        document: its metadata, as the index holds it.
        findings: what is wrong or odd about its instances.
        new_instances: files that were not in the PACS before.
        quarantined: files that were set aside, with the reason beside them.
        spool_files: files in the spool that are in the PACS now; see ``Ingestor.remove_from_spool``.
    """

    stored: StoredSeries
    document: Mapping[str, Any]
    findings: Sequence[SeriesFinding]
    new_instances: int
    quarantined: int
    spool_files: Sequence[Path]


@dataclass(frozen=True, kw_only=True)
class Ingestor:
    """The stores that a series passes on its way.

    Attributes:
        scratch: folder for copies that live as long as one call, on the file system of the PACS.
        limits: for the objects that are read.
    """

    spool: Spool
    pacs: Pacs
    index: MetadataIndex
    scratch: Path
    limits: ReadingLimits = DEFAULT_LIMITS

    def ingest(self, series_instance_uid: str, *, now: datetime) -> IngestedSeries:
        """Bring what waits of a series into the PACS and index; without any, describe what is there.

        It stays in the spool until it is released. To be called inside ``Spool.ingest_lock``.

        Raises:
            NotFound: nothing of it can be read, or it is known nowhere.
            StoreUnavailable: the PACS or the index does not take it; it stays in the spool.
        """
        waiting = self.spool.files(series_instance_uid)
        readable = self._readable(series_instance_uid, waiting)
        new, refused, elsewhere = self._store(readable)
        for path, reason in refused.items():
            self.spool.move_to_quarantine(path, reason)
        fit = [path for path in readable if path not in refused]
        stored = self._stored(series_instance_uid, set_aside=len(waiting) - len(fit))
        with self._all_files(stored, [path for path in fit if path not in elsewhere]) as files:
            headers = [read_header(path, limits=self.limits) for path in files]
        document = series_document(headers, arrival_time=now, instance_count=len(stored.instances))
        findings = check_series(headers)
        self.index.put([document])
        return IngestedSeries(
            stored=stored,
            document=document,
            findings=findings,
            new_instances=new,
            quarantined=len(waiting) - len(fit),
            spool_files=fit,
        )

    def quarantine(self, series_instance_uid: str, reason: str) -> int:
        """Move all that waits of a series to the quarantine; gives how many files those were."""
        waiting = self.spool.files(series_instance_uid)
        for path in waiting:
            self.spool.move_to_quarantine(path, reason)
        return len(waiting)

    def remove_from_spool(self, ingested: IngestedSeries) -> None:
        """Take out of the spool what was taken in, once it is recorded: who is killed before does it again.

        Raises:
            SpoolUnavailable: the spool is not writable.
        """
        self.spool.remove(ingested.stored.series_instance_uid, ingested.spool_files)

    def _readable(self, uid: str, waiting: Sequence[Path]) -> list[Path]:
        readable = []
        for path in waiting:
            try:
                identity = identity_of(read_header(path, limits=self.limits))
            except InputError as exc:
                self.spool.move_to_quarantine(path, str(exc))
                continue
            if identity.series_instance_uid != uid:
                self.spool.move_to_quarantine(path, f"it belongs to series {identity.series_instance_uid}, not {uid}")
            else:
                readable.append(path)
        return readable

    def _store(self, files: Sequence[Path]) -> tuple[int, dict[Path, str], set[Path]]:
        """How many are new to the PACS, those that it refuses, with the reason, those that it has in other bytes."""
        if not files:
            return 0, {}, set()
        outcomes = self.pacs.store(files)
        new = sum(outcome.outcome is StoreOutcome.STORED for outcome in outcomes)
        unfit = (StoreOutcome.CONFLICT, StoreOutcome.FAILED)
        refused = {each.path: each.reason for each in outcomes if each.outcome in unfit}
        return new, refused, {each.path for each in outcomes if not each.is_same_file}

    def _stored(self, uid: str, *, set_aside: int) -> StoredSeries:
        try:
            return self.pacs.series(uid)
        except NotFound as exc:
            where = f"its {set_aside} files could not be read, see `kaapana-assets status`" if set_aside else "not sent"
            raise NotFound(f"series {uid} is not in the PACS: {where}") from exc

    @contextmanager
    def _all_files(self, stored: StoredSeries, at_hand: Sequence[Path]) -> Iterator[list[Path]]:
        """The files of all instances: those at hand when they are all, else fetched from the PACS."""
        if {path.stem for path in at_hand} == {instance.sop_instance_uid for instance in stored.instances}:
            yield list(at_hand)
            return
        self.scratch.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=self.scratch))
        try:
            self.pacs.retrieve(stored.series_instance_uid, folder / "series", writable_copy=False)
            yield sorted((folder / "series").iterdir())
        finally:
            shutil.rmtree(folder, ignore_errors=True)
