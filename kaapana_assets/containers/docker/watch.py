"""Watches a container until it ends, is cancelled or reaches its deadline, and forwards its output.

A thread follows the log; the calling thread forwards the lines. After the engine was unavailable, the watch
can continue where it stopped: the engine keeps all output, and the part that was forwarded already is skipped.
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
"""The states of a container that has started and not ended."""

_LOOK_EVERY_S = (0.1, 0.5)  # during the first _FIRST_S seconds, and afterwards
_FIRST_S = 5.0
_PIECES = 256  # of output, waiting to be forwarded
_Piece = tuple[bool, bytes]


class ContainerWatch:
    """Watches one container and forwards its output, across interruptions of the engine.

    Args:
        engine: the engine that runs the container.
        output: called in the calling thread with each line.
        answered: called each time the engine reports that the container still runs.
        drain_s: seconds to read the rest of the output after the container has ended.

    Attributes:
        last: the last lines of output.
        began: when the container started, by ``time.monotonic()``.
        interrupted: whether the engine was unavailable for a while.
    """

    def __init__(
        self, engine: Engine, output: Callable[[str], None], *, answered: Callable[[], None], drain_s: float
    ) -> None:
        self._engine = engine
        self._drain_s = drain_s
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
        """Wait until the container ends, the deadline passes or ``cancelled`` is set.

        Args:
            container: its ID.
            deadline: by ``time.monotonic()``.
            cancelled: an event that ends the wait.

        Returns:
            The container's final state; empty if the container is gone; None if it was cancelled or the
            deadline passed.

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
                if has_ended:  # the log ends shortly before the container does, or Podman stopped following
                    time.sleep(_LOOK_EVERY_S[0] / 4)
        # Read what the thread missed: Podman ends a followed log early, or never.
        if not self._read_rest(container):
            self._read_last(container)
        for lines in self._lines.values():
            self._tell(lines.feed(b"", final=True))
        state: Mapping[str, Any] = found["State"]
        return state

    def _next_look(self, deadline: float | None) -> float:
        now = time.monotonic()
        then = now + _LOOK_EVERY_S[now - self.began > _FIRST_S]
        return then if deadline is None else max(now, min(then, deadline))

    def _hear(self, pieces: queue.Queue[_Piece | None], cancelled: threading.Event | None, *, until: float) -> bool:
        """Forward output until the given time; return whether the log has ended."""
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
                except EngineUnavailable:  # or a silent container; until_end looks at its state
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

    def _read_rest(self, container: str) -> bool:
        """Forward the output that was missed; False if there is more than can be read in time."""
        until = time.monotonic() + self._drain_s
        is_late = False

        def in_time() -> Iterator[_Piece]:
            nonlocal is_late
            for piece in self._engine.logs(container, follow=False):
                is_late = time.monotonic() > until
                if is_late:
                    return
                yield piece

        for is_error, piece in _after(in_time(), dict(self._given)):
            self._give(is_error, piece)
        return not is_late

    def _read_last(self, container: str) -> None:
        """Forward the last lines, which say why an operator failed, after a line about what is left out."""
        self._output("it printed more than can be read in time: what is missing here is left out")
        self._lines = {False: Lines(), True: Lines()}
        for is_error, piece in self._engine.logs(container, follow=False, last=LINES_SHOWN):
            self._tell(self._lines[is_error].feed(piece))

    def _give(self, is_error: bool, piece: bytes) -> None:
        self._given[is_error] += len(piece)
        self._tell(self._lines[is_error].feed(piece))

    def _tell(self, lines: Iterator[str]) -> None:
        for line in lines:
            self.last.append(line)
            self._output(line)


def _after(pieces: Iterator[_Piece], given: Mapping[bool, int]) -> Iterator[_Piece]:
    """Skip the first bytes of each stream, as many as were forwarded already."""
    skip = dict(given)
    for is_error, piece in pieces:
        skipped = min(skip[is_error], len(piece))
        skip[is_error] -= skipped
        if skipped < len(piece):
            yield is_error, piece[skipped:]
