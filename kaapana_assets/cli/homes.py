"""The home that a command works on, said beside the command's own output."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kaapana_assets.operations import session
from kaapana_assets.operations.session import Session

if TYPE_CHECKING:
    from kaapana_assets.settings import Settings


def settings_to_read() -> Settings:
    """The settings in use, for a command that reads a home and never makes one; says which home it is.

    Raises:
        NotFound: there is no home; says where it was looked for.
    """
    return _said(session.settings_to_read())


def settings_to_change() -> Settings:
    """The settings in use, for a command that writes to a home and never makes one; says which home it is.

    Raises:
        NotFound: there is no home; says where it was looked for.
        ConfigurationError: others may enter it.
    """
    return _said(session.settings_to_change())


def session_to_read() -> Session:
    """A session for a command that reads, see ``settings_to_read``."""
    return Session(settings_to_read())


def session_to_change() -> Session:
    """A session for a command that writes, see ``settings_to_change``."""
    return Session(settings_to_change())


def _said(settings: Settings) -> Settings:
    click.echo(f"home {settings.home}", err=True)
    return settings
