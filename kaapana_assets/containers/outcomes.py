"""Translates the end of an operator into an outcome or an error, in the same words for every runner."""

from __future__ import annotations

import threading
from collections import deque

from kaapana_assets.containers.protocol import Launch, Outcome
from kaapana_assets.containers.reasons import INDENT
from kaapana_assets.errors import OperatorError, OperatorFailed, OperatorOutOfMemory, OperatorTimeout

LINES_SHOWN = 30
SKIPPED = 126
KILLED = 137  # SIGKILL, which the kernel's out-of-memory killer sends
_NO_MEMORY = ("MemoryError", "std::bad_alloc", "Cannot allocate memory", "OutOfMemoryError", "ArrayMemoryError")


def outcome_of(code: int, launch: Launch, last: deque[str], *, out_of_memory: bool = False) -> Outcome:
    """Return the outcome that an exit code stands for.

    Args:
        code: exit code; 128 + signal number for a signal.
        launch: the launch that ended.
        last: the last lines of its output, shown in errors.
        out_of_memory: whether the runner knows that the memory limit was reached.

    Raises:
        OperatorFailed: the exit code is neither 0 nor 126.
        OperatorOutOfMemory: likewise, and memory appears to be the reason.
    """
    if code == 0:
        return Outcome.DONE
    if code == SKIPPED:
        return Outcome.SKIPPED
    text = "\n".join(last)
    limited = launch.memory_mb is not None and any(sign in text for sign in _NO_MEMORY)
    if launch.memory_mb is not None and (out_of_memory or limited):
        raise OperatorOutOfMemory(
            f"{named(launch)} ended with exit code {code} at its limit of {launch.memory_mb} MiB{tail(last)}"
        )
    if out_of_memory or code == KILLED:
        raise OperatorOutOfMemory(
            f"{named(launch)} was killed (exit code {code}), most likely for using too much memory{tail(last)}"
        )
    raise OperatorFailed(f"{named(launch)} ended with exit code {code}{tail(last)}")


def stopped(launch: Launch, cancelled: threading.Event | None, last: deque[str]) -> OperatorError:
    """Return the error of an operator that was stopped: cancelled, or past its timeout."""
    if cancelled is not None and cancelled.is_set():
        return OperatorFailed(f"{named(launch)} was cancelled{tail(last)}")
    return OperatorTimeout(f"{named(launch)} ran longer than its limit of {launch.timeout_s:g} s{tail(last)}")


def named(launch: Launch) -> str:
    """Return the operator's name for messages, with its run and image."""
    return f"operator {launch.operator} of {launch.run_id} (image {launch.image})"


def tail(last: deque[str]) -> str:
    """Return the last lines of output, formatted for the end of a message."""
    return "".join(f"\n{INDENT}{line[:500]}" for line in last) if last else ", without output"
