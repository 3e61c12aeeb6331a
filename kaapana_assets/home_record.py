"""The record of a home: the folder and machine it was written for, and the version that wrote in it last.

The file ``home.json`` goes along when a home is moved, copied or restored; the folder that it identifies does not.
So a record in a home is valid only in the folder that it was written for: a process that a copied record names
belongs to the original.

    {"layout": 1, "version": "0.1.0", "identity": {"path": "...", "device": 1, "inode": 2, "marker": 3, "boot": "..."},
     "servers": {"index": "..."}}

The file ``platform-id`` beside it holds the name by which the site's databases know the home; a copy keeps the name.
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
"""A file that is written once and never replaced, so that its inode tells a copied home from its original."""

LAYOUT = 1
"""The version of the layout; raise it when earlier versions would not find, or would damage, what is in a home."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Identity:
    """Identifies the folder of a home and the boot of its machine.

    Attributes:
        path: absolute path of the folder.
        device: number of its file system; may change when the machine reboots or the file system is remounted.
        inode: inode of the folder; roots of different volumes have the same number.
        marker: inode of the file MARKER in it; 0 if there is none.
        boot: id of the machine's boot; changes with each reboot.
    """

    path: str
    device: int
    inode: int
    marker: int
    boot: str

    def is_same_folder(self, other: Identity) -> bool:
        """Whether both identify one folder; it may have been moved or its machine rebooted in between."""
        if (self.inode, self.marker) != (other.inode, other.marker):
            return False
        return self.device == other.device or self.path == other.path or self.boot != other.boot

    def is_same_boot(self, other: Identity) -> bool:
        """Whether both identify one folder in one boot of its machine, so that process ids still hold."""
        return self.boot == other.boot and self.is_same_folder(other)


@dataclass(frozen=True)
class HomeRecord:
    """The content of ``home.json``.

    Attributes:
        layout: see LAYOUT.
        version: the newest version of the program that wrote in the home.
        identity: the folder in which the platform last ran; None if it never did.
        servers: the address of each store that was outside the home then, by the name of the store.
    """

    layout: int
    version: str
    identity: Identity | None = None
    servers: dict[str, str] = field(default_factory=dict)


def identity_of(home: Path) -> Identity:
    """Return the present identity of ``home``.

    Raises:
        ConfigurationError: the folder cannot be read.
    """
    try:
        folder = home.stat()
        marker = (home / MARKER).stat().st_ino if (home / MARKER).exists() else 0
    except OSError as exc:
        raise ConfigurationError(f"KAAPANA_HOME={home} cannot be read: {exc.strerror}") from exc
    return Identity(str(home.absolute()), folder.st_dev, folder.st_ino, marker, _boot())


def identity_from(values: object) -> Identity | None:
    """Return the identity from the JSON of ``to_json``; None if the value is not one."""
    try:
        return Identity(**values) if isinstance(values, dict) else None
    except TypeError:
        return None


def read(home: Path) -> HomeRecord | None:
    """Return the record of a home; None if it has none, as in homes of early versions.

    Raises:
        ConfigurationError: the record is damaged, or a newer version wrote it.
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
    """Record that this version writes in a home from now on; to be called before anything in it is migrated.

    Raises:
        ConfigurationError: a newer version wrote in the home, or the record cannot be written.
    """
    former = read(home)
    if former is None or _release(former.version) < _release(__version__) or former.layout < LAYOUT:
        _write(home, replace(former or HomeRecord(LAYOUT, __version__), layout=LAYOUT, version=__version__))


def settle(home: Path, servers: Mapping[str, str] | None = None, *, accept_copy: bool = False) -> Identity | None:
    """Record the present identity of a home; the caller holds the home's lock.

    Args:
        home: the folder.
        servers: the address of each store outside the home that only one home may use, by the name of the store.
        accept_copy: this home is a copy, and its original is gone.

    Returns:
        The former identity, if the home was copied, restored or moved to another file system; else None.

    Raises:
        ConfigurationError: the home is a copy that names servers of its original, without ``accept_copy``.
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
    """Whether the folder that an identity names can be seen from this machine; then it is a home of its own."""
    try:
        return identity_of(Path(identity.path)).is_same_folder(identity)
    except ConfigurationError:
        return False


def is_home_at(path: Path, *, but: Identity) -> bool:
    """Whether there is a home other than ``but`` at ``path``."""
    return (path / PLATFORM_ID).exists() and not identity_of(path).is_same_folder(but)


def platform_id(home: Path) -> str:
    """Return the name by which the site's databases know a home; the first call makes it.

    Raises:
        ConfigurationError: its file cannot be read or written.
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
    """Return the identity as JSON that ``identity_from`` reads."""
    return asdict(identity)


def _write(home: Path, record: HomeRecord) -> None:
    try:
        write_file(home / RECORD, json.dumps(asdict(record), indent=1) + "\n")
    except OSError as exc:
        raise ConfigurationError(f"{home / RECORD} cannot be written: {exc.strerror}") from exc


def _release(version: str) -> tuple[int, ...]:
    """Return the major and minor number; versions that differ only in the third number can share a home."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def _boot() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:  # not Linux
        import psutil

        return str(int(psutil.boot_time()))
