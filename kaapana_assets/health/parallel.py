"""Several calls at once, of which none is waited for longer than a deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

Result = TypeVar("Result")


class ParallelCalls(Generic[Result]):
    """Runs calls in threads of their own; for one thread at a time.

    A call that hangs, on a disk that is gone say, cannot be ended. It is left behind and not made again
    before it came back, so that those that hang do not become more and more.

    Args:
        fallback: the result of a call without one, from its name and why it has none.
        deadline_s: that all calls together are waited for.
    """

    def __init__(self, fallback: Callable[[str, str], Result], *, deadline_s: float) -> None:
        self._fallback = fallback
        self._deadline_s = deadline_s
        self._calls: dict[str, _Call[Result]] = {}

    def start(self, calls: Mapping[str, Callable[[], Result]]) -> Callable[[], dict[str, Result]]:
        """Begin with all calls; what is given waits for their results, by name and in order."""
        for name, call in calls.items():
            going = self._calls.get(name)
            if going is None or going.done.is_set():
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
        # A daemon: a process can end although one hangs.
        threading.Thread(target=self._make, name=f"check {name}", daemon=True).start()

    def _make(self) -> None:
        try:
            self.results.append(self._call())
        finally:
            self.done.set()
