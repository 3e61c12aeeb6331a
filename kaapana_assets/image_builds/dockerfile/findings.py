"""What of a Dockerfile is not obeyed, and what that means."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Severity(Enum):
    """What it means that an instruction is not obeyed."""

    HARMLESS = "harmless"
    """The operator runs as in its container."""
    MATTERS = "matters"
    """The operator may need it: it has to be on this machine, or is to be done in another way."""
    ERROR = "error"
    """Docker could not build the image either."""


@dataclass(frozen=True)
class DockerfileFinding:
    """One instruction, or a command of a RUN, that is not obeyed.

    Attributes:
        line: of the Dockerfile, from 1; 0 where it is about no single line.
        instruction: as it stands, shortened.
        reason: what that means, and what to do.
    """

    line: int
    instruction: str
    severity: Severity
    reason: str

    def __str__(self) -> str:
        location = f"line {self.line}: " if self.line else ""
        return f"{location}{self.instruction}: {self.reason}"
