"""The one resource of all assets: it opens the stores and the runner that the settings name."""

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
    """The platform's stores and runner, opened as the settings of this process say.

    Attributes:
        images: what each image holds that the loaded workflows name; another is not launched.
    """

    images: dict[str, str] = Field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        """The settings of this process."""
        return load_settings()

    def pacs(self) -> Pacs:
        """The archive of all DICOM instances."""
        return open_pacs(self.settings)

    def index(self) -> MetadataIndex:
        """The searchable documents, one per series."""
        return open_index(self.settings)

    def objects(self) -> ObjectStore:
        """The buckets that results are put into."""
        return open_objects(self.settings)

    def shelf(self) -> Shelf:
        """The outputs that stay."""
        return open_shelf(self.settings)

    def run_directories(self) -> RunDirectories:
        """The directories that operators work in."""
        return open_run_directories(self.settings)

    def cohorts(self) -> Path:
        """The folder of frozen selections."""
        return self.settings.paths.cohorts

    def runner(self) -> Runner:
        """What launches operators."""
        return PinnedRunner(open_runner(self.settings), self.images)
