"""Names of backups: the time of their beginning, in an order that no clock can turn round."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta, timezone

_FORMAT = "%Y%m%dT%H%M%S.%fZ"


def next_name(now: datetime, names: Iterable[str]) -> str:
    """The name of a backup that begins now: after all that there are, also when the clock was set back.

    Args:
        now: UTC.
        names: of the backups that there are.
    """
    newest = max((time for name in names if (time := _time_of(name)) is not None), default=None)
    if newest is not None and newest >= now:
        now = newest + timedelta(microseconds=1)
    return now.strftime(_FORMAT)


def in_order(names: Iterable[str]) -> list[str]:
    """The oldest first; those that somebody gave to backups come before all."""
    return sorted(names, key=lambda name: (is_given_by_time(name), name))


def is_given_by_time(name: str) -> bool:
    """Whether it is a name as ``next_name`` gives it, and not one by which somebody keeps a backup."""
    return _time_of(name) is not None


def _time_of(name: str) -> datetime | None:
    try:
        time = datetime.strptime(name, _FORMAT).replace(tzinfo=timezone.utc)
    except ValueError:
        return None
    return time if time.strftime(_FORMAT) == name else None
