"""Ingests a series: moves it from the spool into the PACS and the index, without Dagster.

The order makes a kill at any point safe: store in the PACS, write to the index, let the caller record
the series, and only then remove it from the spool. Repeating an interrupted ingest completes it.
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
    """The state of a series in the PACS after its ingest.

    Attributes:
        stored: the series in the PACS.
        document: its metadata, as the index holds it.
        findings: inconsistencies of its instances.
        new_instances: number of files that were not in the PACS before.
        quarantined: number of files that were moved to the quarantine, each with its reason.
        spool_files: files in the spool that are now in the PACS; see ``Ingestor.remove_from_spool``.
    """

    stored: StoredSeries
    document: Mapping[str, Any]
    findings: Sequence[SeriesFinding]
    new_instances: int
    quarantined: int
    spool_files: Sequence[Path]


@dataclass(frozen=True, kw_only=True)
class Ingestor:
    """Moves series from the spool into the PACS and the index.

    Attributes:
        spool: source of the series.
        pacs: stores the instances.
        index: stores the document of each series.
        scratch: folder for copies that live for one call, on the file system of the PACS.
        limits: for reading objects.
    """

    spool: Spool
    pacs: Pacs
    index: MetadataIndex
    scratch: Path
    limits: ReadingLimits = DEFAULT_LIMITS

    def ingest(self, series_instance_uid: str, *, now: datetime) -> IngestedSeries:
        """Store the waiting files of a series in the PACS and index the whole series.

        If no file waits, the series in the PACS is indexed again. The files stay in the spool until
        ``remove_from_spool``. Call this while holding ``Spool.ingest_lock``.

        Raises:
            NotFound: no file of the series can be read and the PACS does not have it.
            StoreUnavailable: the PACS or the index fails; the files stay in the spool.
        """
        waiting = self.spool.files(series_instance_uid)
        readable = self._readable(series_instance_uid, waiting)
        new, refused, other_encoding = self._store(readable)
        for path, reason in refused.items():
            self.spool.move_to_quarantine(path, reason)
        fit = [path for path in readable if path not in refused]
        stored = self._stored(series_instance_uid, quarantined=len(waiting) - len(fit))
        with self._all_files(stored, [path for path in fit if path not in other_encoding]) as files:
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
        """Move all waiting files of a series to the quarantine and return their number."""
        waiting = self.spool.files(series_instance_uid)
        for path in waiting:
            self.spool.move_to_quarantine(path, reason)
        return len(waiting)

    def remove_from_spool(self, ingested: IngestedSeries) -> None:
        """Remove the ingested files from the spool; call this once the series is recorded.

        If the process is killed before, the next ingest repeats the series.

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
        """Number of new instances, refused files with reasons, and files that the PACS has in another encoding."""
        if not files:
            return 0, {}, set()
        outcomes = self.pacs.store(files)
        new = sum(outcome.outcome is StoreOutcome.STORED for outcome in outcomes)
        unfit = (StoreOutcome.CONFLICT, StoreOutcome.FAILED)
        refused = {each.path: each.reason for each in outcomes if each.outcome in unfit}
        return new, refused, {each.path for each in outcomes if not each.is_same_file}

    def _stored(self, uid: str, *, quarantined: int) -> StoredSeries:
        try:
            return self.pacs.series(uid)
        except NotFound as exc:
            where = (
                f"its {quarantined} files could not be read, see `kaapana-assets status`" if quarantined else "not sent"
            )
            raise NotFound(f"series {uid} is not in the PACS: {where}") from exc

    @contextmanager
    def _all_files(self, stored: StoredSeries, waiting: Sequence[Path]) -> Iterator[list[Path]]:
        """The files of all instances: those in the spool if complete, else a copy from the PACS."""
        if {path.stem for path in waiting} == {instance.sop_instance_uid for instance in stored.instances}:
            yield list(waiting)
            return
        self.scratch.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=self.scratch))
        try:
            self.pacs.retrieve(stored.series_instance_uid, folder / "series", writable_copy=False)
            yield sorted((folder / "series").iterdir())
        finally:
            shutil.rmtree(folder, ignore_errors=True)
