"""Limits the memory for reading one object, because a file of a few kilobytes can claim any amount."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kaapana_assets.settings import Settings


@dataclass(frozen=True, kw_only=True)
class ReadingLimits:
    """Limits for one object.

    Attributes:
        inflated_bytes: size of a deflated dataset after inflation.
        preview_bytes: size of one decoded frame; a larger frame gets no preview.
    """

    inflated_bytes: int = 256 * 1024**2
    preview_bytes: int = 64 * 1024**2


DEFAULT_LIMITS = ReadingLimits()


def limits_of(settings: Settings) -> ReadingLimits:
    """The limits that the settings define."""
    return ReadingLimits(inflated_bytes=settings.inflated_bytes, preview_bytes=settings.preview_bytes)
