"""The metadata index made again from what the PACS holds, in steps that can be cut short anywhere."""

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
    """One rebuilding of an index, which goes on where an earlier one of the same record ended.

    Attributes:
        record: file with the UIDs that are done; removed at the end.
        scratch: folder for one series at a time.
        limits: for the objects that are read.
        failed: reasons by SeriesInstanceUID, of series without a readable header and of those of which files
            are gone; their documents stay as they were.
    """

    pacs: Pacs
    index: MetadataIndex
    record: Path
    scratch: Path
    limits: ReadingLimits = DEFAULT_LIMITS
    failed: dict[str, str] = field(default_factory=dict)

    def remaining(self) -> list[str]:
        """The series that are not done.

        Raises:
            StoreUnavailable: the PACS does not answer.
        """
        done = set(self.record.read_text().split()) if self.record.exists() else set()
        return [uid for uid in self.pacs.series_uids() if uid not in done]

    def run(self, uids: list[str], *, now: datetime) -> Iterator[int]:
        """Put the documents of these series; gives how many are done after each step.

        The platform may take in series at the same time. A series keeps its time of arrival if the
        index knows it, else it gets ``now``.

        Raises:
            StoreUnavailable: the PACS or the index does not answer; what is recorded stays done.
        """
        self.record.parent.mkdir(parents=True, exist_ok=True)
        for start in range(0, len(uids), _DOCUMENTS_TOGETHER):
            todo = uids[start : start + _DOCUMENTS_TOGETHER]
            while todo:
                described = {uid: found for uid in todo if (found := self._described(uid, now)) is not None}
                self.index.put(document for document, _ in described.values())
                # A series that grew meanwhile may have been put by the platform before.
                todo = [uid for uid, (_, digest) in described.items() if self._has_changed(uid, digest)]
            step = uids[start : start + _DOCUMENTS_TOGETHER]
            self._note([uid for uid in step if uid not in self.failed])
            yield len(step)

    def finish(self) -> int:
        """Remove what the PACS does not have from the index; gives how many those were.

        Raises:
            StoreUnavailable: the PACS or the index does not answer.
        """
        # In this order: a series is in the PACS before it is in the index.
        indexed = list(self.index.series(All()))
        stored = set(self.pacs.series_uids())
        # A list can be short (an archive that limits it); what it lacks is asked for by name.
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
        """Whether a series has grown since it was described; one that was forgotten goes from the index again."""
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
