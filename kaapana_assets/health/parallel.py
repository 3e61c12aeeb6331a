"""Runs calls in parallel and waits for none longer than a deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

Result = TypeVar("Result")


class ParallelCalls(Generic[Result]):
    """Runs each call in a thread of its own; not thread-safe itself.

    A call that hangs, for example on a lost disk, cannot be ended. Its thread goes on, and the call is not
    repeated before it returns, so that hanging threads do not accumulate.

    Args:
        fallback: returns the result of a call that has none, from its name and the reason.
        deadline_s: timeout of all calls together.
    """

    def __init__(self, fallback: Callable[[str, str], Result], *, deadline_s: float) -> None:
        self._fallback = fallback
        self._deadline_s = deadline_s
        self._calls: dict[str, _Call[Result]] = {}

    def start(self, calls: Mapping[str, Callable[[], Result]]) -> Callable[[], dict[str, Result]]:
        """Start all calls; returns a function that waits for their results, by name and in order."""
        for name, call in calls.items():
            running = self._calls.get(name)
            if running is None or running.done.is_set():
                self._calls[name] = _Call(name, call)
        deadline = time.monotonic() + self._deadline_s
        return lambda: {name: self._result(name, deadline) for name in calls}

    def _result(self, name: str, deadline: float) -> Result:
        call = self._calls[name]
        if not call.done.wait(max(0.0, deadline - time.monotonic())):
            return self._fallback(name, f"no answer for {time.monotonic() - call.since:.0f} s")
        if call.results:
            return call.results[0]
        return self._fallback(name, "the check itself failed; its log says why")


class _Call(Generic[Result]):
    def __init__(self, name: str, call: Callable[[], Result]) -> None:
        self.since = time.monotonic()
        self.done = threading.Event()
        self.results: list[Result] = []
        self._call = call
        # A daemon thread, so that a hanging call does not keep the process from ending.
        threading.Thread(target=self._make, name=f"check {name}", daemon=True).start()

    def _make(self) -> None:
        try:
            self.results.append(self._call())
        finally:
            self.done.set()
