"""Follows one launch's pod and its log, in two threads that survive broken connections.

Both put their news into one queue, so that the thread that waits for the operator can be cancelled and
receives the lines of the log in order.
"""

from __future__ import annotations

import contextlib
import queue
import re
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from kaapana_assets.child_process import Lines
from kaapana_assets.containers.kubernetes.api import Cluster, Gone
from kaapana_assets.containers.kubernetes.job import CONTAINER, JobHandle
from kaapana_assets.containers.outcomes import LINES_SHOWN
from kaapana_assets.errors import KaapanaAssetsError

_WATCH_S = 60
_PAUSE_S = 0.5
_TIMED = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z) ?")
_LONGEST_TIME = 40  # bytes
_LINES = re.compile(rb"[^\n]*\n|[^\n]+")
_QUEUED = 1000  # lines of up to 16 KiB; when the queue is full, reading pauses
_TAIL_ATTEMPTS = 5
_TAIL_PAUSE_S = 1.0


@dataclass(frozen=True)
class Line:
    """One line of the operator's output."""

    text: str


@dataclass(frozen=True)
class Seen:
    """A change of the pod.

    Attributes:
        pod: the pod as the API returns it; None if it no longer exists.
    """

    pod: Mapping[str, Any] | None


News = Line | Seen | KaapanaAssetsError


class PodWatch:
    """Delivers the news of a Job's pod; leaving the ``with`` block ends its threads."""

    def __init__(self, cluster: Cluster, job: JobHandle) -> None:
        self._cluster = cluster
        self._selector = job.pods
        self._news: queue.Queue[News] = queue.Queue(_QUEUED)
        self._stop = threading.Event()
        self._ended = threading.Event()
        self._log: threading.Thread | None = None
        self._watch = threading.Thread(target=self._watch_pod, name=f"watch {job.name}", daemon=True)

    def __enter__(self) -> PodWatch:
        self._watch.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The threads are not joined: they may be blocked in a connection, and end when that times out.
        self._stop.set()

    def next(self, timeout_s: float) -> News | None:
        """Return the next news; None if there is none within the timeout."""
        try:
            return self._news.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def follow_log(self, pod: str) -> None:
        """Start to follow the pod's log. Called once the container has started; later calls do nothing."""
        if self._log is None:
            self._log = threading.Thread(target=self._follow_log, args=(pod,), name=f"log {pod}", daemon=True)
            self._log.start()

    def finish_log(self) -> None:
        """Note that the container has ended: the log is read to its present end and not followed any more."""
        self._ended.set()

    def last_lines(self, pod: str) -> list[str]:
        """Return the last lines of a log that is too long to be read whole; empty if there is no log."""
        for _ in range(_TAIL_ATTEMPTS):  # a busy node may break a connection, or be late with the log's end
            lines, told = Lines(), _Told()
            found: list[str] = []
            with contextlib.suppress(Gone):
                for piece in self._cluster.log(pod, container=CONTAINER, since="", follow=False, last=LINES_SHOWN):
                    found += lines.feed(told.new_part(piece))
            found += lines.feed(told.new_part(b"", final=True), final=True)
            if any(line.strip() for line in found):
                return found
            time.sleep(_TAIL_PAUSE_S)
        return found

    @property
    def log_is_read(self) -> bool:
        """Whether all lines of the log are in the queue or were taken from it."""
        return self._log is None or not self._log.is_alive()

    def _give(self, news: News) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(queue.Full):
                self._news.put(news, timeout=_PAUSE_S)
                return

    def _watch_pod(self) -> None:
        last: Mapping[str, Any] | None = None
        try:
            while not self._stop.is_set():
                pods, version = self._cluster.pods(self._selector)
                pod = max(pods, key=lambda each: str(each["metadata"]["creationTimestamp"]), default=None)
                if pod is None and last is not None:
                    self._give(Seen(None))
                elif pod is not None:
                    self._give(Seen(pod))
                last = pod or last
                try:
                    for kind, changed in self._cluster.changes(self._selector, version, within_s=_WATCH_S):
                        if self._stop.is_set():
                            return
                        last = changed
                        self._give(Seen(changed))
                        if kind == "DELETED":
                            self._give(Seen(None))
                except Gone:
                    self._stop.wait(_PAUSE_S)
        except KaapanaAssetsError as exc:
            self._give(exc)

    def _follow_log(self, pod: str) -> None:
        lines, told = Lines(), _Told()
        while not self._stop.is_set():
            last_time = self._ended.is_set()
            try:
                for piece in self._cluster.log(pod, container=CONTAINER, since=told.newest, follow=not last_time):
                    if self._stop.is_set():
                        return
                    self._heard(lines.feed(told.new_part(piece)))
            except Gone:
                if last_time:
                    return
            else:
                if last_time:
                    break
            told.begin_again()
            self._ended.wait(_PAUSE_S)
        self._heard(lines.feed(told.new_part(b"", final=True), final=True))

    def _heard(self, lines: Iterator[str]) -> None:
        for line in lines:
            self._give(Line(line))


class _Told:
    """Remembers which part of a log was forwarded, so that a log that is read again is not repeated.

    Only the time at the start of each line is the cluster's; the operator may print times of its own.

    Attributes:
        newest: time of the last complete line.
    """

    def __init__(self) -> None:
        self.newest = ""
        self._before = ""
        self._line = ""  # time of the present line
        self._given = 0  # bytes of the present line that were forwarded
        self._skipped = 0  # bytes of the present line that are repeated and must be left out
        self._giving = True
        self._is_start = True
        self._held = b""  # the start of a line, too short to contain the whole time

    def begin_again(self) -> None:
        """Prepare for reading the log again from ``newest`` on; the API repeats that whole second."""
        self._before = self.newest
        self._is_start, self._held = True, b""

    def new_part(self, piece: bytes, *, final: bool = False) -> bytes:
        """Return the text of a piece of the log, without times and without what was forwarded before."""
        parts = _LINES.findall(self._held + piece)
        self._held = b""
        new = b""
        for part in parts:
            text = part
            if self._is_start:
                if not final and len(part) < _LONGEST_TIME and not part.endswith(b"\n"):
                    self._held = part
                    break
                text, cut = self._begin(part)
                new += cut
            left_out = min(self._skipped, len(text))
            self._skipped -= left_out
            if self._giving:
                new += text[left_out:]
                self._given += len(text) - left_out
            self._is_start = part.endswith(b"\n")
            if self._is_start and self._giving:
                self.newest = max(self.newest, self._line, key=_comparable)
                self._given = 0
        return new

    def _begin(self, part: bytes) -> tuple[bytes, bytes]:
        """Return the text at the start of a line, and a line end if the line before was cut off for good."""
        found = _TIMED.match(part)
        if found is None:
            return part, b""
        time = found[1].decode()
        text, cut = part[found.end() :], b""
        self._giving = not self._before or _comparable(time) > _comparable(self._before)
        if self._giving and time == self._line:
            self._skipped = self._given
        elif self._giving:
            cut = b"\n" if self._given else b""
            self._line, self._given, self._skipped = time, 0, 0
        return text, cut


def _comparable(time: str) -> str:
    """Return an RFC 3339 time in UTC as text that sorts: Kubernetes omits trailing zeros of the nanoseconds."""
    seconds, _, fraction = time.rstrip("Z").partition(".")
    return f"{seconds}.{fraction:0<9}"
