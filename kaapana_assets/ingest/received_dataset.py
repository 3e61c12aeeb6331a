"""Buffers a dataset that arrives over the network, in memory or in a file of the spool."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

_KEPT_IN_MEMORY_BYTES = 4 * 1024**2


class ReceivedDataset(io.BytesIO):
    """The bytes of one dataset: in memory up to 4 MiB, then in a file.

    Args:
        new_path: returns the path of a new file.
        head: returns the preamble and file meta information to write before the dataset.

    Attributes:
        path: the file, once there is one; its owner removes or moves it.
        head_size_bytes: offset of the dataset in the file.
        error: why the file cannot be written; bytes that arrive afterwards are dropped.
    """

    def __init__(self, new_path: Callable[[], Path], head: Callable[[], bytes]) -> None:
        super().__init__()
        self._new_path, self._head = new_path, head
        self._fd = -1
        self.path: Path | None = None
        self.head_size_bytes = 0
        self.error: OSError | None = None

    def write(self, data: Any, /) -> int:  # noqa: ANN401 - as io.BytesIO has it
        """Append the next fragment; a full disk raises nothing, see ``error``."""
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
        """Close the file, without syncing or removing it; the dataset is complete."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def discard(self) -> None:
        """Close and remove the file."""
        self.finish()
        if self.path is not None:
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)

    def _move_to_file(self) -> None:
        self.path = self._new_path()
        self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
        os.fchmod(
            self._fd, 0o444
        )  # despite the umask: operators of another user read it, and folder modes keep others out
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
