"""The one retry policy for calls that fail temporarily.

Pauses double up to a limit. Each is up to a quarter longer or shorter at random, so that the clients of a failed
server do not all return at the same moment.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable

import tenacity

_JITTER = 0.25
_DOUBLINGS = 30  # caps the exponent, so that the pause does not overflow a float


class Patience:
    """How long and how often one call is retried; each call needs a new one.

    Args:
        seconds: time for retries after the first failure; the last attempt is made at its end.
        attempts: the most attempts, with the first.
        first_s: the pause after the first failure, in seconds.
        longest_s: the longest pause, in seconds.

    Attributes:
        failures: consecutive failures so far.
    """

    def __init__(
        self, seconds: float = math.inf, *, attempts: float = math.inf, first_s: float, longest_s: float
    ) -> None:
        self._seconds = seconds
        self._attempts = attempts
        self._first_s, self._longest_s = first_s, longest_s
        self._failing_since: float | None = None
        self.failures = 0

    def renew(self) -> None:
        """Start afresh after an answer or other progress."""
        self._failing_since, self.failures = None, 0

    def next_pause_s(self) -> float:
        """Count a failure, and return the seconds until the next attempt."""
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        pause_s = self._first_s * 2.0 ** min(self.failures, _DOUBLINGS)
        self.failures += 1
        left_s = self._failing_since + self._seconds - now
        return max(0.0, min(jittered(min(pause_s, self._longest_s)), left_s))

    @property
    def is_over(self) -> bool:
        """Whether no attempt is left after the last failure."""
        if self._failing_since is None:
            return False
        return self.failures >= self._attempts or time.monotonic() >= self._failing_since + self._seconds


def repeating(
    patience: Patience,
    may_pass: Callable[[BaseException], bool],
    *,
    cancelled: threading.Event | None = None,
    before_pause: Callable[[BaseException, float], None] | None = None,
) -> tenacity.Retrying:
    """Return a retrier that calls a function until it succeeds, and raises its last error when no attempt is left.

    Args:
        patience: how long and how often; for this call only.
        may_pass: decides whether an error is retried.
        cancelled: once set, ends the pause and allows no further attempt.
        before_pause: called before each pause with the error and the seconds until the next attempt.
    """
    stop = cancelled or threading.Event()

    def tell(state: tenacity.RetryCallState) -> None:
        error = None if state.outcome is None else state.outcome.exception()
        if before_pause is not None and error is not None:
            before_pause(error, state.upcoming_sleep)

    def pause(seconds: float) -> None:
        stop.wait(seconds)

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(may_pass),
        wait=lambda _: patience.next_pause_s(),
        stop=lambda _: patience.is_over or stop.is_set(),
        sleep=pause,
        before_sleep=tell,
        reraise=True,
    )


def jittered(seconds: float) -> float:
    """Return the seconds, up to a quarter longer or shorter at random."""
    return seconds * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - no secret
