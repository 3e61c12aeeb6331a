"""A session: the settings of a home, with its stores and Dagster, each opened on first use."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from kaapana_assets.home import check_home, check_private, keep_private, make_home
from kaapana_assets.stores.factory import open_index, open_pacs, open_shelf
from kaapana_assets.supervision.record import settings_in_use

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from kaapana_assets.graphql import DagsterClient
    from kaapana_assets.settings import Settings
    from kaapana_assets.stores.files.shelf import Shelf
    from kaapana_assets.stores.index.protocol import MetadataIndex
    from kaapana_assets.stores.pacs.protocol import Pacs


class Session:
    """The settings, stores and Dagster client that operations use, for one thread at a time.

    The end of its ``with`` block closes it.

    Args:
        settings: the settings in use on a home; see ``settings_to_read``.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @cached_property
    def index(self) -> MetadataIndex:
        """The metadata index."""
        return open_index(self.settings)

    @cached_property
    def pacs(self) -> Pacs:
        """The archive of all DICOM instances."""
        return open_pacs(self.settings)

    @cached_property
    def shelf(self) -> Shelf:
        """The shelf, which keeps the outputs of operators."""
        return open_shelf(self.settings)

    @cached_property
    def dagster(self) -> DagsterClient:
        """The client of Dagster, which may not be up."""
        from kaapana_assets.graphql import DagsterClient

        return DagsterClient(self.settings.dagster_url)

    def close(self) -> None:
        """Close the connections that were opened."""
        opened = vars(self)
        for name in ("index", "pacs", "dagster"):
            if name in opened:
                opened.pop(name).close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def settings_to_read(**given: Any) -> Settings:  # noqa: ANN401 - pydantic checks them
    """Return the settings in use, for a caller that only reads an existing home.

    Args:
        given: fields that take precedence over the environment, such as ``home``.

    Raises:
        NotFound: there is no home; says where the search looked.
        ConfigurationError: a setting is invalid, or a store is not the running platform's.
    """
    settings = settings_in_use(**given)
    keep_private(settings.group)
    check_home(settings.home)
    return settings


def settings_to_change(**given: Any) -> Settings:  # noqa: ANN401 - pydantic checks them
    """Return the settings in use, for a caller that writes to an existing home.

    Args:
        given: as for ``settings_to_read``.

    Raises:
        NotFound: there is no home; says where the search looked.
        ConfigurationError: as ``settings_to_read``, or other users may enter the home.
    """
    settings = settings_to_read(**given)
    check_private(settings.home, group=settings.group)
    return settings


def enter_home(settings: Settings) -> None:
    """Make the home, or check that it is private, before anything is written there.

    Raises:
        ConfigurationError: other users may enter it, or it cannot be made.
    """
    keep_private(settings.group)
    make_home(settings.home, group=settings.group)


def settings_to_write(**given: Any) -> Settings:  # noqa: ANN401 - pydantic checks them
    """Return the settings in use, for a caller that writes to a home; makes the home if needed.

    Args:
        given: as for ``settings_to_read``.

    Raises:
        ConfigurationError: as ``settings_to_read``, or as ``enter_home``.
    """
    settings = settings_in_use(**given)
    enter_home(settings)
    return settings
