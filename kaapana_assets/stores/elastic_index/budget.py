"""Which fields an index searches with their type, and which lie in ``other``, so that it stays small.

A place is given to who comes first, and stays: a field never moves.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Set


class FieldBudget:
    """The fields of one index, as far as this process knows them.

    Args:
        limit: how many have a place.
        mapped: asks the server which have one.
    """

    def __init__(self, limit: int, mapped: Callable[[], set[str]]) -> None:
        self._limit = limit
        self._mapped = mapped
        self._known: set[str] = set()
        self._full = False
        self._lock = threading.Lock()

    def unmapped(self, names: Set[str]) -> Set[str]:
        """Those of the names that have no place; new names take what is left."""
        strange = names - self._known
        if not strange:
            return strange
        with self._lock:
            if not self._full:
                self._known |= self._mapped()
                for name in sorted(strange - self._known):
                    if len(self._known) < self._limit:
                        self._known.add(name)
                self._full = len(self._known) >= self._limit
            return strange - self._known
