"""The types of Dagster's answers, and the functions that parse them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kaapana_assets.run_ends import reason_of_end

_EXCEPTION = re.compile(r"^[\w.]+\.[A-Z]\w+: ", re.MULTILINE)
_FRAME = re.compile(r"Error occurred while executing [^\n]*:\n")
FINISHED = frozenset({"SUCCESS", "FAILURE", "CANCELED"})


@dataclass(frozen=True)
class StepState:
    """One step of a run; times are in seconds since the epoch, or None until the step starts or ends."""

    key: str
    status: str
    """``IN_PROGRESS``, ``SUCCESS``, ``FAILURE``, ``SKIPPED`` or ``UNKNOWN``."""
    start_time: float | None
    end_time: float | None


@dataclass(frozen=True)
class Run:
    """A run as Dagster reports it; times are in seconds since the epoch, or None until the event."""

    run_id: str
    job: str
    status: str
    """``QUEUED``, ``NOT_STARTED``, ``STARTING``, ``STARTED``, ``SUCCESS``, ``FAILURE``, ``CANCELING``, ``CANCELED``."""
    start_time: float | None
    end_time: float | None
    update_time: float | None
    root_run_id: str | None
    tags: Mapping[str, str]
    steps: tuple[StepState, ...]

    @property
    def finished(self) -> bool:
        """Whether the run has ended."""
        return self.status in FINISHED

    @property
    def succeeded(self) -> bool:
        """Whether the run has ended and all its steps succeeded."""
        return self.status == "SUCCESS"


@dataclass(frozen=True)
class Event:
    """One line of a run's event log."""

    kind: str
    """The event's GraphQL type, such as ``MaterializationEvent`` or ``LogMessageEvent``."""
    message: str
    step: str | None
    level: str
    error: str | None


@dataclass(frozen=True)
class PartitionStatus:
    """The partitions of an asset, by their status."""

    materialized: frozenset[str]
    failed: frozenset[str]
    missing: frozenset[str]
    materializing: frozenset[str]


def error_message(error: Mapping[str, Any]) -> str:
    """Return the message of a Dagster error, with its causes."""
    parts = [error.get("message") or "", *(part["message"] for part in error.get("errors") or ())]
    parts += [link["error"]["message"] for link in error.get("errorChain") or ()]
    return "\n".join(part.strip() for part in parts if part.strip()) or str(error["__typename"])


def told(error: str) -> str:
    """Return the readable part of an error, without Dagster's wrapping and the names of exceptions."""
    reason = _FRAME.sub("\n", reason_of_end(error))
    return next((part for part in _EXCEPTION.split(reason) if part.strip()), error).strip()


def parse_run(found: Mapping[str, Any]) -> Run:
    """Parse a run of an answer."""
    return Run(
        run_id=found["runId"],
        job=found["jobName"],
        status=found["status"],
        start_time=found["startTime"],
        end_time=found["endTime"],
        update_time=found["updateTime"],
        root_run_id=found["rootRunId"],
        tags={tag["key"]: tag["value"] for tag in found["tags"]},
        steps=tuple(
            StepState(step["stepKey"], step["status"] or "UNKNOWN", step["startTime"], step["endTime"])
            for step in found.get("stepStats", ())
        ),
    )


def parse_event(found: Mapping[str, Any]) -> Event:
    """Parse an event of an answer."""
    error = found.get("error")
    return Event(
        kind=found["__typename"],
        message=found.get("message") or "",
        step=found.get("stepKey"),
        level=found.get("level") or "",
        error=None if error is None else error_message({"__typename": "error", **error}),
    )
