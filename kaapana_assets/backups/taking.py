"""Takes a backup of a home while the platform runs on it.

The order of copying is what makes it consistent:

1. While ``Spool.ingest_lock`` is held, no ingest runs, so no series moves between spool, archive, index and
   Dagster; the receiver goes on. These are copied in this time: Dagster's storage, then the small files that it
   refers to (cohorts, workflow files), the index, the catalog, and the spool last.
2. Then the large trees are copied while everything runs. A reference is always copied before its target: each
   output that Dagster knows is on the shelf, which is copied later, and each instance of the catalog is in the
   archive. These trees only grow, since no forgetting runs before the end, so no target can be missing.

A file in the archive that is not in the copied catalog arrived later. It goes to the spool of the backup: the
restored platform ingests it as if it had just been received, and so adds it to the catalog, the index and
Dagster. The spool is copied before the archive, in the direction in which files move, so a file that moves
meanwhile is copied at least once; twice does no harm, since ingest is idempotent.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr

from kaapana_assets import __version__
from kaapana_assets.backups import contents
from kaapana_assets.backups.backup_folder import BackupFolder
from kaapana_assets.backups.copying import Copying, TakenBackup
from kaapana_assets.backups.databases import dump, served
from kaapana_assets.backups.folders import FolderEntry, bytes_on_disk, names_in, open_tree, opened, walk
from kaapana_assets.backups.manifest import Entry, Header, ManifestWriter
from kaapana_assets.backups.names import next_name
from kaapana_assets.backups.places import check_apart
from kaapana_assets.errors import ConfigurationError, StoreUnavailable, TemporaryError
from kaapana_assets.home_paths import HomePaths
from kaapana_assets.ingest.spool import open_spool
from kaapana_assets.shown import shown
from kaapana_assets.stores.forgotten import ForgottenRecords
from kaapana_assets.supervision.needs import POSTGRES
from kaapana_assets.supervision.parts import Places
from kaapana_assets.supervision.record import lock_home, running_platform

if TYPE_CHECKING:
    from kaapana_assets.settings import Settings

_MAY_BE_SECRET = re.compile(r"passw|secret|token|credential", re.IGNORECASE)


@dataclass(frozen=True)
class Sizes:
    """The size of a home in bytes, and the size of its files that no earlier backup has."""

    all_bytes: int
    new_bytes: int


class Backup:
    """Takes one backup of the home of ``settings``.

    Args:
        settings: the settings of the platform, which may be running.
        folder: the backup folder, open for writing.

    Raises:
        ConfigurationError: one of the two folders contains the other, or the backups are of another home.
    """

    def __init__(self, settings: Settings, folder: BackupFolder) -> None:
        self._settings = settings
        self._home = settings.home.resolve()
        self._folder = folder
        check_apart(self._home, folder.path)
        if folder.names():
            with folder.manifest() as manifest:
                other = manifest.header.home
            if other != str(self._home):
                raise ConfigurationError(
                    f"{folder.path} has backups of {shown(other)}: name a folder for {self._home} alone"
                )

    def left_out(self) -> list[str]:
        """Descriptions of the stores that are servers, which need backups of their own."""
        settings = self._settings
        servers = {
            f"the PACS at {settings.dicomweb_url}": settings.pacs != "folder",
            f"the index at {', '.join(settings.elasticsearch_urls)}": settings.index != "sqlite",
            f"the object store at {settings.s3_endpoint}": settings.objects != "folder",
            f"Dagster's storage at {settings.postgres_url}": bool(settings.postgres_url),
        }
        return [what for what, is_server in servers.items() if is_server]

    def sizes(self) -> Sizes:
        """The size of the home and of the files to copy; PostgreSQL's files are the upper bound of its dump.

        Raises:
            StoreUnavailable: the disk of the backup folder has too little free space.
        """
        everything = new = 0
        with opened(self._home) as home:
            for name in names_in(home):
                for found in self._below(home, name):
                    if not found.is_file:
                        continue
                    everything += found.status.st_size
                    if contents.is_database(found.path) or not self._folder.known(found.path, found.status):
                        new += bytes_on_disk(found.status)
            if self._has_postgres:
                with opened(self._data / "base") as base:
                    new += sum(found.status.st_size for found in walk(base, "", lambda _: True) if found.is_file)
        free = self._folder.free_bytes() - self._settings.min_free_bytes
        if new > free:
            raise StoreUnavailable(
                f"{self._folder.path} has room for {max(0, free):,} bytes, and {new:,} are to be copied "
                f"({self._settings.min_free_bytes:,} stay free, KAAPANA_MIN_FREE_BYTES): make room first"
            )
        return Sizes(everything, new)

    def waits(self) -> bool:
        """Whether the backup has to wait for the end of a forgetting."""
        return ForgottenRecords(self._home).is_forgetting()

    def run(self, advance: Callable[[int], object]) -> TakenBackup:
        """Take the backup. After an interruption, the next backup reuses the files already copied.

        Args:
            advance: called with each number of bytes that were processed.

        Raises:
            StoreUnavailable: something cannot be read or written; the message names it.
        """
        now = datetime.now(timezone.utc)
        taken = TakenBackup(next_name(now, self._folder.names()))
        header = Header(__version__, str(self._home), now.isoformat(), self.left_out(), public_settings(self._settings))
        with (
            ForgottenRecords(self._home).none(),
            self._folder.new_manifest(taken.name) as file,
            opened(self._home) as home,
        ):
            writer = ManifestWriter(file, header)
            one = Copying(self._folder, writer, taken, advance)
            with open_spool(self._settings).ingest_lock():
                self._dump_postgres(writer, taken)
                for name in sorted(names_in(home), key=lambda name: (name != "dagster", name)):
                    if name not in (*contents.BULK, contents.SPOOL):
                        one.take_all(self._below(home, name))
                catalog = one.take_catalog(home)
                one.take_all(self._below(home, contents.SPOOL))
            for name in contents.BULK:
                if name == "archive":
                    one.take_archive(home, catalog)
                elif name == "assets":
                    one.take_shelf(home)
                else:
                    one.take_all(self._below(home, name))
            writer.finish()
        taken.files, taken.size_bytes = writer.files, writer.size_bytes
        return taken

    @property
    def _data(self) -> Path:
        return HomePaths(self._home).postgres_data

    @property
    def _has_postgres(self) -> bool:
        return not self._settings.postgres_url and (self._data / "PG_VERSION").is_file()

    def _below(self, home: int, name: str) -> Iterator[FolderEntry]:
        """All files that belong in a backup, below one top-level entry of the home."""
        if not contents.is_kept(name):
            return
        tree = open_tree(home, name)
        if tree is not None:
            try:
                yield from walk(tree, f"{name}/", contents.is_kept)
            finally:
                os.close(tree)
            return
        with suppress(FileNotFoundError):
            yield FolderEntry(name, home, name, os.stat(name, dir_fd=home, follow_symlinks=False))

    def _dump_postgres(self, writer: ManifestWriter, taken: TakenBackup) -> None:
        if not self._has_postgres:
            return
        with self._postgres_socket() as socket:
            size, digest = self._folder.take_made(lambda target: dump(socket, target))
        taken.new_bytes += size
        writer.add(Entry(contents.POSTGRES_DUMP, "postgres", digest, size, 0o600, 0))

    @contextmanager
    def _postgres_socket(self) -> Iterator[Path]:
        record = running_platform(self._home)
        if record is not None and POSTGRES in record.parts:
            yield Places(self._home, Path(record.folder)).postgres_socket
            return
        try:
            lock = lock_home(self._home)
        except ConfigurationError as exc:
            raise TemporaryError(f"the platform on {self._home} starts or stops at this moment: try again") from exc
        with lock, served(self._data) as postgres:
            yield postgres.socket_folder


def public_settings(settings: Settings) -> dict[str, str]:
    """The settings that were set and are no secrets, by the names of their variables."""
    found = {}
    for name in sorted(settings.model_fields_set):
        value = getattr(settings, name)
        if name == "home" or value is None or isinstance(value, SecretStr):
            continue
        text = ",".join(value) if isinstance(value, tuple) else str(value)
        # A URL should hold no secret, but might.
        if not _MAY_BE_SECRET.search(text):
            found[f"KAAPANA_{name.upper()}"] = text
    return found
