"""The instructions of a Dockerfile that the process runner does not apply, and their severity."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Severity(Enum):
    """How much it matters that an instruction is not applied."""

    HARMLESS = "harmless"
    """The operator runs as it does in its container."""
    MATTERS = "matters"
    """The operator may need it: install it on this machine, or replace the instruction."""
    ERROR = "error"
    """Docker cannot build the image either."""


@dataclass(frozen=True)
class DockerfileFinding:
    """One instruction, or one command of a RUN, that is not applied.

    Attributes:
        line: line number in the Dockerfile, from 1; 0 if the finding is about no single line.
        instruction: text of the instruction, shortened.
        severity: how much it matters.
        reason: the consequence, and what to do.
    """

    line: int
    instruction: str
    severity: Severity
    reason: str

    def __str__(self) -> str:
        location = f"line {self.line}: " if self.line else ""
        return f"{location}{self.instruction}: {self.reason}"
