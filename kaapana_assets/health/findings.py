"""What checks find, as types; no checks and no words for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any

from kaapana_assets.shown import shown, shown_lines


def _escape(found: object, *names: str) -> None:
    """Servers, senders and file names say these: whoever shows them need not think of what is in them."""
    for name in names:
        object.__setattr__(found, name, shown_lines(getattr(found, name)))


class HealthState(Enum):
    """What is to be thought of something that was checked."""

    WORKS = "works"
    BROKEN = "broken"
    OFF = "off"
    """It is not there and need not be."""


@dataclass(frozen=True, kw_only=True)
class HealthFinding:
    """What one check found.

    Attributes:
        where: which server or folder it is, without credentials.
        product: what answered, as it calls itself, with its version; empty when nothing did.
        counts: by name; those that end with ``_bytes`` and ``_s`` are bytes and seconds.
        problem: why it is broken, for a person to read; also what is strange about one that works.
    """

    state: HealthState
    where: str = ""
    product: str = ""
    counts: Mapping[str, float] = field(default_factory=dict)
    problem: str = ""

    def __post_init__(self) -> None:
        _escape(self, "where", "product", "problem")


class ErrorKind(Enum):
    """What an error was the error of."""

    RUN = "run"
    PART = "part"
    FILE = "file"


@dataclass(frozen=True, kw_only=True)
class PastError:
    """Something that went wrong and is over: it says nothing of what works now.

    Attributes:
        time: when; with time zone.
        what: the job that failed, the part that crashed, or the file that was set apart.
        reason: one line.
        where: where more is said: a page, a log file, the file itself.
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
    """Everything that was found at one moment.

    Attributes:
        dagster_url: empty where no platform is up; so is ``health_url``.
        findings: by what was checked, in the order to show them in.
        errors: the last ones of each kind, the newest first.
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
        """The names of what should work and does not."""
        return [name for name, each in self.findings.items() if each.state is HealthState.BROKEN]

    @property
    def ok(self) -> bool:
        """Whether all works that should."""
        return not self.broken

    def as_json(self) -> dict[str, Any]:
        """All of it as JSON has it; times are ISO 8601."""
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
