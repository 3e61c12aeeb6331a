"""Ages by the clock of the machine, which somebody may set back.

The rule: a time in the future is no age. What waits for it would wait for as long as the clock was set
back, so what is to be tried is due at once, and what is to be removed is dated anew.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

SKEW_S = 60.0
"""Times of machines that share a folder or a database may differ by so much."""


def is_future(moment: float, *, now: float | None = None) -> bool:
    """Whether the clock was set back since ``moment``, in seconds since the epoch."""
    return moment > (time.time() if now is None else now) + SKEW_S


class Setback:
    """Notices that the clock of the machine was set back while this process runs."""

    def __init__(self) -> None:
        self._ahead_s = time.time() - time.monotonic()

    def was_set_back(self) -> bool:
        """Whether it was, since this was asked last; a machine that slept is ahead, not back."""
        before, self._ahead_s = self._ahead_s, time.time() - time.monotonic()
        return self._ahead_s < before - SKEW_S


def is_untouched(path: Path | int, *, for_s: float, changed: float | None = None) -> bool:
    """Whether nothing was written to a file or folder for so many seconds.

    One from the future is dated now, so that its time begins to run.

    Args:
        path: the file or folder, or a descriptor of it.
        for_s: seconds.
        changed: when something was written, if its own time does not say it.

    Raises:
        OSError: it cannot be looked at, or not be dated.
    """
    if changed is None:
        changed = (path.lstat() if isinstance(path, Path) else os.fstat(path)).st_mtime
    if is_future(changed):
        os.utime(path, follow_symlinks=isinstance(path, int))  # a descriptor can only be followed
        return False
    return time.time() - changed > for_s
