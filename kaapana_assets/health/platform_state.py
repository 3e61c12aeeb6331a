"""The state of the running platform, which the caller reads from the platform's record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kaapana_assets.health.findings import PastError


@dataclass(frozen=True, kw_only=True)
class PlatformState:
    """A platform that is up.

    Attributes:
        running: names of the parts that run.
        down: names of the parts that crashed and will be started again.
        restarts: number of restarts of parts since the platform was started.
        crashes: the latest crashes of parts.
    """

    dagster_url: str
    health_url: str
    receiver_host: str
    receiver_port: int
    receiver_ae_title: str
    running: Sequence[str]
    down: Sequence[str]
    restarts: int
    crashes: Sequence[PastError]
