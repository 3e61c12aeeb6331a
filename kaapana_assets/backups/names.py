"""Names of backups: their start time, in an order that holds even if the clock is set back."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta, timezone

_FORMAT = "%Y%m%dT%H%M%S.%fZ"


def next_name(now: datetime, names: Iterable[str]) -> str:
    """The name of a backup that starts now; it sorts after all others, even if the clock was set back.

    Args:
        now: the time in UTC.
        names: names of the existing backups.
    """
    newest = max((time for name in names if (time := _time_of(name)) is not None), default=None)
    if newest is not None and newest >= now:
        now = newest + timedelta(microseconds=1)
    return now.strftime(_FORMAT)


def in_order(names: Iterable[str]) -> list[str]:
    """The names, oldest first; backups that a person renamed come before all others."""
    return sorted(names, key=lambda name: (is_given_by_time(name), name))


def is_given_by_time(name: str) -> bool:
    """Whether a name has the format of ``next_name``; a person renames a backup to keep it."""
    return _time_of(name) is not None


def _time_of(name: str) -> datetime | None:
    try:
        time = datetime.strptime(name, _FORMAT).replace(tzinfo=timezone.utc)
    except ValueError:
        return None
    return time if time.strftime(_FORMAT) == name else None
