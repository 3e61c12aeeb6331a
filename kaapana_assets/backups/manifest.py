r"""The manifest of a backup: the list of its files, one per line.

    {"format": "kaapana-assets backup 1", "version": "0.1.0", "home": "/data/home", "created": "...", ...}
    {"path": "archive/1.2/1.3/1.4.dcm", "kind": "file", "sha256": "...", "size": 526336, "mode": 292, "mtime_ns": ...}
    ...
    {"end": true, "files": 3, "bytes": 1234567, "sha256": "<of all lines before this one>"}

A manifest without its last line, or with any byte changed, is refused. The digest detects damage; it is no
signature: whoever can write to the backup can also write a valid manifest.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import IO, Any, Literal

from kaapana_assets.backups import contents
from kaapana_assets.errors import DamagedBackup
from kaapana_assets.shown import shown

_FORMAT = "kaapana-assets backup 1"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LONGEST_LINE = 1 << 16
_PERMISSIONS = 0o777
MTIME_END = 1 << 62

Kind = Literal["file", "folder", "postgres"]


@dataclass(frozen=True)
class Entry:
    """One file of a backup, or an empty folder.

    Attributes:
        path: path below the home, with ``/``.
        kind: kind of the entry; ``postgres`` is the dump of the embedded server.
        sha256: SHA-256 of the content in hex; empty for a folder.
        size: size in bytes.
        mode: permission bits, without setuid and setgid.
        mtime_ns: modification time in nanoseconds since the epoch.
    """

    path: str
    kind: Kind
    sha256: str
    size: int
    mode: int
    mtime_ns: int


@dataclass(frozen=True)
class Header:
    """The origin of a backup.

    Attributes:
        version: version of kaapana-assets that made the backup.
        home: path of the home at that time.
        created: creation time, ISO 8601 in UTC.
        left_out: descriptions of the stores that are servers, which the backup does not hold.
        settings: settings that were set and are no secrets, by variable name (``KAAPANA_X``).
    """

    version: str
    home: str
    created: str
    left_out: list[str]
    settings: dict[str, str]


class ManifestWriter:
    """Writes a manifest to a file."""

    def __init__(self, file: IO[bytes], header: Header) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.files = 0
        self.size_bytes = 0
        self._line({"format": _FORMAT, **asdict(header)})

    def add(self, entry: Entry) -> None:
        """Write an entry."""
        self._line(asdict(entry))
        self.files += entry.kind != "folder"
        self.size_bytes += entry.size

    def finish(self) -> None:
        """Write the last line, which completes the manifest."""
        end = {"end": True, "files": self.files, "bytes": self.size_bytes, "sha256": self._digest.hexdigest()}
        self._file.write(json.dumps(end).encode() + b"\n")

    def _line(self, values: dict[str, Any]) -> None:
        line = json.dumps(values).encode() + b"\n"
        self._digest.update(line)
        self._file.write(line)


class Reader:
    """Reads a manifest and returns only entries with safe paths.

    Args:
        file: the open manifest.
        name: name of the file, for messages.

    Raises:
        DamagedBackup: the first line is not the header of a manifest.
    """

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._file = file
        self._name = name
        self.files = 0
        self.size_bytes = 0
        self.digest = ""
        self._file.seek(0)
        values = self._values(self._file.readline(_LONGEST_LINE))
        if values.pop("format", None) != _FORMAT:
            raise self._damaged("is of no format that this version of kaapana-assets reads")
        try:
            self.header = Header(**values)
        except TypeError as exc:
            raise self._damaged("has no proper first line") from exc

    def entries(self) -> Iterator[Entry]:
        """All entries from the first; compares the digest after the last.

        Raises:
            DamagedBackup: the manifest was truncated or changed, or names a path that no backup holds.
        """
        self._file.seek(0)
        digest = hashlib.sha256(self._file.readline(_LONGEST_LINE))
        self.files = self.size_bytes = 0
        while line := self._file.readline(_LONGEST_LINE):
            values = self._values(line)
            if values.get("end") is True:
                told = (values.get("files"), values.get("bytes"), values.get("sha256"))
                if told != (self.files, self.size_bytes, digest.hexdigest()) or self._file.read(1):
                    raise self._damaged("was changed: its digest is another one")
                self.digest = digest.hexdigest()
                return
            digest.update(line)
            entry = self._entry(values)
            self.files += entry.kind != "folder"
            self.size_bytes += entry.size
            yield entry
        raise self._damaged("was cut short: its end is missing")

    def _entry(self, values: dict[str, Any]) -> Entry:
        try:
            entry = Entry(**values)
        except TypeError as exc:
            raise self._damaged("has a line that is no entry") from exc
        numbers = ((entry.size, MTIME_END), (entry.mode, _PERMISSIONS), (entry.mtime_ns, MTIME_END))
        texts = (entry.path, entry.kind, entry.sha256)
        if (
            not all(isinstance(text, str) for text in texts)
            or not all(type(number) is int and 0 <= number <= last for number, last in numbers)
            or entry.kind not in ("file", "folder", "postgres")
            or not (_SHA256.fullmatch(entry.sha256) or entry.kind == "folder")
        ):
            raise self._damaged("has a line that is no entry")
        if not contents.is_safe(entry.path) or not contents.is_kept(entry.path):
            raise self._damaged(f"names {shown(entry.path)}, which no backup holds: do not trust where it is from")
        if (entry.kind == "postgres") != (entry.path == contents.POSTGRES_DUMP):
            raise self._damaged(f"has {shown(entry.path)} as {entry.kind}")
        return entry

    def _values(self, line: bytes) -> dict[str, Any]:
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as exc:
            raise self._damaged("has a line that cannot be read") from exc
        if not isinstance(values, dict):
            raise self._damaged("has a line that cannot be read")
        return values

    def _damaged(self, how: str) -> DamagedBackup:
        return DamagedBackup(f"the backup {self._name} {how}")
