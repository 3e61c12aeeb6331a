"""Distinguishes a file that an archive will never take from an archive that takes nothing at the moment.

Some archives refuse a file without saying which of the two it is. If a file is refused again after
others were taken in between, the file is at fault.
"""

from __future__ import annotations

import os
from pathlib import Path

from kaapana_assets.clocks import is_future

_LAST_TAKEN = "last-taken"


class Refusals:
    """The instances refused for no clear reason: one empty file for each, dated with its first refusal.

    Any number of processes may use it. The folder can be removed at any time; files are then retried more often.

    Args:
        folder: a folder for one archive and no other; it is made when it is needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def note_taken(self) -> None:
        """Note that the archive took something."""
        self._touch(_LAST_TAKEN)

    def is_of_the_file(self, sop_instance_uid: str) -> bool:
        """Whether others were taken since the first refusal of this instance; notes a first refusal.

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
            # The clock was set back, so it is not known which of them was first.
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
