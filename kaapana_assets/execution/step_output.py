"""What operators print, given to the step's own output, which Dagster captures and shows live.

An event of Dagster per line would cost 10 ms each.
"""

from __future__ import annotations

import io
import os
import sys
import threading

from kaapana_assets.durable import NO_ROOM
from kaapana_assets.shown import shown_output


class StepOutput:
    """Prints lines; those for which the disk has no room are counted, and that is said once there is room.

    A full disk is no reason to end an operator that may need none for what it makes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lost = 0

    def print_line(self, line: str) -> None:
        """Print one line, but for what would steer a terminal, or count it as lost.

        Raises:
            OSError: it cannot be printed for another reason than a full disk.
        """
        with self._lock:
            try:
                if self._lost:
                    _write(f"[{self._lost} lines are missing here: the disk was full]\n")
                    self._lost = 0
                _write(shown_output(line) + "\n")
            except OSError as exc:
                if exc.errno not in NO_ROOM:
                    raise
                self._lost += 1


def _write(text: str) -> None:
    # Past the buffer of sys.stdout: what that cannot write it keeps, and whoever flushes it next fails.
    try:
        fd = sys.stdout.fileno()
    except io.UnsupportedOperation:
        sys.stdout.write(text)
        return
    sys.stdout.flush()
    pending = memoryview(text.encode(errors="replace"))
    while pending:
        pending = pending[os.write(fd, pending) :]
