"""Makes the health check of a platform from its settings and the record of the running platform."""

from __future__ import annotations

from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from kaapana_assets.health.findings import ErrorKind, PastError
from kaapana_assets.health.health_check import HealthCheck
from kaapana_assets.health.platform_state import PlatformState
from kaapana_assets.operations.library_logs import quiet_libraries
from kaapana_assets.supervision.parts import Places
from kaapana_assets.supervision.postgres_server import check_embedded, check_server
from kaapana_assets.supervision.record import Crash, running_platform

if TYPE_CHECKING:
    from kaapana_assets.settings import Settings

_CONNECT_S = 2  # the least that libpq accepts


def open_health_check(settings: Settings) -> HealthCheck:
    """Return the health check of the stores in the settings and of the platform that runs on their home."""
    quiet_libraries()
    return HealthCheck(settings, platform=partial(_platform, settings), storage=partial(_storage, settings))


def _platform(settings: Settings) -> PlatformState | None:
    record = running_platform(settings.home)
    if record is None:
        return None
    return PlatformState(
        dagster_url=record.dagster_url,
        health_url=record.health_url,
        receiver_host=record.receiver_host,
        receiver_port=record.receiver_port,
        receiver_ae_title=record.receiver_ae_title,
        running=sorted(record.parts),
        down=record.down,
        restarts=record.restarts,
        crashes=[_error(each) for each in record.crashes],
    )


def _error(crash: Crash) -> PastError:
    return PastError(
        kind=ErrorKind.PART,
        time=datetime.fromtimestamp(crash.time, timezone.utc),
        what=crash.part,
        reason=crash.how,
        where=crash.log,
    )


def _storage(settings: Settings) -> str | None:
    if settings.postgres_url:
        return check_server(settings, connect_s=_CONNECT_S)
    record = running_platform(settings.home)
    if record is None:
        return None
    return check_embedded(Places(settings.home, Path(record.folder)).postgres_socket, connect_s=_CONNECT_S)
