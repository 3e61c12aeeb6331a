"""Removing what runs left behind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kaapana_assets.operations.session import Session
from kaapana_assets.stores.files.retention import remove_left_behind


@dataclass(frozen=True)
class Cleaned:
    """What was removed, or would be.

    Attributes:
        removed: folders that are gone.
        problems: files and folders that cannot be removed, each with the reason.
        days: nothing was written to what was removed for so long.
    """

    removed: tuple[Path, ...]
    problems: tuple[str, ...]
    days: float


def clean(session: Session, *, days: float | None = None, dry_run: bool = False) -> Cleaned:
    """Remove the directories of failed runs, and what killed runs left half-made; never assets or images.

    Args:
        session: of a home.
        days: what nothing was written to for so long is removed; else KAAPANA_RUN_RETENTION_DAYS.
        dry_run: remove nothing.
    """
    settings = session.settings
    limit = settings.run_retention_days if days is None else days
    problems: list[str] = []
    removed = tuple(remove_left_behind(settings.home, days=limit, dry_run=dry_run, left=problems.append))
    return Cleaned(removed, tuple(problems), limit)
