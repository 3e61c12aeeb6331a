"""The records of an archive's series: the instances that it lists by QIDO, and digests that are computed here.

QIDO reports no digests, so a catalog keeps them: those of sent instances when they are stored, those of
others when they are first retrieved. The catalog is trusted for a series while it has as many instances
as the archive reports. Otherwise the archive is asked for all instances, so that changes by others are
noticed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kaapana_assets.dicom.identifiers import checked_uid
from kaapana_assets.dicom.limits import DEFAULT_LIMITS, ReadingLimits
from kaapana_assets.errors import ConflictingContent, NotFound, OverLimit, StoreUnavailable
from kaapana_assets.shown import shown_lines
from kaapana_assets.stores.pacs.candidates import Candidate, read_candidate
from kaapana_assets.stores.pacs.catalog import PacsCatalog
from kaapana_assets.stores.pacs.protocol import StoredInstance, StoredSeries
from kaapana_assets.stores.pacs.remote.dicomweb import ArchivedSeries, DicomwebArchive


class ArchiveRecords:
    """An archive and its catalog.

    Args:
        archive: the archive.
        catalog: the catalog of this archive and no other.
        scratch: a folder for temporary files.
        limits: limits for reading DICOM objects.
    """

    def __init__(
        self, archive: DicomwebArchive, catalog: PacsCatalog, scratch: Path, *, limits: ReadingLimits = DEFAULT_LIMITS
    ) -> None:
        self._limits = limits
        self._archive = archive
        self._catalog = catalog
        self._scratch = scratch

    def find(self, series_instance_uid: str) -> ArchivedSeries | None:
        """The series in the archive; None if it is not there.

        Raises:
            ConflictingContent: the archive has the series in several studies.
        """
        uid = checked_uid(series_instance_uid, keyword="SeriesInstanceUID")
        found = self._archive.series(uid)
        studies = {each.study_instance_uid for each in found}
        if len(studies) > 1:
            raise ConflictingContent(
                f"the archive {self._archive.url} has series {uid} in {len(studies)} studies: mend it there"
            )
        if not found:
            return None
        # Orthanc lists a series once for each PatientID that its instances have.
        counts = [each.instance_count for each in found if each.instance_count is not None]
        return ArchivedSeries(studies.pop(), uid, sum(counts) if len(counts) == len(found) else None)

    def recorded(self, series: ArchivedSeries) -> StoredSeries | None:
        """The series as the catalog has it; None if the catalog lacks some of its instances."""
        rows = self._rows(series)
        if not rows or len(rows) != series.instance_count:
            return None
        return StoredSeries(series.study_instance_uid, series.series_instance_uid, rows)

    def known(self, series: ArchivedSeries) -> Mapping[str, StoredInstance | None]:
        """All instances that the archive has of a series, by SOPInstanceUID; None for one that was never read."""
        rows = {each.sop_instance_uid: each for each in self._rows(series)}
        if rows and len(rows) == series.instance_count:
            return rows
        uids = self._archive.instance_uids(series)
        if rows.keys() - set(uids):
            self._replace(series, [row for uid, row in rows.items() if uid in uids])
        return {uid: rows.get(uid) for uid in uids}

    def complete(self, series: ArchivedSeries) -> StoredSeries:
        """The series with the digests of all instances; instances that were never read are retrieved."""
        known = self.known(series)
        unknown = [uid for uid, row in known.items() if row is None]
        if len(unknown) * 2 > len(known):
            with self.scratch_folder() as folder:
                self._archive.retrieve(series, Path(folder))
                return self.take(series, Path(folder))
        if unknown:
            parallel = self._archive.connection.parallel
            with ThreadPoolExecutor(min(parallel, len(unknown))) as pool:
                for row in pool.map(lambda uid: self.read(series, uid), unknown):
                    known = {**known, row.sop_instance_uid: row}
        instances = tuple(known[uid] for uid in sorted(known))
        return StoredSeries(
            series.study_instance_uid, series.series_instance_uid, tuple(each for each in instances if each is not None)
        )

    def read(self, series: ArchivedSeries, sop_instance_uid: str) -> StoredInstance:
        """Retrieve one instance, add its size and digest to the catalog, and return them."""
        with self.scratch_folder() as folder:
            path = self.fetch(series, sop_instance_uid, Path(folder))
            row = self._checked(series, path).instance
        self.add(series, [row])
        return row

    def fetch(self, series: ArchivedSeries, sop_instance_uid: str, folder: Path) -> Path:
        """Retrieve one instance into a folder and return its file."""
        files = self._archive.retrieve(series, folder, sop_instance_uid=sop_instance_uid)
        if len(files) > 1:
            raise ConflictingContent(
                f"the archive {self._archive.url} has instance {sop_instance_uid} of series "
                f"{series.series_instance_uid} {len(files)} times: mend it there"
            )
        return files[0]

    def take(self, series: ArchivedSeries, folder: Path) -> StoredSeries:
        """Rename the files of a whole series to ``<SOPInstanceUID>.dcm`` and add them to the catalog.

        Raises:
            StoreUnavailable: the files are not exactly the instances of the series, or one is damaged.
        """
        rows: dict[str, StoredInstance] = {}
        for path in sorted(folder.iterdir()):
            row = self._checked(series, path).instance
            path.rename(folder / f"{row.sop_instance_uid}.dcm")
            rows[row.sop_instance_uid] = row
        if len(rows) != series.instance_count and (expected := set(self._archive.instance_uids(series))) != rows.keys():
            raise StoreUnavailable(
                f"the archive {self._archive.url} gave {len(rows)} of the {len(expected)} instances of series "
                f"{series.series_instance_uid}: try again"
            )
        instances = tuple(rows[uid] for uid in sorted(rows))
        if self._rows(series) != instances:
            self._replace(series, instances)
        return StoredSeries(series.study_instance_uid, series.series_instance_uid, instances)

    def add(self, series: ArchivedSeries, instances: Iterable[StoredInstance]) -> None:
        """Add instances of a series to the catalog."""
        if self._catalog.study_of(series.series_instance_uid) not in (None, series.study_instance_uid):
            self._replace(series, ())
        uids = series.study_instance_uid, series.series_instance_uid
        self._catalog.add([(*uids, each) for each in instances])

    def forget(self, series_instance_uid: str) -> None:
        """Remove a series that the archive does not have any more from the catalog."""
        if self._catalog.study_of(series_instance_uid) is not None:
            self._catalog.replace("", series_instance_uid, ())

    def scratch_folder(self) -> tempfile.TemporaryDirectory[str]:
        """A temporary folder that is removed with its contents."""
        self._scratch.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(dir=self._scratch)

    def _checked(self, series: ArchivedSeries, path: Path) -> Candidate:
        read = read_candidate(path, limits=self._limits)
        if not isinstance(read, Candidate):
            gave = f"the archive {self._archive.url} gave a file of series {series.series_instance_uid}"
            if read.is_over_limit:  # a retry would not change that
                raise OverLimit(f"{gave} that is not read: {read.reason.removeprefix(shown_lines(f'{path}: '))}")
            raise StoreUnavailable(f"{gave} that is damaged: try again")
        if read.identity.series_instance_uid != series.series_instance_uid:
            raise NotFound(
                f"the archive {self._archive.url} gave series {read.identity.series_instance_uid} for "
                f"{series.series_instance_uid}: mend it there"
            )
        return read

    def _rows(self, series: ArchivedSeries) -> tuple[StoredInstance, ...]:
        if self._catalog.study_of(series.series_instance_uid) != series.study_instance_uid:
            return ()
        return self._catalog.instances(series.series_instance_uid)

    def _replace(self, series: ArchivedSeries, instances: Iterable[StoredInstance]) -> None:
        self._catalog.replace(series.study_instance_uid, series.series_instance_uid, instances)
