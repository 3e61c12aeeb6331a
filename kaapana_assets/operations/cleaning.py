"""Removes what failed and killed runs left behind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kaapana_assets.operations.session import Session
from kaapana_assets.stores.files.retention import remove_left_behind


@dataclass(frozen=True)
class Cleaned:
    """The result of a clean-up, or of a dry run.

    Attributes:
        removed: the folders that were removed, or would be.
        problems: the files and folders that cannot be removed, each with the reason.
        days: the age limit, in days since the last write.
    """

    removed: tuple[Path, ...]
    problems: tuple[str, ...]
    days: float


def clean(session: Session, *, days: float | None = None, dry_run: bool = False) -> Cleaned:
    """Remove the directories of failed runs and the partial outputs of killed runs; never assets or images.

    Args:
        session: session on a home.
        days: age limit, in days since the last write; None means KAAPANA_RUN_RETENTION_DAYS.
        dry_run: remove nothing, only report.
    """
    settings = session.settings
    limit = settings.run_retention_days if days is None else days
    problems: list[str] = []
    removed = tuple(remove_left_behind(settings.home, days=limit, dry_run=dry_run, left=problems.append))
    return Cleaned(removed, tuple(problems), limit)
