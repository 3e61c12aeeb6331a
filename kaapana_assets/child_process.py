"""Runs a child process and ends it together with all its descendants, as a container engine would.

The child leads a session of its own. A watcher in the same process group reads from a pipe whose other end
this process holds. When this process ends, for whatever reason, the watcher kills the group.
(``PR_SET_PDEATHSIG`` would reach only the first process, and would fire when the *thread* that forked it ends.)
"""

from __future__ import annotations

import codecs
import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from types import TracebackType

import psutil

# $1 is the limit of data memory in KiB or "-". The watcher is started from a subshell that ends. So it is
# not a child of the operator, which may wait for any child. It holds neither output pipe.
_LAUNCHER = """
exec 3<&0 </dev/null
(trap '' TERM INT HUP; { read -r _ <&3 || kill -KILL 0; } >/dev/null 2>&1 &)
exec 3<&-
[ "$1" = - ] || ulimit -d "$1" || exit 125
shift
exec "$@"
"""
_POLL_S = 0.1  # longest delay until a set event is noticed
_DRAIN_BYTES = 4 << 20  # read at most this after the end, in case a stray process keeps writing
_SHORT_S = 10.0  # process ids do not wrap around in less time
_ROUNDS = 100  # searches for processes that keep starting others while they are killed
LINE_CHARACTERS = 16_384


