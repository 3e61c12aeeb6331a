"""Marker files of open associations, which hold a series back while its sender is still connected.

A receiver keeps the marker of each association locked. A killed receiver leaves an unlocked marker,
which holds nothing back and is removed by the next process that reads the markers.
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
    """Holds series back from ingest while their association is open."""

    def __init__(self, path: Path, fd: int) -> None:
        self._path, self._fd = path, fd
        self._held: set[str] = set()
        self._lock = threading.Lock()

    def hold(self, series_instance_uid: str) -> None:
        """Hold the series back until the marker is closed; call before acknowledging an object of it.

        Does nothing on a closed marker: a connection may break while its last object is written.

        Raises:
            OSError: the marker cannot be written.
        """
        if series_instance_uid in self._held:
            return
        with self._lock:
            if self._fd >= 0:
                os.write(self._fd, f"{series_instance_uid}\n".encode())
                self._held.add(series_instance_uid)

    def close(self) -> None:
        """Remove the marker, which no longer holds any series back."""
        with self._lock:
            if self._fd >= 0:
                self._path.unlink(missing_ok=True)
                os.close(self._fd)
                self._fd = -1

    def __enter__(self) -> AssociationMarker:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def create_marker(folder: Path, *, temporary_folder: Path) -> AssociationMarker:
    """Create a locked marker in ``folder``.

    Args:
        folder: the folder of markers.
        temporary_folder: a folder on the same file system. The marker is created and locked there first, because
            an unlocked marker in ``folder`` counts as that of a killed receiver.

    Raises:
        OSError: the marker cannot be written.
    """
    name = uuid.uuid4().hex
    fd = os.open(temporary_folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        (temporary_folder / name).rename(folder / name)
    except OSError:
        os.close(fd)
        raise
    return AssociationMarker(folder / name, fd)


def held_series(folder: Path) -> frozenset[str]:
    """The series that open associations have sent to; removes the markers of killed receivers."""
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
