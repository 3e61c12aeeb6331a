"""What is where in a home: the one module that spells the paths below ``KAAPANA_HOME``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class HomePaths:
    """The paths below a home, whether there is something yet or not.

    Attributes:
        home: the folder of all data of a platform.
    """

    home: Path

    @property
    def incoming(self) -> Path:
        """Folder of the spool: received instances that wait, a folder for each series."""
        return self.home / "incoming"

    @property
    def quarantine(self) -> Path:
        """Folder of the files that were set aside, with notes."""
        return self.home / "quarantine"

    @property
    def archive(self) -> Path:
        """Folder of the embedded PACS."""
        return self.home / "archive"

    @property
    def archives(self) -> Path:
        """Folder of what is known of PACS on servers, a folder for each."""
        return self.home / "archives"

    @property
    def index(self) -> Path:
        """File of the embedded metadata index."""
        return self.home / "index.sqlite"

    @property
    def index_rebuild(self) -> Path:
        """File that notes how far a rebuild of the index has come."""
        return self.home / "index-rebuild.txt"

    @property
    def cohorts(self) -> Path:
        """Folder of the frozen cohorts, a JSON file for each."""
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
        """Folder of the directories that operators work in, one for each run."""
        return self.home / "workflows" / "data"

    @property
    def shelf(self) -> Path:
        """Folder of the outputs that stay."""
        return self.home / "assets"

    @property
    def objects(self) -> Path:
        """Folder of the embedded object store."""
        return self.home / "objects"

    @property
    def scratch(self) -> Path:
        """Folder of copies that live as long as the call that made them."""
        return self.home / "scratch"

    @property
    def forgotten(self) -> Path:
        """Folder of the records of what was forgotten."""
        return self.home / "forgotten"

    @property
    def images_record(self) -> Path:
        """File that notes which images were built."""
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
        """File that says where the running platform is reached."""
        return self.home / "platform.json"

    @property
    def platform_lock(self) -> Path:
        """File that the running platform has locked."""
        return self.home / "platform.lock"

    @property
    def demo_outgoing(self) -> Path:
        """Folder of the files that the demo sends."""
        return self.home / "demo" / "outgoing"

    def log(self, name: str) -> Path:
        """File of what a part of the platform prints; ``images/<name>`` of an image's build."""
        return self.home / "logs" / f"{name}.log"
