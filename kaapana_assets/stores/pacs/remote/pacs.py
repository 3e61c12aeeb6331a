"""The PACS on a DICOMweb archive: Orthanc, dcm4chee-arc and others that follow the standard.

The archive is authoritative. The platform keeps a catalog of digests, which QIDO does not report, and
optionally a cache of series; both can be deleted.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from kaapana_assets.dicom.digests import content_digest
from kaapana_assets.dicom.equality import same_object
from kaapana_assets.dicom.limits import DEFAULT_LIMITS, ReadingLimits
from kaapana_assets.durable import make_folder
from kaapana_assets.errors import ConfigurationError, ConflictingContent, NotFound, StoreUnavailable
from kaapana_assets.locks import locked
from kaapana_assets.stores.checks import StoreReport, free_where
from kaapana_assets.stores.files.durable import remove_tree
from kaapana_assets.stores.files.transfer import staged_folder
from kaapana_assets.stores.pacs.candidates import Candidate, read_candidate
from kaapana_assets.stores.pacs.catalog import PacsCatalog
from kaapana_assets.stores.pacs.protocol import InstanceOutcome, PacsCounts, StoredInstance, StoredSeries, StoreOutcome
from kaapana_assets.stores.pacs.remote.dicomweb import ArchivedSeries, DicomwebArchive
from kaapana_assets.stores.pacs.remote.records import ArchiveRecords
from kaapana_assets.stores.pacs.remote.refusals import Refusals
from kaapana_assets.stores.pacs.remote.senders import InstanceSender, Refused
from kaapana_assets.stores.pacs.remote.series_cache import SeriesCache
from kaapana_assets.stores.pacs.remote.store_status import Refusal

_LOCKS = 64
_LOOK_EVERY_S = 0.5


@dataclass
class _Target:
    """One series of a ``store`` call, with the instances that the archive has and those that the call adds."""

    uid: str
    archived: ArchivedSeries | None
    instances: dict[str, StoredInstance | None]


class DicomwebPacs:
    """A PACS on a server, for any number of processes at once.

    Processes that share ``folder`` never send different content under one UID. If other senders do so at
    the same moment, only an archive that refuses duplicates can prevent it.

    Args:
        archive: the archive that holds the instances.
        sender: sends instances to the archive.
        folder: folder of the catalog and the cache, for this archive and no other.
        cache_bytes: size limit of the cache of series; 0 turns it off.
        indexed_within_s: seconds that the archive may take until it lists what it stored, and no longer lists
            what it removed.
        limits: limits for reading DICOM objects.
    """

    def __init__(
        self,
        archive: DicomwebArchive,
        sender: InstanceSender,
        folder: Path,
        *,
        cache_bytes: int = 0,
        indexed_within_s: float = 10.0,
        limits: ReadingLimits = DEFAULT_LIMITS,
    ) -> None:
        self._limits = limits
        self._indexed_within_s = indexed_within_s
        self._archive = archive
        self._sender = sender
        self._folder = folder
        self._catalog = PacsCatalog(folder / "catalog.sqlite")
        self._records = ArchiveRecords(archive, self._catalog, folder / "scratch", limits=limits)
        self._refusals = Refusals(folder / "refused")
        self._cache = SeriesCache(folder / "series", cache_bytes) if cache_bytes else None
        self._is_ready = False

    def store(self, files: Sequence[Path]) -> list[InstanceOutcome]:
        """Store files; see ``Pacs.store``. An instance counts as stored when the archive lists it.

        Raises:
            ConfigurationError: the archive refuses the credentials.
        """
        self._make_ready()
        read = [read_candidate(path, limits=self._limits) for path in files]
        candidates = [each for each in read if isinstance(each, Candidate)]
        uids = {each.identity.series_instance_uid for each in candidates}
        with self._local_files("instances that are to be stored"), self._locked(uids):
            stored = iter(self._store_all(candidates))
        return [next(stored) if isinstance(each, Candidate) else each for each in read]

    def series(self, series_instance_uid: str) -> StoredSeries:
        """The stored instances of a series; see ``Pacs.series``.

        Instances that others stored are retrieved once to compute their digests.
        """
        self._make_ready()
        with self._local_files(f"series {series_instance_uid}"):
            return self._records.complete(self._found(series_instance_uid))

    def retrieve(self, series_instance_uid: str, into: Path, *, writable_copy: bool) -> StoredSeries:
        """Put all files of a series into a folder; see ``Pacs.retrieve``."""
        self._make_ready()
        archived = self._found(series_instance_uid)
        with self._local_files(f"series {series_instance_uid} that is put into {into}"), staged_folder(into) as staged:
            recorded = self._records.recorded(archived)
            if self._cache and recorded and self._cache.give(recorded, staged, writable_copy=writable_copy):
                return recorded
            self._archive.retrieve(archived, staged)
            stored = self._records.take(archived, staged)
            for path in staged.iterdir():
                path.chmod(0o644 if writable_copy else 0o444)
            if self._cache:
                self._cache.keep(stored, staged, share=not writable_copy)
            return stored

    def forget(self, series_instance_uid: str) -> str:
        """Remove a series; see ``Pacs.forget``. DICOMweb defines no removal, so the ways of some archives are tried."""
        self._make_ready()
        with self._local_files(f"series {series_instance_uid}"), self._locked([series_instance_uid]):
            try:
                remains = self._remove(series_instance_uid)
            except ConflictingContent as exc:
                remains = str(exc)
            self._catalog.forget(series_instance_uid)
            SeriesCache(self._folder / "series", 0).forget(series_instance_uid)
            remove_tree(self._folder / "scratch")
            remove_tree(self._folder / "refused")
        return remains

    def counts(self) -> PacsCounts:
        """See ``Pacs.counts``; the size covers only the instances that this platform stored or retrieved."""
        self._make_ready()
        found = list(self._archive.all_series())
        instances = sum(
            len(self._archive.instance_uids(each)) if each.instance_count is None else each.instance_count
            for each in found
        )
        uids = {each.series_instance_uid for each in found}
        return PacsCounts(series=len(uids), instances=instances, size_bytes=self._catalog.counts().size_bytes)

    def series_uids(self) -> Iterable[str]:
        """The SeriesInstanceUIDs of all stored series; see ``Pacs.series_uids``."""
        return sorted({each.series_instance_uid for each in self._archive.all_series()})

    def check(self) -> StoreReport:
        """Check that the archive works; see ``Pacs.check``.

        An archive does not report how much it holds without listing it, so only what this platform stored
        there or retrieved is counted.
        """
        free_where(self._folder)
        server = self._archive.check()
        self._sender.check()
        known = self._catalog.known_counts()
        counts = {f"known_{name}": count for name, count in asdict(known).items()} if known else {}
        product, _, version = server.partition("/")
        return StoreReport(product=product or "DICOMweb archive", version=version, counts=counts)

    def close(self) -> None:
        """Close the catalog; the next call opens it again."""
        self._catalog.close()

    def _store_all(self, candidates: Sequence[Candidate]) -> list[InstanceOutcome]:
        targets = {uid: self._target(uid) for uid in dict.fromkeys(c.identity.series_instance_uid for c in candidates)}
        outcomes: dict[int, InstanceOutcome] = {}
        left = list(range(len(candidates)))
        while left:
            later, to_send, taken = [], [], set()
            for index in left:
                candidate = candidates[index]
                settled = self._settled(candidate, targets[candidate.identity.series_instance_uid])
                if settled is not None:
                    outcomes[index] = settled
                elif candidate.identity.sop_instance_uid in taken:
                    later.append(index)  # a response names only the SOPInstanceUID
                else:
                    taken.add(candidate.identity.sop_instance_uid)
                    to_send.append(index)
            sent = self._send([candidates[index] for index in to_send], targets)
            outcomes.update(zip(to_send, sent, strict=True))
            left = later
        return [outcomes[index] for index in range(len(candidates))]

    def _target(self, uid: str) -> _Target:
        archived = self._records.find(uid)
        if archived is None:
            self._records.forget(uid)
        return _Target(uid, archived, dict(self._records.known(archived)) if archived else {})

    def _settled(self, candidate: Candidate, target: _Target) -> InstanceOutcome | None:
        """The outcome of a file that need not be sent; None if it has to be sent."""
        sop, study = candidate.identity.sop_instance_uid, candidate.identity.study_instance_uid
        if target.archived is None:
            target.archived = ArchivedSeries(study, target.uid, 0)
        if study != target.archived.study_instance_uid:
            other = target.archived.study_instance_uid
            reason = f"series {target.uid} is stored as part of study {other}, this instance says study {study}"
            return candidate.outcome(StoreOutcome.FAILED, reason)
        if sop not in target.instances:
            return None
        if self._holds(target.archived, candidate, target.instances[sop]):
            return candidate.already_there(target.instances[sop])
        reason = f"other content is stored as SOPInstanceUID {sop} of series {target.uid}"
        return candidate.outcome(StoreOutcome.CONFLICT, reason)

    def _holds(self, series: ArchivedSeries, candidate: Candidate, known: StoredInstance | None) -> bool:
        """Whether the archive's instance of these UIDs is the same object; if digests differ, both are compared."""
        if known is not None and known.content_digest == candidate.content_digest:
            return True
        sop = candidate.identity.sop_instance_uid
        with self._records.scratch_folder() as folder:
            path = self._records.fetch(series, sop, Path(folder))
            row = StoredInstance(sop, path.stat().st_size, content_digest(path))
            if row != known:
                self._records.add(series, [row])
            return row.content_digest == candidate.content_digest or same_object(
                path, candidate.path, limits=self._limits
            )

    def _send(self, candidates: Sequence[Candidate], targets: dict[str, _Target]) -> list[InstanceOutcome]:
        if not candidates:
            return []
        results = self._sender.send(candidates)
        pairs = list(zip(candidates, results, strict=True))
        works = any(result is None for result in results)
        if works:
            self._refusals.note_taken()
        for candidate, result in pairs:
            if result is not None:
                self._raise_unless_final(candidate, result, works=works)
        self._note_arrived([candidate for candidate, result in pairs if result is None], targets)
        return [
            candidate.outcome(StoreOutcome.STORED)
            if result is None
            else self._refused(candidate, result, targets[candidate.identity.series_instance_uid])
            for candidate, result in pairs
        ]

    def _raise_unless_final(self, candidate: Candidate, refused: Refused, *, works: bool) -> None:
        """Raise if the file is not at fault. For an unclear refusal, it is at fault if the archive takes others."""
        sop = candidate.identity.sop_instance_uid
        text = f"instance {sop}: {refused.reason}"
        if refused.meaning is Refusal.NOT_ALLOWED:
            raise ConfigurationError(f"{text}: see KAAPANA_DICOMWEB_USER and the archive's rules for it")
        if refused.meaning is Refusal.BUSY:
            raise StoreUnavailable(text)
        if refused.meaning is Refusal.UNKNOWN and not works and not self._refusals.is_of_the_file(sop):
            raise StoreUnavailable(f"{text}; it is tried again, and set aside if it is refused after others were taken")

    def _refused(self, candidate: Candidate, result: Refused, target: _Target) -> InstanceOutcome:
        if result.meaning is Refusal.DUPLICATE and target.archived is not None:
            try:
                if self._holds(target.archived, candidate, None):
                    return candidate.already_there(None)
            except NotFound:  # the archive has the UID in another series
                pass
            return candidate.outcome(StoreOutcome.CONFLICT, result.reason)
        return candidate.outcome(StoreOutcome.FAILED, result.reason)

    def _note_arrived(self, candidates: Sequence[Candidate], targets: dict[str, _Target]) -> None:
        """Wait until the archive lists the instances that it took, and add them to the catalog."""
        arrived: dict[str, dict[str, StoredInstance]] = {}
        for each in candidates:
            row = each.instance
            arrived.setdefault(each.identity.series_instance_uid, {})[row.sop_instance_uid] = row
        for uid, rows in arrived.items():
            target = targets[uid]
            self._wait_for(target, rows)
            target.instances.update(rows)
            if self._sender.keeps_bytes and target.archived is not None:
                self._records.add(target.archived, rows.values())

    def _wait_for(self, target: _Target, rows: dict[str, StoredInstance]) -> None:
        deadline = time.monotonic() + self._indexed_within_s
        while True:
            archived = self._records.find(target.uid)
            if archived and archived.instance_count == len(target.instances) + len(rows):
                return
            missing = rows.keys() - set(self._archive.instance_uids(archived) if archived else ())
            if not missing:
                return
            if time.monotonic() > deadline:
                raise StoreUnavailable(
                    f"the archive {self._archive.url} took {len(rows)} instances of series {target.uid} and does not "
                    f"list {len(missing)} of them, among them {min(missing)}: they are sent again next time"
                )
            time.sleep(_LOOK_EVERY_S)

    def _found(self, series_instance_uid: str) -> ArchivedSeries:
        found = self._records.find(series_instance_uid)
        if found is None:
            self._records.forget(series_instance_uid)
            raise NotFound(f"series {series_instance_uid} is not in the archive {self._archive.url}")
        return found

    def _remove(self, uid: str) -> str:
        """Let the archive remove a series. Returns why it is still there; empty if it is gone."""
        archived = self._records.find(uid)
        if archived is None:
            return ""
        deadline = time.monotonic() + (self._indexed_within_s if self._archive.delete(archived) else 0)
        while self._records.find(uid) is not None:
            if time.monotonic() > deadline:
                return f"series {uid} is still in the archive {self._archive.url}: remove it there"
            time.sleep(_LOOK_EVERY_S)
        return ""

    def _make_ready(self) -> None:
        if not self._is_ready:
            with self._local_files("the catalog"):
                make_folder(self._folder / "locks")
                self._catalog.fill_if_new(())
            self._is_ready = True

    @contextmanager
    def _locked(self, series_uids: Iterable[str]) -> Iterator[None]:
        """Let one process at a time change a series. Series share a few locks, so that there are few lock files."""
        names = sorted({zlib.crc32(uid.encode()) % _LOCKS for uid in series_uids})
        with ExitStack() as held:
            for name in names:
                held.enter_context(locked(self._folder / "locks" / str(name)))
            yield

    @contextmanager
    def _local_files(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise StoreUnavailable(f"{what}: {self._folder} or its target: {exc.strerror or exc}") from exc
