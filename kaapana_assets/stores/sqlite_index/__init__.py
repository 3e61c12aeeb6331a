"""The embedded metadata index: one SQLite file that several processes use at once."""

from kaapana_assets.stores.sqlite_index.index import SqliteIndex

__all__ = ["SqliteIndex"]
