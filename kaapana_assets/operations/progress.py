"""How long work says how far it is."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called at the begin of a stage with ``done=0``, and after each piece of it."""

    def __call__(self, stage: str, *, done: int, total: int) -> None:
        """Tell how far a stage is.

        Args:
            stage: what goes on, such as ``sending``.
            done: pieces that are done.
            total: pieces in all.
        """


def no_progress(stage: str, *, done: int, total: int) -> None:
    """For who does not watch."""
