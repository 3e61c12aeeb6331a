"""Clears the archive and the index, current and former ones, the caches and the logs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from kaapana_assets.errors import NotFound, StoreUnavailable
from kaapana_assets.forgetting.location import Location
from kaapana_assets.settings import Settings
from kaapana_assets.stores.factory import open_index, open_pacs
from kaapana_assets.stores.forgotten import Forgetting
from kaapana_assets.stores.index.protocol import MetadataIndex
from kaapana_assets.stores.pacs.catalog import PacsCatalog
from kaapana_assets.stores.pacs.folder import FolderPacs
from kaapana_assets.stores.pacs.protocol import Pacs
from kaapana_assets.stores.pacs.remote.series_cache import SeriesCache
from kaapana_assets.stores.sqlite_index import SqliteIndex

_REDACTED = b"x"


def archive_location(settings: Settings, forgetting: Forgetting) -> Location:
    """The instances in the PACS, and in an embedded archive that was used before."""
    stores: list[Pacs] = [open_pacs(settings)]
    before = settings.paths.archive
    if settings.pacs != "folder" and before.is_dir():
        stores.append(FolderPacs(before))

    def clear() -> list[str]:
        return [said for store in stores for uid in forgetting.series if (said := store.forget(uid))]

    return Location(
        name="archive",
        unit="instances",
        count=lambda: sum(_instances(store, uid) for store in stores for uid in forgetting.series),
        clear=clear,
    )


def index_location(settings: Settings, forgetting: Forgetting) -> Location:
    """The documents in the metadata index with their indexed words, also in a former embedded index."""
    before = settings.paths.index

    def opened() -> Iterator[MetadataIndex]:
        yield open_index(settings)
        if settings.index != "sqlite" and before.exists():
            yield SqliteIndex(before)

    def count() -> int:
        found = 0
        for index in opened():
            found += sum(_is_indexed(index, uid) for uid in forgetting.series)
            index.close()
        return found

    def clear() -> list[str]:
        for index in opened():
            try:
                index.forget(forgetting.series)
            finally:
                index.close()
        return []

    return Location(name="index", unit="documents", count=count, clear=clear)


def caches_location(home: Path, forgetting: Forgetting) -> Location:
    """Catalogs and caches of archives on servers, including servers that are no longer used."""

    def found() -> list[Path]:
        return [path for uid in forgetting.series for path in home.glob(f"archives/*/series/{uid}-*")]

    def clear() -> list[str]:
        for folder in home.glob("archives/*"):
            catalog = PacsCatalog(folder / "catalog.sqlite")
            try:
                for uid in forgetting.series:
                    catalog.forget(uid)
                    SeriesCache(folder / "series", 0).forget(uid)
            except OSError as exc:
                raise StoreUnavailable(f"{folder} cannot be written: {exc.strerror}: {exc.filename}") from exc
            finally:
                catalog.close()
        return []

    return Location(name="caches", unit="series", count=lambda: len(found()), clear=clear)


def logs_location(home: Path, forgetting: Forgetting) -> Location:
    """The UIDs in the logs of the platform's parts. They are overwritten; the lines stay."""
    pattern = uid_pattern(forgetting.series)

    def clear() -> list[str]:
        for path in home.glob("logs/*"):
            if path.is_file():
                _redact(path, pattern)
        return []

    return Location(
        name="logs",
        unit="lines",
        count=lambda: sum(1 for path in home.glob("logs/*") if path.is_file() for _ in _lines_with(path, pattern)),
        clear=clear,
    )


def uid_pattern(series: Sequence[str]) -> re.Pattern[bytes]:
    """A pattern that matches the UIDs, but not as a prefix or suffix of longer UIDs."""
    return re.compile(rb"(?<![0-9.])(?:%s)(?!\.?[0-9])" % b"|".join(re.escape(uid).encode() for uid in series))


def _lines_with(path: Path, pattern: re.Pattern[bytes]) -> Iterator[tuple[int, bytes]]:
    at = 0
    with path.open("rb") as file:
        for line in file:
            if pattern.search(line):
                yield at, line
            at += len(line)


def _redact(path: Path, pattern: re.Pattern[bytes]) -> None:
    """Overwrite the UIDs in place, at the same length: a process may append to the file meanwhile."""
    with path.open("r+b") as file:
        for at, line in _lines_with(path, pattern):
            file.seek(at)
            file.write(pattern.sub(lambda found: _REDACTED * len(found[0]), line))


def _instances(store: Pacs, uid: str) -> int:
    try:
        return len(store.series(uid).instances)
    except NotFound:
        return 0


def _is_indexed(index: MetadataIndex, uid: str) -> bool:
    try:
        index.get(uid)
    except NotFound:
        return False
    return True
