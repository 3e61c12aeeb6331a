"""Ages of files and records by the system clock, which may be set back.

A time in the future has no age. Waiting for it would take as long as the clock was set back. So a retry with such
a time is due immediately, and a file to be removed gets the current time.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

SKEW_S = 60.0
"""How far the clocks of machines that share a folder or a database may differ, in seconds."""


def is_future(moment: float, *, now: float | None = None) -> bool:
    """Whether ``moment``, in seconds since the epoch, is in the future: the clock was set back since then."""
    return moment > (time.time() if now is None else now) + SKEW_S


class Setback:
    """Detects that the system clock was set back while this process runs."""

    def __init__(self) -> None:
        self._ahead_s = time.time() - time.monotonic()

    def was_set_back(self) -> bool:
        """Whether the clock was set back since the last call; a suspended machine only runs ahead."""
        before, self._ahead_s = self._ahead_s, time.time() - time.monotonic()
        return self._ahead_s < before - SKEW_S


def is_untouched(path: Path | int, *, for_s: float, changed: float | None = None) -> bool:
    """Whether nothing was written to a file or folder for ``for_s`` seconds.

    If its time is in the future, it gets the current time, so that it ages from now on.

    Args:
        path: the file or folder, or a descriptor of it.
        for_s: seconds.
        changed: the time of the last write, if it is not the modification time.

    Raises:
        OSError: its time cannot be read or set.
    """
    if changed is None:
        changed = (path.lstat() if isinstance(path, Path) else os.fstat(path)).st_mtime
    if is_future(changed):
        os.utime(path, follow_symlinks=isinstance(path, int))  # utime on a descriptor must follow
        return False
    return time.time() - changed > for_s
