"""What the caller knows of the platform that is up; it holds this together from the platform's record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kaapana_assets.health.findings import PastError


@dataclass(frozen=True, kw_only=True)
class PlatformState:
    """A platform that is up.

    Attributes:
        running: the names of its parts that run now.
        down: the names of those that crashed and will be started again.
        restarts: how often a part was started again, since the platform was started.
        crashes: the last ones.
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
