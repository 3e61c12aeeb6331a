"""The types of a health report; the checks are in ``checks``, the texts in ``formatting``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any

from kaapana_assets.shown import shown, shown_lines


def _escape(found: object, *names: str) -> None:
    """Escape attributes that hold text from servers, senders or file names, so that any face can show them."""
    for name in names:
        object.__setattr__(found, name, shown_lines(getattr(found, name)))


class HealthState(Enum):
    """The state of a checked component."""

    WORKS = "works"
    BROKEN = "broken"
    OFF = "off"
    """It does not run and need not."""


@dataclass(frozen=True, kw_only=True)
class HealthFinding:
    """The result of one check.

    Attributes:
        state: whether the component works.
        where: the server or folder that was checked, without credentials.
        product: name and version that the server reports; empty if none answered.
        counts: numbers by name; names that end with ``_bytes`` or ``_s`` give bytes or seconds.
        problem: why the component is broken; for one that works, a warning.
    """

    state: HealthState
    where: str = ""
    product: str = ""
    counts: Mapping[str, float] = field(default_factory=dict)
    problem: str = ""

    def __post_init__(self) -> None:
        _escape(self, "where", "product", "problem")


class ErrorKind(Enum):
    """The subject of a past error."""

    RUN = "run"
    PART = "part"
    FILE = "file"


@dataclass(frozen=True, kw_only=True)
class PastError:
    """An error that is over: it does not affect the current state.

    Attributes:
        time: time of the error, with time zone.
        what: the job that failed, the part that crashed, or the file that was quarantined.
        reason: the reason, in one line.
        where: where to read more: the URL of a page, the path of a log or of the file itself.
    """

    kind: ErrorKind
    time: datetime
    what: str
    reason: str
    where: str

    def __post_init__(self) -> None:
        _escape(self, "what", "reason", "where")


@dataclass(frozen=True, kw_only=True)
class HealthReport:
    """The results of all checks at one moment.

    Attributes:
        time: time of the report, with time zone.
        is_up: whether a platform runs on the home.
        dagster_url: URL of Dagster's web UI; empty if no platform runs.
        health_url: URL of the health page; empty if no platform runs.
        findings: results by name of the check, in display order.
        errors: the latest errors of each kind, newest first.
    """

    time: datetime
    home: Path
    is_up: bool
    dagster_url: str
    health_url: str
    findings: Mapping[str, HealthFinding]
    errors: tuple[PastError, ...]

    @property
    def broken(self) -> list[str]:
        """The names of the checks that found a broken component."""
        return [name for name, each in self.findings.items() if each.state is HealthState.BROKEN]

    @property
    def ok(self) -> bool:
        """Whether no component is broken."""
        return not self.broken

    def as_json(self) -> dict[str, Any]:
        """The report as a JSON object; times are ISO 8601."""
        return {
            "ok": self.ok,
            "time": self.time.isoformat(timespec="seconds"),
            "home": shown(self.home),
            "is_up": self.is_up,
            "dagster_url": self.dagster_url,
            "health_url": self.health_url,
            "findings": {
                name: asdict(each) | {"state": each.state.value, "counts": dict(each.counts)}
                for name, each in self.findings.items()
            },
            "errors": [
                asdict(each) | {"kind": each.kind.value, "time": each.time.isoformat(timespec="seconds")}
                for each in self.errors
            ],
        }
