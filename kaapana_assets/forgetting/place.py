"""A place that is cleared, as every module of places describes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Place:
    """Something that holds data of series.

    Attributes:
        name: as people read it, and as it stands in records.
        unit: of what is counted.
        count: how much there is of what is to be forgotten.
        clear: removes it, whole or as far as an earlier call has left it; gives what remains, with what to do.
    """

    name: str
    unit: str
    count: Callable[[], int]
    clear: Callable[[], Sequence[str]]
