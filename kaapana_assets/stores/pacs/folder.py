"""The PACS as a folder: the files ``archive/<study>/<series>/<sop>.dcm`` and a catalog of them.

The files are authoritative. They are read-only, and are hard links to files of the spool and of run
directories where the file system allows it.
"""

from __future__ import annotations

import os
import shutil
import stat
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from kaapana_assets.dicom.digests import content_digest
from kaapana_assets.dicom.equality import same_object, syntax_difference
from kaapana_assets.dicom.identifiers import checked_uid
from kaapana_assets.dicom.limits import DEFAULT_LIMITS, ReadingLimits
from kaapana_assets.durable import make_folder, sync_folder
from kaapana_assets.errors import NotFound, StoreUnavailable
from kaapana_assets.locks import locked
from kaapana_assets.stores.checks import StoreReport, free_where
from kaapana_assets.stores.files.durable import copy_into, remove_if_empty
from kaapana_assets.stores.files.transfer import NO_LINK, give, staged_folder
from kaapana_assets.stores.pacs.candidates import Candidate, read_candidate
from kaapana_assets.stores.pacs.catalog import PacsCatalog, Row
from kaapana_assets.stores.pacs.protocol import InstanceOutcome, PacsCounts, StoredInstance, StoredSeries, StoreOutcome


class FolderPacs:
    """A PACS in a folder, for any number of processes at once.

    Args:
        folder: the archive; it is made when it is first needed. A missing catalog is made again from the
            files.
        limits: limits for reading DICOM objects.
    """

    def __init__(self, folder: Path, *, limits: ReadingLimits = DEFAULT_LIMITS) -> None:
        self._folder = folder
        self._limits = limits
        self._lock_path = folder / ".lock"
        self._temporary_folder = folder / ".tmp"
        self._catalog = PacsCatalog(folder / "catalog.sqlite")
        self._checked = False

    def store(self, files: Sequence[Path]) -> list[InstanceOutcome]:
        """Store files; see ``Pacs.store``."""
        read = [read_candidate(path, limits=self._limits) for path in files]
        candidates = [each for each in read if isinstance(each, Candidate)]
        stored: Iterator[InstanceOutcome] = iter(self._store_all(candidates) if candidates else ())
        return [next(stored) if isinstance(each, Candidate) else each for each in read]

    def series(self, series_instance_uid: str) -> StoredSeries:
        """The stored instances of a series; see ``Pacs.series``."""
        uid = checked_uid(series_instance_uid, keyword="SeriesInstanceUID")
        catalog = self._ready_catalog()
        study = catalog.study_of(uid)
        if study is None:
            raise NotFound(f"series {uid} is not in the PACS {self._folder}")
        return StoredSeries(study, uid, catalog.instances(uid))

    def retrieve(self, series_instance_uid: str, into: Path, *, writable_copy: bool) -> StoredSeries:
        """Put all files of a series into a folder; see ``Pacs.retrieve``."""
        series = self.series(series_instance_uid)
        source = self._folder / series.study_instance_uid / series.series_instance_uid
        with (
            _unavailable(f"series {series.series_instance_uid} cannot be put from {source} into {into}"),
            staged_folder(into) as staged,
        ):
            for instance in series.instances:
                name = f"{instance.sop_instance_uid}.dcm"
                try:
                    give(source / name, staged / name, writable_copy=writable_copy)
                except FileNotFoundError:
                    self._check_files(series, source)
                    raise
        return series

    def _check_files(self, series: StoredSeries, folder: Path) -> None:
        """Check that the files of a series exist; only ``forget`` ever removes one.

        Raises:
            NotFound: some are missing; a retry would not change that.
        """
        gone = sum(not (folder / f"{each.sop_instance_uid}.dcm").exists() for each in series.instances)
        if gone:
            raise NotFound(
                f"series {series.series_instance_uid}: {gone} of its {len(series.instances)} files are gone from "
                f"{folder}: restore them; if they were meant to go, stop the platform, delete "
                f"{self._folder / 'catalog.sqlite'}* and run `kaapana-assets index rebuild`"
            )

    def forget(self, series_instance_uid: str) -> str:
        """Remove a series; see ``Pacs.forget``. Nothing of it remains."""
        uid = checked_uid(series_instance_uid, keyword="SeriesInstanceUID")
        catalog = self._ready_catalog()
        with self._locked():
            for folder in self._folder.glob(f"[0-9]*/{uid}"):
                shutil.rmtree(folder)
                remove_if_empty(folder.parent)
                sync_folder(self._folder)
            catalog.forget(uid)
        return ""

    def counts(self) -> PacsCounts:
        """The numbers of stored series and instances, and their size; see ``Pacs.counts``."""
        return self._ready_catalog().counts()

    def series_uids(self) -> Iterable[str]:
        """The SeriesInstanceUIDs of all stored series; see ``Pacs.series_uids``."""
        return self._ready_catalog().series_uids()

    def check(self) -> StoreReport:
        """Check that the PACS works; see ``Pacs.check``. Does not wait for the lock, and does not fill the catalog."""
        free = free_where(self._folder)
        known = self._catalog.known_counts()
        counts = asdict(known or PacsCounts(0, 0, 0)) if known or not self._folder.exists() else {}
        return StoreReport(product="folder", counts=counts, free_bytes=free)

    def close(self) -> None:
        """Close the catalog; the next call opens it again."""
        self._catalog.close()

    def _store_all(self, candidates: Sequence[Candidate]) -> list[InstanceOutcome]:
        catalog = self._ready_catalog()
        outcomes = []
        rows: list[Row] = []
        touched: dict[Path, None] = {}
        known = _KnownInstances(catalog)
        with self._locked():
            for candidate in candidates:
                outcome = self._place(candidate, known, touched)
                outcomes.append(outcome)
                if outcome.outcome in (StoreOutcome.STORED, StoreOutcome.ALREADY_THERE):
                    rows.append(_row(candidate, known))
            # Also sync folders of files that existed: the process that put them may have been killed before this.
            for folder in touched:
                sync_folder(folder)
            catalog.add(rows)
        return outcomes

    def _place(self, candidate: Candidate, known: _KnownInstances, touched: dict[Path, None]) -> InstanceOutcome:
        identity = candidate.identity
        sop, series, study = identity.sop_instance_uid, identity.series_instance_uid, identity.study_instance_uid
        if (other := known.study(series)) not in (None, study):
            reason = f"series {series} is stored as part of study {other}, this instance says study {study}"
            return InstanceOutcome(candidate.path, sop, StoreOutcome.FAILED, reason)
        folder = self._folder / study / series
        if folder not in touched:
            make_folder(folder)
            touched[folder] = None
        target = folder / f"{sop}.dcm"
        try:
            _put(candidate.path, target, aside=self._temporary_folder / uuid.uuid4().hex)
        except FileExistsError:
            stored = known.instance(series, sop) or _instance(target)
            if stored.content_digest != candidate.content_digest and not same_object(
                target, candidate.path, limits=self._limits
            ):
                reason = f"other content is stored as SOPInstanceUID {sop} of series {series}"
                reason += syntax_difference(candidate.path, target)
                return InstanceOutcome(candidate.path, sop, StoreOutcome.CONFLICT, reason)
            known.note(candidate, stored)
            return candidate.already_there(stored)
        known.note(candidate, candidate.instance)
        return InstanceOutcome(candidate.path, sop, StoreOutcome.STORED)

    def _ready_catalog(self) -> PacsCatalog:
        if not self._checked:
            with _unavailable(f"the PACS folder {self._folder} cannot be made"):
                make_folder(self._temporary_folder)
            with self._locked():
                # Writers hold the lock, so these files were left behind.
                for path in self._temporary_folder.iterdir():
                    path.unlink()
                self._catalog.fill_if_new(self._rows_of_files())
            self._checked = True
        return self._catalog

    def _rows_of_files(self) -> Iterator[Row]:
        for path in sorted(self._folder.glob("[0-9]*/[0-9]*/[0-9]*.dcm")):
            yield path.parent.parent.name, path.parent.name, _instance(path)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with _unavailable(f"the PACS folder {self._folder} cannot be written"), locked(self._lock_path):
            yield


