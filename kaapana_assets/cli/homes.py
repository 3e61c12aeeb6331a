"""Finds the home that a command works on, and names it on standard error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kaapana_assets.operations import session
from kaapana_assets.operations.session import Session

if TYPE_CHECKING:
    from kaapana_assets.settings import Settings


def settings_to_read() -> Settings:
    """Return the settings in use, for a command that only reads an existing home; prints the home.

    Raises:
        NotFound: there is no home; says where the search looked.
    """
    return _said(session.settings_to_read())


def settings_to_change() -> Settings:
    """Return the settings in use, for a command that writes to an existing home; prints the home.

    Raises:
        NotFound: there is no home; says where the search looked.
        ConfigurationError: other users may enter the home.
    """
    return _said(session.settings_to_change())


def session_to_read() -> Session:
    """Return a session for a command that only reads; see ``settings_to_read``."""
    return Session(settings_to_read())


def session_to_change() -> Session:
    """Return a session for a command that writes; see ``settings_to_change``."""
    return Session(settings_to_change())


def _said(settings: Settings) -> Settings:
    click.echo(f"home {settings.home}", err=True)
    return settings
