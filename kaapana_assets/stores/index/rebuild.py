"""Rebuilds the metadata index from the series in the PACS, in steps; it may be interrupted at any point."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from kaapana_assets.dicom.documents import series_document
from kaapana_assets.dicom.headers import read_header
from kaapana_assets.dicom.limits import DEFAULT_LIMITS, ReadingLimits
from kaapana_assets.errors import InputError, NotFound
from kaapana_assets.stores.query import All

if TYPE_CHECKING:
    from kaapana_assets.dicom.attributes import Document
    from kaapana_assets.stores.index.protocol import MetadataIndex
    from kaapana_assets.stores.pacs.protocol import Pacs

_DOCUMENTS_TOGETHER = 50


@dataclass(frozen=True, kw_only=True)
class Rebuild:
    """One rebuild of an index; it continues an earlier one that has the same record.

    Attributes:
        record: file with the UIDs of the series that are done; removed at the end.
        scratch: folder for the files of one series at a time.
        limits: limits for reading DICOM objects.
        failed: reasons by SeriesInstanceUID, for series without a readable header or with missing files;
            their documents are not changed.
    """

    pacs: Pacs
    index: MetadataIndex
    record: Path
    scratch: Path
    limits: ReadingLimits = DEFAULT_LIMITS
    failed: dict[str, str] = field(default_factory=dict)

    def remaining(self) -> list[str]:
        """The series in the PACS that are not done yet.

        Raises:
            StoreUnavailable: the PACS does not answer.
        """
        done = set(self.record.read_text().split()) if self.record.exists() else set()
        return [uid for uid in self.pacs.series_uids() if uid not in done]

    def run(self, uids: list[str], *, now: datetime) -> Iterator[int]:
        """Put the documents of these series in steps, and after each step yield the number of its series.

        The platform may ingest series at the same time. A series keeps its arrival time if the index has
        one, else it gets ``now``.

        Raises:
            StoreUnavailable: the PACS or the index does not answer; recorded series stay done.
        """
        self.record.parent.mkdir(parents=True, exist_ok=True)
        for start in range(0, len(uids), _DOCUMENTS_TOGETHER):
            todo = uids[start : start + _DOCUMENTS_TOGETHER]
            while todo:
                described = {uid: found for uid in todo if (found := self._described(uid, now)) is not None}
                self.index.put(document for document, _ in described.values())
                # If a series grew meanwhile, the platform may have put its newer document before this one.
                todo = [uid for uid, (_, digest) in described.items() if self._has_changed(uid, digest)]
            step = uids[start : start + _DOCUMENTS_TOGETHER]
            self._note([uid for uid in step if uid not in self.failed])
            yield len(step)

    def finish(self) -> int:
        """Remove from the index all series that are not in the PACS. Returns how many were removed.

        Raises:
            StoreUnavailable: the PACS or the index does not answer.
        """
        # The index is listed first, because a series is in the PACS before it is in the index.
        indexed = list(self.index.series(All()))
        stored = set(self.pacs.series_uids())
        # The list may be incomplete (some archives limit it), so each missing series is looked up by its UID.
        gone = [uid for uid in indexed if uid not in stored and self._is_gone(uid)]
        self.index.delete(gone)
        self.record.unlink(missing_ok=True)
        return len(gone)

    def _is_gone(self, uid: str) -> bool:
        try:
            self.pacs.series(uid)
        except NotFound:
            return True
        return False

    def _has_changed(self, uid: str, digest: str) -> bool:
        """Whether a series has changed since it was described; one that was forgotten is removed from the index."""
        try:
            return self.pacs.series(uid).digest != digest
        except NotFound:
            self.index.forget([uid])
            return False

    def _described(self, uid: str, now: datetime) -> tuple[Document, str] | None:
        self.scratch.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=self.scratch))
        try:
            stored = self.pacs.retrieve(uid, folder / "series", writable_copy=False)
            headers = (read_header(path, limits=self.limits) for path in sorted((folder / "series").iterdir()))
            count = len(stored.instances)
            return series_document(headers, arrival_time=self._arrival(uid, now), instance_count=count), stored.digest
        except InputError as exc:
            self.failed[uid] = str(exc)
            return None
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _arrival(self, uid: str, now: datetime) -> datetime:
        with suppress(NotFound, ValueError):
            return datetime.fromisoformat(str(self.index.get(uid).get("ArrivalTime")).replace("Z", "+00:00"))
        return now

    def _note(self, uids: list[str]) -> None:
        with self.record.open("a") as record:
            record.write("".join(f"{uid}\n" for uid in uids))
            record.flush()
            os.fsync(record.fileno())
