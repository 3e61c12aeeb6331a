"""The one way in which a call is repeated after a failure that may pass.

Pauses double up to a limit, and each is a quarter longer or shorter by chance: clients that one server has sent
away do not all come back at the same moment.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable

import tenacity

_JITTER = 0.25
_DOUBLINGS = 30  # more would not fit a float, and no limit is so high


class Patience:
    """How long, and how often, one call is repeated; a new one for each call.

    Args:
        seconds: from the first failure on; the last attempt is made at their end.
        attempts: at most so many, with the first.
        first_s: the pause after the first failure, in seconds.
        longest_s: the limit that pauses double up to, in seconds.

    Attributes:
        failures: so far, without any success between.
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
        """Begin again: it has answered, or there was progress."""
        self._failing_since, self.failures = None, 0

    def next_pause_s(self) -> float:
        """Seconds until the next attempt, after one more failure."""
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        pause_s = self._first_s * 2.0 ** min(self.failures, _DOUBLINGS)
        self.failures += 1
        left_s = self._failing_since + self._seconds - now
        return max(0.0, min(jittered(min(pause_s, self._longest_s)), left_s))

    @property
    def is_over(self) -> bool:
        """Whether there is no attempt left after the last failure."""
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
    """What calls a function until it gives a value; its last error is raised when there is no attempt left.

    Args:
        patience: for this call.
        may_pass: whether the call is repeated after an error.
        cancelled: ends a pause, and there is no further attempt, when set.
        before_pause: is told each error after which the call is repeated, and the seconds until then.
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
    """About so many seconds, by chance."""
    return seconds * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - no secret
