"""Which implementation of each store the settings ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kaapana_assets.settings import Settings
    from kaapana_assets.stores.index import MetadataIndex
    from kaapana_assets.stores.objects import ObjectStore
    from kaapana_assets.stores.pacs import Pacs


def open_pacs(settings: Settings) -> Pacs:
    """The archive of all DICOM instances."""
    from kaapana_assets.stores.folder_pacs import FolderPacs

    return FolderPacs(settings.home / "archive")


def open_index(settings: Settings) -> MetadataIndex:
    """The searchable documents, one per series."""
    from kaapana_assets.stores.sqlite_index import SqliteIndex

    return SqliteIndex(settings.home / "index.sqlite")


def open_objects(settings: Settings) -> ObjectStore:
    """The buckets that results are put into."""
    from kaapana_assets.stores.folder_objects import FolderObjects

    return FolderObjects(settings.home / "objects")
