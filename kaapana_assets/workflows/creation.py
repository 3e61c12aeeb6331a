"""Records the workflows that are created while a file is loaded, and the lines that create them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class Created:
    """A workflow that was created while a file was loaded.

    Attributes:
        workflow: the workflow.
        file: path of the file with the line that created it.
        line: number of that line.
    """

    workflow: object
    file: str
    line: int


_noted: ContextVar[list[Created] | None] = ContextVar("created workflows", default=None)


def note_created(workflow: object, *, model: str) -> None:
    """Record a workflow in the enclosing ``created_workflows``; do nothing if there is none.

    Args:
        workflow: the workflow.
        model: path of the model's own file, whose lines are not the author's.
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
    """Collect the workflows that are created within the block."""
    noted: list[Created] = []
    token = _noted.set(noted)
    try:
        yield noted
    finally:
        _noted.reset(token)