class _KnownInstances:
    """The catalog's rows for the series of one ``store`` call, with the instances that the call has added."""

    def __init__(self, catalog: PacsCatalog) -> None:
        self._catalog = catalog
        self._studies: dict[str, str | None] = {}
        self._instances: dict[str, dict[str, StoredInstance]] = {}

    def study(self, series: str) -> str | None:
        if series not in self._studies:
            self._studies[series] = self._catalog.study_of(series)
            stored = self._catalog.instances(series)
            self._instances[series] = {each.sop_instance_uid: each for each in stored}
        return self._studies[series]

    def instance(self, series: str, sop: str) -> StoredInstance | None:
        return self._instances[series].get(sop)

    def note(self, candidate: Candidate, stored: StoredInstance) -> None:
        identity = candidate.identity
        self._studies[identity.series_instance_uid] = identity.study_instance_uid
        self._instances[identity.series_instance_uid][identity.sop_instance_uid] = stored


def _row(candidate: Candidate, known: _KnownInstances) -> Row:
    """The catalog row of a candidate; the stored file can be the same object in another encoding."""
    identity = candidate.identity
    stored = known.instance(identity.series_instance_uid, identity.sop_instance_uid) or candidate.instance
    return identity.study_instance_uid, identity.series_instance_uid, stored


def _instance(path: Path) -> StoredInstance:
    return StoredInstance(path.stem, path.stat().st_size, content_digest(path))


def _put(source: Path, target: Path, *, aside: Path) -> None:
    """Link or copy a file to ``target``, synced and read-only; the folder of ``target`` is not synced."""
    if not source.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH):
        fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            os.fdatasync(fd)
        finally:
            os.close(fd)
        try:
            os.link(source, target)
        except OSError as exc:
            if exc.errno not in NO_LINK:
                raise
        else:
            return
    # A file that can be written to is copied, because a hard link would let others change the archive.
    copy_into(source, aside)
    try:
        aside.chmod(0o444)
        os.link(aside, target)
    finally:
        aside.unlink()


@contextmanager
def _unavailable(doing: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise StoreUnavailable(f"{doing}: {exc.strerror or exc}") from exc
