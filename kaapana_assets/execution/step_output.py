"""Prints the output of operators to the step's own stdout, which Dagster captures and shows live.

Logging each line as a Dagster event would cost 10 ms per line.
"""

from __future__ import annotations

import io
import os
import sys
import threading

from kaapana_assets.durable import NO_ROOM
from kaapana_assets.shown import shown_output


class StepOutput:
    """Prints lines. Counts lines that are lost to a full disk, and reports their number once there is room.

    A full disk must not end an operator that may not need the disk for its outputs.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lost = 0

    def print_line(self, line: str) -> None:
        """Print one line without terminal control sequences, or count it as lost if the disk is full.

        Raises:
            OSError: the line cannot be printed for another reason.
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
    # Bypasses the buffer of sys.stdout: it would keep what it cannot write, and the next flush would fail.
    try:
        fd = sys.stdout.fileno()
    except io.UnsupportedOperation:
        sys.stdout.write(text)
        return
    sys.stdout.flush()
    pending = memoryview(text.encode(errors="replace"))
    while pending:
        pending = pending[os.write(fd, pending) :]
