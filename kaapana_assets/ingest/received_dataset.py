"""The bytes of a dataset as the network brings them, in memory or in a file of the spool."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

_KEPT_IN_MEMORY_BYTES = 4 * 1024**2


class ReceivedDataset(io.BytesIO):
    """The bytes of one dataset as they arrive: in memory while small, then in a file.

    Attributes:
        path: the file, once there is one; its owner removes it or moves it away.
        error: why the file could not be written; what arrives after that is dropped.
    """

    def __init__(self, new_path: Callable[[], Path], head: Callable[[], bytes]) -> None:
        super().__init__()
        self._new_path, self._head = new_path, head
        self._fd = -1
        self.path: Path | None = None
        self.head_size_bytes = 0
        self.error: OSError | None = None

    def write(self, data: Any, /) -> int:  # noqa: ANN401 - as io.BytesIO has it
        """Take the next fragment; never raises for a full disk, see ``error``."""
        if self.path is None and self.tell() + len(data) <= _KEPT_IN_MEMORY_BYTES:
            return super().write(data)
        if self.error is None:
            try:
                if self.path is None:
                    self._move_to_file()
                self._write_file(data)
            except OSError as exc:
                self.error = exc
        return len(data)

    def finish(self) -> None:
        """No more will come; the file is closed, but neither synced nor removed."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def discard(self) -> None:
        """Nobody wants it: the file is removed."""
        self.finish()
        if self.path is not None:
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)

    def _move_to_file(self) -> None:
        self.path = self._new_path()
        self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
        os.fchmod(self._fd, 0o444)  # whatever the umask: operators of another user read it; folders keep others out
        head = self._head()
        self.head_size_bytes = len(head)
        self._write_file(head)
        self._write_file(self.getbuffer())
        self.seek(0)
        self.truncate()

    def _write_file(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
