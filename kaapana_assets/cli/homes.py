"""The home that a command works on: one that is there for what reads, one that may be made for what writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kaapana_assets.home import check_home, check_private, keep_private, make_home
from kaapana_assets.supervision.record import settings_in_use

if TYPE_CHECKING:
    from kaapana_assets.settings import Settings


def settings_to_read(*, say: bool = True) -> Settings:
    """The settings in use, for a command that reads a home and never makes one.

    Args:
        say: say which home it is, beside the command's own output.

    Raises:
        NotFound: there is no home; says where it was looked for.
    """
    settings = settings_in_use()
    keep_private(settings.group)
    check_home(settings.home)
    if say:
        click.echo(f"home {settings.home}", err=True)
    return settings


def settings_to_change() -> Settings:
    """The settings in use, for a command that writes to a home and never makes one.

    Raises:
        NotFound: there is no home; says where it was looked for.
        ConfigurationError: others may enter it.
    """
    settings = settings_to_read()
    check_private(settings.home, group=settings.group)
    return settings


def settings_to_write() -> Settings:
    """The settings in use, for a command that may make the home; it is there afterwards."""
    settings = settings_in_use()
    enter_home(settings)
    return settings


def enter_home(settings: Settings) -> None:
    """Make the home, or see that it is private, before anything is written there.

    Raises:
        ConfigurationError: others may enter it, or it cannot be made.
    """
    keep_private(settings.group)
    make_home(settings.home, group=settings.group)
