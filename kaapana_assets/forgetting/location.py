"""A location of series data that a forgetting clears."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Location:
    """A location that holds data of series.

    Attributes:
        name: name for people, also used in records.
        unit: unit of the count.
        count: returns the number of items to remove.
        clear: removes the items, or the rest after an interrupted call; returns a line for each item that
            remains, with what to do about it.
    """

    name: str
    unit: str
    count: Callable[[], int]
    clear: Callable[[], Sequence[str]]
