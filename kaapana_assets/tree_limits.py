"""Limits of the trees that operators write, checked entry by entry, so that no listing outgrows memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kaapana_assets.errors import UnsafePath

_CHARACTERS_PER_FILE = 256
_LEAST_CHARACTERS = 1 << 20


@dataclass(frozen=True)
class Limits:
    """The largest allowed output.

    Attributes:
        depth: levels of folders below the output's own folder.
        files: number of files and folders; their paths may have 256 characters each on average.
        size_bytes: total size of all files; 0 means no limit.
    """

    depth: int = 64
    files: int = 1_000_000
    size_bytes: int = 1 << 40


class Tally:
    """Counts a tree against its limits."""

    def __init__(self, path: Path, limits: Limits | None) -> None:
        self._path, self._limits = path, limits
        self._entries = self._size = self._characters = 0

    def add_entry(self, length: int) -> None:
        """Count a file or folder.

        Args:
            length: characters of its path within the tree.

        Raises:
            UnsafePath: the tree has too many entries, or their paths too many characters.
        """
        if self._limits is None:
            return
        self._entries += 1
        self._characters += length
        if self._entries > self._limits.files:
            raise UnsafePath(f"{self._path} holds more than {self._limits.files} files (KAAPANA_OUTPUT_FILES)")
        allowed = max(self._limits.files * _CHARACTERS_PER_FILE, _LEAST_CHARACTERS)
        if self._characters > allowed:
            raise UnsafePath(
                f"the paths of the files in {self._path} have more than {allowed} characters together, "
                f"{_CHARACTERS_PER_FILE} for each file that may be there (KAAPANA_OUTPUT_FILES)"
            )

    def add_size(self, size_bytes: int) -> None:
        """Count the size of files.

        Raises:
            UnsafePath: the tree holds too many bytes.
        """
        if self._limits is None or not self._limits.size_bytes:
            return
        self._size += size_bytes
        if self._size > self._limits.size_bytes:
            raise UnsafePath(f"{self._path} holds more than {self._limits.size_bytes} bytes (KAAPANA_OUTPUT_BYTES)")
