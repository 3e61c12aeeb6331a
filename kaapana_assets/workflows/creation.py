"""Which workflows come into being while a file is loaded, and where in it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class Created:
    """A workflow that was made.

    Attributes:
        workflow: it.
        file: of the line that made it.
        line: number of that line.
    """

    workflow: object
    file: str
    line: int


_noted: ContextVar[list[Created] | None] = ContextVar("created workflows", default=None)


def note_created(workflow: object, *, model: str) -> None:
    """Note a workflow for who loads a file now.

    Args:
        workflow: it.
        model: the file of the model, whose lines are not the author's.
    """
    noted = _noted.get()
    if noted is None:
        return
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename in {model, "<string>"}:
        frame = frame.f_back
    noted.append(Created(workflow, frame.f_code.co_filename, frame.f_lineno))


@contextmanager
def created_workflows() -> Iterator[list[Created]]:
    """The workflows that are made within it."""
    noted: list[Created] = []
    token = _noted.set(noted)
    try:
        yield noted
    finally:
        _noted.reset(token)
