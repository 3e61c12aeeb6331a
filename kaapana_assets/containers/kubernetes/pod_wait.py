"""What is heard of one launch while it is waited for, how long that may be, and how its end is told."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from kaapana_assets.containers.kubernetes.diagnosis import Cause, PodState, Stage
from kaapana_assets.containers.kubernetes.job import ClusterTarget
from kaapana_assets.containers.outcomes import KILLED, LINES_SHOWN, named, outcome_of, stopped, tail
from kaapana_assets.containers.protocol import Launch
from kaapana_assets.errors import (
    ConfigurationError,
    EngineUnavailable,
    KaapanaAssetsError,
    NotFound,
    OperatorError,
    OperatorFailed,
    OperatorOutOfMemory,
    OperatorTimeout,
)

_EXPLAIN_S = 5.0  # a container that is not made after so long is looked into


@dataclass
class PodWait:
    """What is heard of one launch, and how long it may still be waited for."""

    launch: Launch
    target: ClusterTarget
    output: Callable[[str], None]
    stop: threading.Event
    last: deque[str] = field(default_factory=lambda: deque(maxlen=LINES_SHOWN))
    _said: str = ""
    _stage: Stage | None = None
    _since: float = field(default_factory=time.monotonic)
    _explained: float = 0.0

    @property
    def named(self) -> str:
        """The operator, as messages call it."""
        return named(self.launch)

    def begin(self) -> None:
        """Patience counts from now."""
        self._since = time.monotonic()

    def heard(self, line: str) -> None:
        """A line of the operator's."""
        self.last.append(line)
        self.output(line)

    def say(self, words: str) -> None:
        """What is to be told of the waiting itself, once."""
        if words != self._said:
            self._said = words
            self.output(f"[{self.launch.operator}] {words}")

    def changed(self, state: PodState) -> None:
        """The pod is in a new state."""
        if state.stage is not self._stage:
            self._stage, self._since = state.stage, time.monotonic()
        if state.cause is Cause.NO_NODE:
            self.say(f"no node has room yet: {state.words}")
        elif state.stage in (Stage.LOST, Stage.ENDING) and state.words and not state.is_final:
            self.say(state.words)

    def is_to_be_explained(self) -> bool:
        """Whether the pod waits for long, and that was not looked into in the last seconds."""
        now = time.monotonic()
        if now - max(self._since, self._explained) < _EXPLAIN_S:
            return False
        self._explained = now
        return True

    def check_patience(self, state: PodState | None) -> None:
        """Raise when the pod has waited, or was out of sight, for too long."""
        if state is not None and (state.is_final or state.stage is Stage.RUNNING):
            return
        waited_s = time.monotonic() - self._since
        if waited_s <= self.target.patience_s:
            return
        if state is None or state.stage is Stage.WAITING:
            said = self._said or (state.words if state else "")
            raise ConfigurationError(
                f"{self.named} did not start within KAAPANA_KUBERNETES_PATIENCE_S={self.target.patience_s:g} s: {said}"
            )
        raise EngineUnavailable(f"{self.named}: {state.words}, and its end cannot be seen since {waited_s:.0f} s")

    def tail(self) -> str:
        """The last lines of the operator, for a message."""
        return tail(self.last)


_NO_LIMIT_NAMED = (
    "for the memory that it used: `memory_mb` of the operator, or KAAPANA_KUBERNETES_MEMORY_MB for all that name none, "
    "gives more"
)


def failure_of(state: PodState, wait: PodWait, look: str) -> KaapanaAssetsError:
    """The error of an operator that did not end well; ``look`` says where its pod can be looked at."""
    launch, end = wait.launch, f"{wait.tail()}{look}"
    if state.cause is Cause.IMAGE:
        secrets = f" (with the secrets {', '.join(launch.image_pull_secrets)})" if launch.image_pull_secrets else ""
        return NotFound(f"{wait.named}: the cluster cannot get the image{secrets}: {state.words}")
    if state.cause is Cause.SETTINGS:
        return ConfigurationError(f"{wait.named} cannot be started: {state.words}")
    if state.cause is Cause.OUT_OF_MEMORY:
        limit = f"at its limit of {launch.memory_mb} MiB" if launch.memory_mb else _NO_LIMIT_NAMED
        return OperatorOutOfMemory(f"{wait.named} was ended by the cluster {limit} (OOMKilled){end}")
    if state.cause is Cause.DEADLINE and launch.timeout_s is not None:
        return OperatorTimeout(f"{stopped(launch, None, wait.last)}{look}")
    if state.cause is Cause.DEADLINE:
        return OperatorTimeout(f"{wait.named} was ended by a deadline of the cluster{end}")
    if state.cause is Cause.EVICTED:
        return OperatorFailed(f"{wait.named} was evicted from node {state.node}: {state.words}{end}")
    if state.cause is Cause.DELETED:
        return OperatorFailed(f"{wait.named}: its pod was deleted before it ended ({state.words}){end}")
    if state.exit_code == KILLED:
        # Who used too much memory is known here, and it was not this one.
        return OperatorFailed(f"{wait.named} was killed (exit code {KILLED}), the cluster does not say why{end}")
    try:
        outcome_of(-1 if state.exit_code is None else state.exit_code, launch, wait.last)
    except OperatorError as exc:
        return type(exc)(f"{exc}{look}")
    raise AssertionError(f"{wait.named} ended well and is taken for failed: {state}")
