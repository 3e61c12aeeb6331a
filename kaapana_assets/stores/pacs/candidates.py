"""Reads files that are to be stored in a PACS, once for identifiers, size and digest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kaapana_assets.dicom.digests import content_digest
from kaapana_assets.dicom.headers import InstanceIdentity, read_identity
from kaapana_assets.dicom.limits import DEFAULT_LIMITS, ReadingLimits
from kaapana_assets.errors import InvalidIdentifier, OverLimit, UnreadableDicom
from kaapana_assets.stores.pacs.protocol import InstanceOutcome, StoredInstance, StoreOutcome


@dataclass(frozen=True)
class Candidate:
    """A file that can be stored."""

    path: Path
    identity: InstanceIdentity
    size_bytes: int
    content_digest: str

    @property
    def instance(self) -> StoredInstance:
        """The instance that the PACS has once the file is stored."""
        return StoredInstance(self.identity.sop_instance_uid, self.size_bytes, self.content_digest)

    def outcome(self, outcome: StoreOutcome, reason: str = "") -> InstanceOutcome:
        """The outcome of storing the file."""
        return InstanceOutcome(self.path, self.identity.sop_instance_uid, outcome, reason)

    def already_there(self, stored: StoredInstance | None) -> InstanceOutcome:
        """The outcome when the same object was stored before, perhaps with other bytes."""
        same = stored is not None and stored.content_digest == self.content_digest
        sop = self.identity.sop_instance_uid
        return InstanceOutcome(self.path, sop, StoreOutcome.ALREADY_THERE, is_same_file=same)


def read_candidate(path: Path, *, limits: ReadingLimits = DEFAULT_LIMITS) -> Candidate | InstanceOutcome:
    """Read a file. Returns a candidate, or the outcome that says why it cannot be stored."""
    try:
        return Candidate(path, read_identity(path, limits=limits), path.stat().st_size, content_digest(path))
    except (UnreadableDicom, InvalidIdentifier) as exc:
        over = isinstance(exc, OverLimit)
        return InstanceOutcome(path, "", StoreOutcome.FAILED, str(exc), is_over_limit=over)
    except FileNotFoundError:
        return InstanceOutcome(path, "", StoreOutcome.FAILED, f"{path} is not there any more")