class Lines:
    """Splits the bytes of a stream into lines of text of at most ``LINE_CHARACTERS`` characters.

    A line feed, a carriage return (progress bars) or both together end a line. Bytes that are not UTF-8 are replaced.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def feed(self, data: bytes, *, final: bool = False) -> Iterator[str]:
        """Yield the lines that these bytes complete; with ``final``, also the last, unfinished line."""
        text = self._rest + self._decoder.decode(data, final).replace("\0", "\ufffd")
        held = "\r" if text.endswith("\r") and not final else ""  # its \n may come with the next bytes
        text = text[: len(text) - len(held)].replace("\r\n", "\n").replace("\r", "\n")
        *lines, rest = text.split("\n")
        for line in lines:
            yield from _pieces(line)
        while len(rest) > LINE_CHARACTERS:
            yield rest[:LINE_CHARACTERS]
            rest = rest[LINE_CHARACTERS:]
        self._rest = rest + held
        if final and rest:
            self._rest = ""
            yield rest


def _pieces(line: str) -> Iterator[str]:
    for start in range(0, max(len(line), 1), LINE_CHARACTERS):
        yield line[start : start + LINE_CHARACTERS]


class ChildProcess:
    """A running child process; leaving the ``with`` block ends it and its whole process group.

    Args:
        arguments: the executable, as a path or a name on ``PATH`` of ``environment``, and its arguments.
        cwd: the folder in which it starts.
        environment: its complete environment.
        data_limit_mb: RLIMIT_DATA of each of its processes, in MiB.
        keep_open: file descriptors of this process that the child inherits.
        grace_s: seconds between SIGTERM and SIGKILL.
        umask: its umask; -1 inherits the umask of this process.
        own_variables: names of variables in its environment whose values no other process has. They identify
            descendants that moved to a session of their own. A descendant that also drops its environment is missed.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        cwd: Path,
        environment: Mapping[str, str],
        data_limit_mb: int | None = None,
        keep_open: Sequence[int] = (),
        grace_s: float = 5.0,
        umask: int = -1,
        own_variables: Sequence[str] = (),
    ) -> None:
        limit = "-" if data_limit_mb is None else str(data_limit_mb * 1024)
        self._marks = {os.fsencode(f"{name}={environment[name]}") for name in own_variables}
        self._is_over = False
        self._began = time.monotonic()
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _LAUNCHER, "sh", limit, *arguments],
            cwd=cwd,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=tuple(keep_open),
            umask=umask,
            bufsize=0,
        )
        assert self._process.stdout is not None  # noqa: S101  (requested above)
        self._output = self._process.stdout.fileno()
        os.set_blocking(self._output, False)
        self._pidfd = _open_pidfd(self._process.pid)
        self._grace_s = grace_s
        self._lines = Lines()

    def __enter__(self) -> ChildProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if not self._ended():
                self.terminate(output=None)
        finally:  # also when a second interrupt cuts the grace period short
            self._end_rest()
            self._process.wait()
            if self._pidfd is not None:
                os.close(self._pidfd)
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    stream.close()

    def wait(
        self,
        *,
        output: Callable[[str], None] | None,
        deadline: float | None = None,
        cancelled: threading.Event | None = None,
    ) -> int | None:
        """Wait until it ends and return its exit code (128 + signal number if a signal ended it).

        When the process ends, its descendants are killed, as a container ends with its first process. Then the rest
        of their output is passed on, without waiting for a stray process that still holds the pipe.

        Args:
            output: called with each line as it arrives.
            deadline: a time of ``time.monotonic()``.
            cancelled: an event that stops the waiting.

        Returns:
            The exit code; None if the deadline passed or ``cancelled`` was set first.
        """
        readable = True
        while not self._ended():
            if cancelled is not None and cancelled.is_set():
                return None
            left = _POLL_S if deadline is None else min(_POLL_S, deadline - time.monotonic())
            if left <= 0:
                return None
            if not readable and self._pidfd is None:
                left = min(left, 0.01)
            poll = select.poll()
            for watched in (self._output if readable else None, self._pidfd):
                if watched is not None:
                    poll.register(watched, select.POLLIN)
            if any(found == self._output for found, _ in poll.poll(left * 1000)):
                readable = self._read(output)
        self._end_rest()
        drained = 0
        while drained < _DRAIN_BYTES and readable:
            readable = self._read(output)
            drained += 65_536
        for line in self._lines.feed(b"", final=True):
            if output is not None:
                output(line)
        code = self._process.wait()
        return code if code >= 0 else 128 - code

    def terminate(self, *, output: Callable[[str], None] | None) -> None:
        """Send SIGTERM to its group, wait ``grace_s``, then kill all, also the descendants that left the group."""
        strays = _descendants(self._process.pid)
        self._signal(signal.SIGTERM)
        try:
            self.wait(output=output, deadline=time.monotonic() + self._grace_s)
        finally:
            self._end_rest()
            for stray in strays:
                with contextlib.suppress(psutil.Error):
                    stray.kill()

    def _ended(self) -> bool:
        if self._process.returncode is not None:
            return True
        # WNOWAIT keeps the zombie, so that the kernel cannot reuse the id of its process group meanwhile.
        state = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return state is not None

    def _end_rest(self) -> None:
        """Kill all that is left and wait until it is gone, because the caller looks at its files next."""
        if self._is_over:
            return
        self._signal(signal.SIGKILL)
        is_short = time.monotonic() - self._began < _SHORT_S
        for _ in range(_ROUNDS):
            marked = _marked(self._marks, above=self._process.pid if is_short else 0) if self._marks else []
            if not marked:
                break
            for pid in marked:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.005)
        self._is_over = self._ended()

    def _signal(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    def _read(self, output: Callable[[str], None] | None) -> bool:
        """Read once; return whether there may be more to read, now or later."""
        try:
            data = os.read(self._output, 65_536)
        except BlockingIOError:
            return not self._ended()
        for line in self._lines.feed(data):
            if output is not None:
                output(line)
        return bool(data)


def _open_pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):  # not Linux, or an older kernel: `wait` polls instead
        return None


def _marked(variables: Set[bytes], *, above: int) -> list[int]:
    """Return the ids of the processes with one of the variables in their environment; none without ``/proc``.

    Args:
        variables: as ``NAME=value``.
        above: only processes with higher ids are searched, unless process ids wrapped around; 0 searches all.
    """
    found = []
    with contextlib.suppress(FileNotFoundError):
        newest = int(Path("/proc/loadavg").read_text().split()[-1])
        for pid in [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdecimal()]:
            if pid > above or newest < above:
                with contextlib.suppress(OSError):  # it has ended, or belongs to another user
                    if not variables.isdisjoint(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")):
                        found.append(pid)
    return found


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []
