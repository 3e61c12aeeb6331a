"""Marks of open associations, by which a series is held back while its sender is still connected.

A mark is a file that its receiver keeps locked: a receiver that was killed leaves a file without a
lock, which counts for nothing and is removed by the next one who looks.
"""

from __future__ import annotations

import fcntl
import os
import threading
import uuid
from pathlib import Path
from types import TracebackType

from kaapana_assets.locks import find_lock


class AssociationMarker:
    """Says, while it is open, which series may still get instances from it."""

    def __init__(self, path: Path, fd: int) -> None:
        self._path, self._fd = path, fd
        self._held: set[str] = set()
        self._lock = threading.Lock()

    def hold(self, series_instance_uid: str) -> None:
        """Hold back the series until this association closes; call before acknowledging an object of it.

        Nothing happens once it is closed: a connection may break while its last object is written.

        Raises:
            OSError: the mark cannot be written.
        """
        if series_instance_uid in self._held:
            return
        with self._lock:
            if self._fd >= 0:
                os.write(self._fd, f"{series_instance_uid}\n".encode())
                self._held.add(series_instance_uid)

    def close(self) -> None:
        """Let go of all series."""
        with self._lock:
            if self._fd >= 0:
                self._path.unlink(missing_ok=True)
                os.close(self._fd)
                self._fd = -1

    def __enter__(self) -> AssociationMarker:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def create_marker(folder: Path, *, aside: Path) -> AssociationMarker:
    """A new mark in ``folder``.

    Args:
        folder: the folder of marks.
        aside: a folder on the same file system; the mark is made and locked there first, because one
            that stands in ``folder`` without a lock would be taken for left behind.

    Raises:
        OSError: it cannot be written.
    """
    name = uuid.uuid4().hex
    fd = os.open(aside / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        (aside / name).rename(folder / name)
    except OSError:
        os.close(fd)
        raise
    return AssociationMarker(folder / name, fd)


def held_series(folder: Path) -> frozenset[str]:
    """The series that open associations have sent to; removes the marks of dead receivers."""
    held: set[str] = set()
    for marker in folder.iterdir() if folder.is_dir() else ():
        held.update(_read_marker(marker))
    return frozenset(held)


def _read_marker(marker: Path) -> list[str]:
    try:
        with find_lock(marker) as reader:
            try:
                fcntl.flock(reader, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return reader.read().decode("ascii").split()
            marker.unlink(missing_ok=True)
    except FileNotFoundError:
        pass
    return []
