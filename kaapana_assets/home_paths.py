"""The layout of a home: the only module that spells the paths below ``KAAPANA_HOME``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class HomePaths:
    """The paths below a home, whether they exist yet or not.

    Attributes:
        home: the folder with all data of a platform.
    """

    home: Path

    @property
    def incoming(self) -> Path:
        """Folder of the spool: received instances that await ingest, in a folder per series."""
        return self.home / "incoming"

    @property
    def quarantine(self) -> Path:
        """Folder of the quarantine: files that were set aside, with the reasons."""
        return self.home / "quarantine"

    @property
    def archive(self) -> Path:
        """Folder of the embedded PACS."""
        return self.home / "archive"

    @property
    def archives(self) -> Path:
        """Folder of the records about PACS on servers, in a folder per PACS."""
        return self.home / "archives"

    @property
    def index(self) -> Path:
        """File of the embedded metadata index."""
        return self.home / "index.sqlite"

    @property
    def index_rebuild(self) -> Path:
        """File with the progress of a rebuild of the index."""
        return self.home / "index-rebuild.txt"

    @property
    def cohorts(self) -> Path:
        """Folder of the frozen cohorts, in a JSON file per cohort."""
        return self.home / "cohorts"

    @property
    def workflow_files(self) -> Path:
        """Folder of the user's workflow files."""
        return self.home / "workflows" / "dags"

    @property
    def plugins(self) -> Path:
        """Folder of the modules that workflow files import."""
        return self.home / "workflows" / "plugins"

    @property
    def run_directories(self) -> Path:
        """Folder of the run directories, in which operators work."""
        return self.home / "workflows" / "data"

    @property
    def shelf(self) -> Path:
        """Folder of the shelf: the outputs that are kept."""
        return self.home / "assets"

    @property
    def objects(self) -> Path:
        """Folder of the embedded object store."""
        return self.home / "objects"

    @property
    def scratch(self) -> Path:
        """Folder of temporary copies, each removed by the call that made it."""
        return self.home / "scratch"

    @property
    def forgotten(self) -> Path:
        """Folder of the records of forgotten series."""
        return self.home / "forgotten"

    @property
    def images_record(self) -> Path:
        """File that records which images were built."""
        return self.home / "images.json"

    @property
    def dagster(self) -> Path:
        """DAGSTER_HOME of the platform."""
        return self.home / "dagster"

    @property
    def postgres_data(self) -> Path:
        """Data folder of the platform's own PostgreSQL."""
        return self.dagster / "postgres" / "data"

    @property
    def platform_record(self) -> Path:
        """File with the addresses and processes of the running platform."""
        return self.home / "platform.json"

    @property
    def platform_lock(self) -> Path:
        """File on which the running platform holds a lock."""
        return self.home / "platform.lock"

    @property
    def demo_outgoing(self) -> Path:
        """Folder of the files that the demo sends."""
        return self.home / "demo" / "outgoing"

    def log(self, name: str) -> Path:
        """File with the output of a part of the platform; ``images/<name>`` for the build of an image."""
        return self.home / "logs" / f"{name}.log"
