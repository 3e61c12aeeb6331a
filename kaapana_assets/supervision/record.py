"""The record of the running platform, by which other commands find it, and the lock of its home.

The record names processes, and it is copied along with a home. So it is valid only in the folder and the boot of the
machine for which it was written.
"""

from __future__ import annotations

import fcntl
import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import psutil

from kaapana_assets import home_record
from kaapana_assets.addresses import bracketed
from kaapana_assets.durable import write_file
from kaapana_assets.errors import ConfigurationError
from kaapana_assets.home_paths import HomePaths
from kaapana_assets.locks import is_locked, open_lock
from kaapana_assets.settings import Settings, load_settings, take_environment

_LAUNCHER = ("runner", "images", "image_registry", "image_tag_suffix", "docker_url")


@dataclass(frozen=True)
class Crash:
    """The unexpected end of a part."""

    part: str
    time: float
    """Seconds since the epoch."""
    how: str
    log: str
    """File with the output of the part."""


@dataclass(frozen=True)
class PlatformRecord:
    """The addresses, processes and settings of a running platform."""

    pid: int
    token: str
    """The mark of its processes; see watchdog.TOKEN_VARIABLE."""
    folder: str
    """Temporary folder of its sockets."""
    webserver_host: str
    webserver_port: int
    receiver_host: str
    receiver_port: int
    receiver_ae_title: str
    parts: dict[str, int] = field(default_factory=dict)
    """Process id by part; each leads its own process group."""
    env_file: str = ""
    """The settings file given at its start."""
    stores: dict[str, str] = field(default_factory=dict)
    """The address of each store; see ``Settings.stores``."""
    launcher: dict[str, str] = field(default_factory=dict)
    """The settings of the runner and its images; see ``launcher_of``."""
    health_host: str = ""
    health_port: int = 0
    down: list[str] = field(default_factory=list)
    """Parts that crashed and will be restarted."""
    restarts: int = 0
    """Number of restarts of all parts."""
    crashes: list[Crash] = field(default_factory=list)
    """The last crashes, oldest first."""

    @property
    def dagster_url(self) -> str:
        """Base address of Dagster's webserver."""
        return f"http://{bracketed(self.webserver_host)}:{self.webserver_port}"

    @property
    def health_url(self) -> str:
        """Address of the health page."""
        return f"http://{bracketed(self.health_host)}:{self.health_port}/"


def running_platform(home: Path) -> PlatformRecord | None:
    """Return the record of the platform that runs on ``home``; None if none runs.

    Raises:
        ConfigurationError: the home or its lock cannot be read.
    """
    try:
        if is_locked(_lock_path(home)):
            return read_record(home) or _of_earlier_version(home)
    except PermissionError as exc:
        raise ConfigurationError(
            f"KAAPANA_HOME={home} is another user's: commands on it are for the user of the platform alone"
        ) from exc
    except OSError as exc:
        raise ConfigurationError(f"{_lock_path(home)} is no lock: {exc.strerror or exc}; remove it") from exc
    return None


def _of_earlier_version(home: Path) -> PlatformRecord | None:
    """Return a record without an identity, as earlier versions wrote it, if its process holds the lock."""
    found = _parsed(home)
    if found is None or found[1] is not None:
        return None
    return found[0] if has_lock(home, found[0].pid) else None


def has_lock(home: Path, pid: int) -> bool:
    """Whether a process has the lock of ``home`` open; the id of a killed platform may have been reused."""
    lock = _lock_path(home)
    try:
        return any(Path(file.path).samefile(lock) for file in psutil.Process(pid).open_files())
    except psutil.AccessDenied:
        return True  # a process of another user, assumed to have it
    except (psutil.Error, OSError):
        return False


def launcher_of(settings: Settings) -> dict[str, str]:
    """Return the settings that select the runner and its images; all commands on a home must agree on them."""
    return {name: str(getattr(settings, name)) for name in _LAUNCHER}


def settings_in_use(**given: Any) -> Settings:  # noqa: ANN401 - pydantic checks them
    """Return the settings of this process, completed by those of the platform that runs on their home, if one does.

    Args:
        given: fields that a command's options set; they take precedence over all others.

    Raises:
        ConfigurationError: a setting is invalid, or a store is not the running platform's, so that the command would
            read other data than the platform.
    """
    settings = load_settings(**given)
    record = running_platform(settings.home)
    if record is None:
        return settings
    if record.env_file:
        take_environment(Path(record.env_file))
        settings = load_settings(**given)
    for name, here in settings.stores().items():
        there = record.stores.get(name, here)
        if there != here:
            raise ConfigurationError(
                f"the platform that is up on {settings.home} has its {name} at {there}, but the settings here say "
                f"{here}: set KAAPANA_{name.upper()} and what belongs to it as it was set for `kaapana-assets up`"
            )
    not_set = {name: value for name, value in record.launcher.items() if name not in settings.model_fields_set}
    if not_set:
        settings = load_settings(**{**not_set, **given})
    return _with_addresses(settings, record)


def _with_addresses(settings: Settings, record: PlatformRecord) -> Settings:
    return settings.model_copy(
        update={
            "webserver_host": record.webserver_host,
            "webserver_port": record.webserver_port,
            "receiver_host": record.receiver_host,
            "receiver_port": record.receiver_port,
            "receiver_ae_title": record.receiver_ae_title,
            "health_host": record.health_host,
            "health_port": record.health_port,
        }
    )


def read_record(home: Path) -> PlatformRecord | None:
    """Return the record in ``home``, whose platform may be gone; None if it is of another folder or boot."""
    found = _parsed(home)
    if found is None or found[1] is None or not found[1].is_same_boot(home_record.identity_of(home)):
        return None
    return found[0]


def _parsed(home: Path) -> tuple[PlatformRecord, home_record.Identity | None] | None:
    try:
        found = json.loads(_record_path(home).read_text())
        identity = home_record.identity_from(found.pop("home", None))
        crashes = [Crash(**each) for each in found.pop("crashes", ())]
        return PlatformRecord(**found, crashes=crashes), identity
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        return None


def write_record(home: Path, record: PlatformRecord) -> None:
    """Write the record atomically, with the identity of the home that it is written for."""
    here = home_record.to_json(home_record.identity_of(home))
    write_file(_record_path(home), json.dumps({**asdict(record), "home": here}, indent=2) + "\n")


def remove_record(home: Path) -> None:
    """Remove the record; commands no longer find the platform."""
    _record_path(home).unlink(missing_ok=True)


def lock_home(home: Path) -> BinaryIO:
    """Take the lock of ``home``, which is held until it is closed or the process ends.

    Raises:
        ConfigurationError: another platform runs on this home, or the lock file cannot be created.
    """
    try:
        lock = open_lock(_lock_path(home))
    except OSError as exc:
        raise ConfigurationError(f"the lock {_lock_path(home)} cannot be made: {exc.strerror or exc}") from exc
    for _ in range(10):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # A command that checks whether a platform runs holds the lock for an instant.
            time.sleep(0.05)
        else:
            return lock
    lock.close()
    record = read_record(home)
    where = f" (process {record.pid}, {record.dagster_url})" if record else ""
    raise ConfigurationError(
        f"a platform is already up on KAAPANA_HOME={home}{where}; stop it first or set another KAAPANA_HOME"
    )


def _record_path(home: Path) -> Path:
    return HomePaths(home).platform_record


def _lock_path(home: Path) -> Path:
    return HomePaths(home).platform_lock
