"""What the running platform tells other commands: one small file in the home, and the lock beside it.

The file names processes, and it is copied with a home. It counts only in the folder, and until the
restart of the machine, for which it was written.
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
    """The end of a part that was not asked for."""

    part: str
    time: float
    """Seconds since the epoch."""
    how: str
    log: str
    """File of what the part printed."""


@dataclass(frozen=True)
class PlatformRecord:
    """Where a running platform is to be reached."""

    pid: int
    token: str
    """Mark of its processes, see watchdog.TOKEN_VARIABLE."""
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
    """File of settings that it was started with."""
    stores: dict[str, str] = field(default_factory=dict)
    """Where it keeps what, see ``Settings.stores``."""
    launcher: dict[str, str] = field(default_factory=dict)
    """The settings of what launches operators, and from which images."""
    health_host: str = ""
    health_port: int = 0
    down: list[str] = field(default_factory=list)
    """Parts that crashed and will be started again."""
    restarts: int = 0
    """How often a part was started again."""
    crashes: list[Crash] = field(default_factory=list)
    """The last ones, the oldest first."""

    @property
    def dagster_url(self) -> str:
        """Base address of Dagster's webserver."""
        return f"http://{bracketed(self.webserver_host)}:{self.webserver_port}"

    @property
    def health_url(self) -> str:
        """Address of the health page."""
        return f"http://{bracketed(self.health_host)}:{self.health_port}/"


def running_platform(home: Path) -> PlatformRecord | None:
    """The platform that runs on ``home`` now, or None."""
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
    """The record of a platform whose version said of no folder in it; only of one that does hold the lock."""
    found = _parsed(home)
    if found is None or found[1] is not None:
        return None
    return found[0] if has_lock(home, found[0].pid) else None


def has_lock(home: Path, pid: int) -> bool:
    """Whether a process has the lock of ``home`` open: the number of a killed platform may be another's by now."""
    lock = _lock_path(home)
    try:
        return any(Path(file.path).samefile(lock) for file in psutil.Process(pid).open_files())
    except psutil.AccessDenied:
        return True  # of another user, who is asked then
    except (psutil.Error, OSError):
        return False


def launcher_of(settings: Settings) -> dict[str, str]:
    """The settings that decide what an image holds, which all commands on a home must have alike."""
    return {name: str(getattr(settings, name)) for name in _LAUNCHER}


def settings_in_use(**given: Any) -> Settings:  # noqa: ANN401 - pydantic checks them
    """The settings of this process, with those of the platform that runs on their home, where one does.

    Args:
        given: fields that a command's options set, which win over all.

    Raises:
        ConfigurationError: a setting cannot work, or names other stores than those of the running
            platform: a command would look at data that are not the platform's.
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
    """The record of a platform on ``home`` that may be gone; None if it was written in another folder or boot."""
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
    """Put the record in place in one step, with the folder that it is written for."""
    here = home_record.to_json(home_record.identity_of(home))
    write_file(_record_path(home), json.dumps({**asdict(record), "home": here}, indent=2) + "\n")


def remove_record(home: Path) -> None:
    """Take the record away; the platform is not to be reached any more."""
    _record_path(home).unlink(missing_ok=True)


def lock_home(home: Path) -> BinaryIO:
    """The lock of ``home``, held until it is closed or the process ends.

    Raises:
        ConfigurationError: another platform runs on this home, or the lock cannot be made.
    """
    try:
        lock = open_lock(_lock_path(home))
    except OSError as exc:
        raise ConfigurationError(f"the lock {_lock_path(home)} cannot be made: {exc.strerror or exc}") from exc
    for _ in range(10):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # One that looks whether a platform runs holds the lock for an instant.
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
