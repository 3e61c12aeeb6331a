"""Watching a container until it ends: its output as it comes, its state, a deadline and cancelling.

The output is followed in a thread of its own and given on in the calling one. Whoever begins again,
after the engine was away, goes on where it stopped: the engine keeps all output, and what was given on
already is skipped.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from kaapana_assets.child_process import Lines
from kaapana_assets.containers.docker.engine import Engine
from kaapana_assets.containers.outcomes import LINES_SHOWN
from kaapana_assets.errors import EngineUnavailable

GOES_ON = ("running", "paused", "restarting", "stopping", "initialized")
"""The states of a container that has begun and not ended."""

_LOOK_EVERY_S = (0.1, 0.5)  # in the first seconds, and then
_FIRST_S = 5.0
_PIECES = 256  # waiting to be given on
_Piece = tuple[bool, bytes]


class ContainerWatch:
    """What was heard of one container.

    Args:
        engine: where it runs.
        output: called in the calling thread with each line.
        answered: called when the engine has said that the container goes on.

    Attributes:
        last: the last lines.
        began: when the container began, by ``time.monotonic()``.
        interrupted: whether the engine was away for a while.
    """

    def __init__(self, engine: Engine, output: Callable[[str], None], *, answered: Callable[[], None]) -> None:
        self._engine = engine
        self._answered = answered
        self._output = output
        self._given = {False: 0, True: 0}
        self._lines = {False: Lines(), True: Lines()}
        self.last: deque[str] = deque(maxlen=LINES_SHOWN)
        self.began = time.monotonic()
        self.interrupted = False

    def until_end(
        self, container: str, *, deadline: float | None = None, cancelled: threading.Event | None = None
    ) -> Mapping[str, Any] | None:
        """The container's state when it has ended; empty if it is gone, None if something else came first.

        Args:
            container: its ID.
            deadline: by ``time.monotonic()``.
            cancelled: an event that stops the waiting.

        Raises:
            EngineUnavailable: the engine does not answer; this may be called again.
        """
        with self._followed(container) as pieces:
            while True:
                has_ended = self._hear(pieces, cancelled, until=self._next_look(deadline))
                if cancelled is not None and cancelled.is_set():
                    return None
                found = self._engine.find_container(container)
                if found is None:
                    return {}
                if found["State"]["Status"] not in GOES_ON:
                    break
                self._answered()
                if deadline is not None and time.monotonic() >= deadline:
                    return None
                if has_ended:  # the log's end comes a moment before that of the container, or Podman gave up
                    time.sleep(_LOOK_EVERY_S[0] / 4)
        # What the follower has not brought is read now: Podman ends a log early, or not at all.
        for is_error, piece in self._rest(container):
            self._give(is_error, piece)
        for lines in self._lines.values():
            self._tell(lines.feed(b"", final=True))
        state: Mapping[str, Any] = found["State"]
        return state

    def _next_look(self, deadline: float | None) -> float:
        now = time.monotonic()
        then = now + _LOOK_EVERY_S[now - self.began > _FIRST_S]
        return then if deadline is None else max(now, min(then, deadline))

    def _hear(self, pieces: queue.Queue[_Piece | None], cancelled: threading.Event | None, *, until: float) -> bool:
        """Give on what comes until then; whether the log has come to its end."""
        while (left := until - time.monotonic()) > 0 and not (cancelled is not None and cancelled.is_set()):
            try:
                piece = pieces.get(timeout=min(left, _LOOK_EVERY_S[0]))
            except queue.Empty:
                continue
            if piece is None:
                return True
            self._give(*piece)
        return False

    @contextlib.contextmanager
    def _followed(self, container: str) -> Iterator[queue.Queue[_Piece | None]]:
        pieces: queue.Queue[_Piece | None] = queue.Queue(_PIECES)
        enough = threading.Event()
        given = dict(self._given)

        def put(piece: _Piece | None) -> None:
            while not enough.is_set():
                with contextlib.suppress(queue.Full):
                    pieces.put(piece, timeout=0.1)
                    return

        def follow() -> None:
            while not enough.is_set():
                try:
                    for is_error, piece in _after(self._engine.logs(container, follow=True), given):
                        given[is_error] += len(piece)
                        put((is_error, piece))
                        if enough.is_set():
                            return
                    put(None)
                    return
                except EngineUnavailable:  # also after silence; who looks at the container's state tells them apart
                    enough.wait(_LOOK_EVERY_S[0])

        thread = threading.Thread(target=follow, name=f"log-{container[:12]}", daemon=True)
        thread.start()
        try:
            yield pieces
            enough.set()
            while not pieces.empty():
                if (piece := pieces.get()) is not None:
                    self._give(*piece)
        finally:
            enough.set()

    def _rest(self, container: str) -> Iterator[_Piece]:
        return _after(self._engine.logs(container, follow=False), dict(self._given))

    def _give(self, is_error: bool, piece: bytes) -> None:
        self._given[is_error] += len(piece)
        self._tell(self._lines[is_error].feed(piece))

    def _tell(self, lines: Iterator[str]) -> None:
        for line in lines:
            self.last.append(line)
            self._output(line)


def _after(pieces: Iterator[_Piece], given: Mapping[bool, int]) -> Iterator[_Piece]:
    """The pieces without the first bytes of each stream, as many as are given."""
    skip = dict(given)
    for is_error, piece in pieces:
        skipped = min(skip[is_error], len(piece))
        skip[is_error] -= skipped
        if skipped < len(piece):
            yield is_error, piece[skipped:]
