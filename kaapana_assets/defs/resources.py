"""The one resource of all assets, which opens the stores and the runner that the settings name."""

from pathlib import Path

import dagster as dg
from pydantic import Field

from kaapana_assets.containers.factory import open_runner
from kaapana_assets.containers.pinned import PinnedRunner
from kaapana_assets.containers.protocol import Runner
from kaapana_assets.settings import Settings, load_settings
from kaapana_assets.stores.factory import open_index, open_objects, open_pacs, open_run_directories, open_shelf
from kaapana_assets.stores.files.run_directory import RunDirectories
from kaapana_assets.stores.files.shelf import Shelf
from kaapana_assets.stores.index.protocol import MetadataIndex
from kaapana_assets.stores.objects.protocol import ObjectStore
from kaapana_assets.stores.pacs.protocol import Pacs


class Platform(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Opens the platform's stores and runner according to the settings of this process.

    Attributes:
        images: the digest of each image that the loaded workflows name; an image with another digest is not launched.
    """

    images: dict[str, str] = Field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        """The settings of this process."""
        return load_settings()

    def pacs(self) -> Pacs:
        """Open the PACS, the archive of all DICOM instances."""
        return open_pacs(self.settings)

    def index(self) -> MetadataIndex:
        """Open the metadata index, which holds one document per series."""
        return open_index(self.settings)

    def objects(self) -> ObjectStore:
        """Open the object store, whose buckets hold results."""
        return open_objects(self.settings)

    def shelf(self) -> Shelf:
        """Open the shelf, which keeps the outputs of operators."""
        return open_shelf(self.settings)

    def run_directories(self) -> RunDirectories:
        """Open the run directories, in which operators work."""
        return open_run_directories(self.settings)

    def cohorts(self) -> Path:
        """Return the folder of the frozen cohorts."""
        return self.settings.paths.cohorts

    def runner(self) -> Runner:
        """Open the runner, which launches operators, restricted to the loaded images."""
        return PinnedRunner(open_runner(self.settings), self.images)
