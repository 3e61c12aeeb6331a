"""Limits how many fields the mapping of an index has; the values of all further fields go into ``other``.

The fields that arrive first are mapped. A field never moves between the mapping and ``other``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Set


class FieldBudget:
    """The mapped fields of one index, as far as this process knows them.

    Args:
        limit: how many fields may be mapped.
        mapped: asks the server which fields are mapped.
    """

    def __init__(self, limit: int, mapped: Callable[[], set[str]]) -> None:
        self._limit = limit
        self._mapped = mapped
        self._known: set[str] = set()
        self._full = False
        self._lock = threading.Lock()

    def unmapped(self, names: Set[str]) -> Set[str]:
        """The names that must go into ``other``; new names are mapped until the limit is reached."""
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
