"""The report of a store that was checked, the same type for every implementation.

A check only reads: it makes no folder, index or bucket. The protocols document what it raises when the
store does not work (``Pacs.check``, ``MetadataIndex.check``, ``ObjectStore.check``).
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
    """The report of a store that works.

    Attributes:
        product: name of the server or engine: ``SQLite``, ``Elasticsearch``, ``MinIO``, ``folder``.
        version: of the product; empty if the product does not report one.
        counts: how much the store holds, by what is counted (``series``, ``size_bytes``); only what is
            cheap to count.
        free_bytes: free space on the disk, for a store that is a folder.
    """

    product: str
    version: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    free_bytes: int | None = None


def free_where(folder: Path) -> int:
    """The free bytes on the disk of a folder, which need not exist yet.

    Raises:
        StoreUnavailable: the folder cannot be reached or written, or a file is in its way.
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
