"""What a store says of itself when it is asked whether it works; the same words for every implementation.

A check reads and leaves nothing behind: it makes no folder, index or bucket. What a store raises when
it does not work is said by its protocol (``Pacs.check``, ``MetadataIndex.check``, ``ObjectStore.check``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kaapana_assets.errors import StoreUnavailable
from kaapana_assets.stores.files.durable import free_bytes


@dataclass(frozen=True, kw_only=True)
class StoreReport:
    """A store that works.

    Attributes:
        product: what answers, as it calls itself: ``SQLite``, ``Elasticsearch``, ``MinIO``, ``folder``.
        version: of the product; empty where it does not say it.
        counts: how much it holds, by what is counted (``series``, ``size_bytes``); nothing that would
            be expensive to count.
        free_bytes: of the disk, for a store that is a folder.
    """

    product: str
    version: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    free_bytes: int | None = None


def free_where(folder: Path) -> int:
    """The bytes that are free for a folder, which may not be made yet.

    Raises:
        StoreUnavailable: it is no folder, or cannot be written.
    """
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        free = free_bytes(there)
    except OSError as exc:
        raise StoreUnavailable(f"{folder} cannot be reached: {exc.strerror}") from exc
    if not there.is_dir():
        raise StoreUnavailable(f"{folder} cannot be a folder: {there} is a file")
    if not os.access(there, os.W_OK | os.X_OK):
        raise StoreUnavailable(f"{folder} cannot be written: mend the rights of {there}")
    return free
