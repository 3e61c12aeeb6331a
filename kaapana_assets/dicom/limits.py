"""How much memory one object may take while it is read; a few kilobytes can ask for any amount."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kaapana_assets.settings import Settings


@dataclass(frozen=True, kw_only=True)
class ReadingLimits:
    """Limits for one object.

    Attributes:
        inflated_bytes: of a deflated dataset once it is inflated.
        preview_bytes: of one decoded frame; there is no preview of a larger one.
    """

    inflated_bytes: int = 256 * 1024**2
    preview_bytes: int = 64 * 1024**2


DEFAULT_LIMITS = ReadingLimits()


def limits_of(settings: Settings) -> ReadingLimits:
    """Those that the settings say."""
    return ReadingLimits(inflated_bytes=settings.inflated_bytes, preview_bytes=settings.preview_bytes)
