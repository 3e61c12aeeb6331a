"""The callback by which long operations report their progress."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """A callback, called at the start of a stage with ``done=0`` and after each item of it."""

    def __call__(self, stage: str, *, done: int, total: int) -> None:
        """Report the progress of a stage.

        Args:
            stage: name of the stage, such as ``sending``.
            done: number of completed items.
            total: number of all items.
        """


def no_progress(stage: str, *, done: int, total: int) -> None:
    """Ignore progress."""
