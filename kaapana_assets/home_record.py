"""What a home says of itself: which folder of which machine it is, and which version wrote it last.

The file ``home.json`` travels with a home that is moved, copied or restored; the folder that it names
does not. So a record in a home counts only where the folder is still the one that it was written for:
a process that a copied record names belongs to the original.

    {"layout": 1, "version": "0.1.0", "identity": {"path": "...", "device": 1, "inode": 2, "marker": 3, "boot": "..."},
     "servers": {"index": "..."}}

Beside it, ``platform-id`` is the name under which databases of the site know the home; a copy keeps it.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from kaapana_assets import __version__
from kaapana_assets.durable import write_file
from kaapana_assets.errors import ConfigurationError

RECORD = "home.json"
PLATFORM_ID = "platform-id"
MARKER = ".kaapana-home"
"""Written once and never replaced: a copy of a home has it in another inode."""

LAYOUT = 1
"""Raised when a home is laid out so that an earlier version would not find, or would harm, what is in it."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Identity:
    """Which folder of which machine a home is.

    Attributes:
        path: absolute.
        device: number of its file system; another one after a restart of the machine, or a new mount.
        inode: of the folder; the root of a volume has the same one everywhere.
        marker: inode of the file MARKER in it, 0 where there is none.
        boot: of the machine, another one after each restart.
    """

    path: str
    device: int
    inode: int
    marker: int
    boot: str

    def is_same_folder(self, other: Identity) -> bool:
        """Whether both are one folder, which may have been moved, or its machine started again in between."""
        if (self.inode, self.marker) != (other.inode, other.marker):
            return False
        return self.device == other.device or self.path == other.path or self.boot != other.boot

    def is_same_boot(self, other: Identity) -> bool:
        """Whether both are one folder, and process ids mean the same: its machine was not started again."""
        return self.boot == other.boot and self.is_same_folder(other)


@dataclass(frozen=True)
class HomeRecord:
    """The content of ``home.json``.

    Attributes:
        layout: see LAYOUT.
        version: of the newest program that wrote there.
        identity: of the folder in which the platform was last; None before it was.
        servers: by store, where the platform had it then, of the stores that are not in the home.
    """

    layout: int
    version: str
    identity: Identity | None = None
    servers: dict[str, str] = field(default_factory=dict)


def identity_of(home: Path) -> Identity:
    """Which folder ``home`` is now.

    Raises:
        ConfigurationError: it cannot be looked at.
    """
    try:
        folder = home.stat()
        marker = (home / MARKER).stat().st_ino if (home / MARKER).exists() else 0
    except OSError as exc:
        raise ConfigurationError(f"KAAPANA_HOME={home} cannot be read: {exc.strerror}") from exc
    return Identity(str(home.absolute()), folder.st_dev, folder.st_ino, marker, _boot())


def identity_from(values: object) -> Identity | None:
    """The identity that ``dataclasses.asdict`` made JSON of; None where there is none."""
    try:
        return Identity(**values) if isinstance(values, dict) else None
    except TypeError:
        return None


def read(home: Path) -> HomeRecord | None:
    """The record of a home; None where there is none, as in homes of versions that had no record.

    Raises:
        ConfigurationError: it is damaged, or a newer program wrote it.
    """
    file = home / RECORD
    try:
        found: Any = json.loads(file.read_bytes())
        servers = {str(name): str(where) for name, where in found.get("servers", {}).items()}
        record = HomeRecord(int(found["layout"]), str(found["version"]), identity_from(found.get("identity")), servers)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise ConfigurationError(f"{file} cannot be read: {exc.strerror}") from exc
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise ConfigurationError(f"{file} is damaged: remove it if no newer program wrote in {home}") from exc
    if record.layout > LAYOUT or _release(record.version) > _release(__version__):
        raise ConfigurationError(
            f"the home {home} was written by kaapana-assets {record.version}, and this is {__version__}, which might "
            f"harm it: use {record.version} or newer, or restore a backup from before"
        )
    return record


def open_to_write(home: Path) -> None:
    """Note in the record that this version writes in a home from now on; before anything in it is brought up to date.

    Raises:
        ConfigurationError: a newer program wrote there, or it cannot be written.
    """
    former = read(home)
    if former is None or _release(former.version) < _release(__version__) or former.layout < LAYOUT:
        _write(home, replace(former or HomeRecord(LAYOUT, __version__), layout=LAYOUT, version=__version__))


def settle(home: Path, servers: Mapping[str, str] | None = None, *, accept_copy: bool = False) -> Identity | None:
    """Note where the home is now, for a platform that holds its lock.

    Args:
        home: the folder.
        servers: by store, where it is, of the stores that only one home may have and that are not in it.
        accept_copy: this home is a copy, and its original is gone.

    Returns:
        Where it was before, if this is not the same folder: it was copied, restored or moved to another
        file system; else None.

    Raises:
        ConfigurationError: it is a copy with servers of its original, and nobody said that this is gone.
    """
    former, now = read(home) or HomeRecord(LAYOUT, __version__), identity_of(home)
    before, servers = former.identity, dict(servers or {})
    is_copy = before is not None and not before.is_same_folder(now)
    shared = [f"{name} ({where})" for name, where in servers.items() if former.servers.get(name) == where]
    if before is not None and is_copy and shared and not accept_copy:
        raise ConfigurationError(
            f"{now.path} is a copy of the home {before.path} and has the servers of that: {', '.join(shared)}. Two "
            "platforms would write there over each other. If the original is gone for good: "
            "kaapana-assets up --accept-copy. If not, give this one servers of its own"
        )
    if (before, former.servers) != (now, servers):
        _write(home, replace(former, identity=now, servers=servers))
    return before if is_copy else None


def is_there(identity: Identity) -> bool:
    """Whether the folder that an identity names can be seen from here: it is then no former home but another."""
    try:
        return identity_of(Path(identity.path)).is_same_folder(identity)
    except ConfigurationError:
        return False


def is_home_at(path: Path, *, but: Identity) -> bool:
    """Whether another home than ``but`` is at ``path``."""
    return (path / PLATFORM_ID).exists() and not identity_of(path).is_same_folder(but)


def platform_id(home: Path) -> str:
    """The name under which databases of the site know a home; made on first use.

    Raises:
        ConfigurationError: it cannot be read or written.
    """
    file = home / PLATFORM_ID
    try:
        known = file.read_text().strip() if file.exists() else ""
        if not known:
            known = uuid.uuid4().hex
            write_file(file, known)
    except OSError as exc:
        raise ConfigurationError(f"{file} cannot be written: {exc.strerror}") from exc
    return known


def to_json(identity: Identity) -> dict[str, Any]:
    """What ``identity_from`` reads."""
    return asdict(identity)


def _write(home: Path, record: HomeRecord) -> None:
    try:
        write_file(home / RECORD, json.dumps(asdict(record), indent=1) + "\n")
    except OSError as exc:
        raise ConfigurationError(f"{home / RECORD} cannot be written: {exc.strerror}") from exc


def _release(version: str) -> tuple[int, ...]:
    """Major and minor number: releases that differ in the third one only read each other's homes."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def _boot() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:  # another system than Linux
        import psutil

        return str(int(psutil.boot_time()))
