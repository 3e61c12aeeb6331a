"""Telling a file that an archive will never take from an archive that takes nothing just now.

Some archives refuse without a reason that says which it is. A file that is refused again after others
were taken in between is at fault itself.
"""

from __future__ import annotations

import os
from pathlib import Path

from kaapana_assets.clocks import is_future

_LAST_TAKEN = "last-taken"


class Refusals:
    """What was refused for no clear reason, as empty files whose times say since when.

    For any number of processes; the folder can be removed at any time, then more is tried again.

    Args:
        folder: of one archive and no other; made when it is needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def note_taken(self) -> None:
        """The archive took something."""
        self._touch(_LAST_TAKEN)

    def is_of_the_file(self, sop_instance_uid: str) -> bool:
        """Whether others were taken since this instance was refused for the first time; notes the first time.

        Raises:
            OSError: the folder cannot be written.
        """
        mark = self._folder / sop_instance_uid
        try:
            first_ns = mark.stat().st_mtime_ns
        except FileNotFoundError:
            self._touch(sop_instance_uid)
            return False
        try:
            taken_ns = (self._folder / _LAST_TAKEN).stat().st_mtime_ns
        except FileNotFoundError:
            return False
        if is_future(max(first_ns, taken_ns) / 1e9):
            # The clock was set back: which of them was first is not known any more.
            (self._folder / _LAST_TAKEN).unlink(missing_ok=True)
            os.utime(mark)
            return False
        if taken_ns <= first_ns:
            return False
        mark.unlink(missing_ok=True)
        return True

    def _touch(self, name: str) -> None:
        path = self._folder / name
        try:
            os.utime(path)
        except FileNotFoundError:
            self._folder.mkdir(parents=True, exist_ok=True)
            path.touch()
