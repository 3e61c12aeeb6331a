"""The wait for one launch: forwards its output, enforces the patience, and turns a failed end into an error."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from kaapana_assets.containers.kubernetes.diagnosis import Cause, PodStage, PodState
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

_EXPLAIN_S = 5.0  # look for the reason if the pod has waited this long


@dataclass
class PodWait:
    """The wait for one launch: its last lines of output, and how long its pod may stay in its present stage."""

    launch: Launch
    target: ClusterTarget
    output: Callable[[str], None]
    stop: threading.Event
    last: deque[str] = field(default_factory=lambda: deque(maxlen=LINES_SHOWN))
    _said: str = ""
    _stage: PodStage | None = None
    _since: float = field(default_factory=time.monotonic)
    _explained: float = 0.0

    @property
    def named(self) -> str:
        """The operator's name for messages, with its run and image."""
        return named(self.launch)

    def begin(self) -> None:
        """Start to count the patience from now."""
        self._since = time.monotonic()

    def heard(self, line: str) -> None:
        """Forward a line of the operator's output, and keep it among the last lines."""
        self.last.append(line)
        self.output(line)

    def say(self, words: str) -> None:
        """Print a message about the wait itself, unless it repeats the previous one."""
        if words != self._said:
            self._said = words
            self.output(f"[{self.launch.operator}] {words}")

    def changed(self, state: PodState) -> None:
        """Note a new state of the pod, and print why it waits, is lost or is ending."""
        if state.stage is not self._stage:
            self._stage, self._since = state.stage, time.monotonic()
        if state.cause is Cause.NO_NODE:
            self.say(f"no node has room yet: {state.words}")
        elif state.stage in (PodStage.LOST, PodStage.ENDING) and state.words and not state.is_final:
            self.say(state.words)

    def is_to_be_explained(self) -> bool:
        """Whether the pod has waited for some seconds since its stage changed or the wait was last explained."""
        now = time.monotonic()
        if now - max(self._since, self._explained) < _EXPLAIN_S:
            return False
        self._explained = now
        return True

    def check_patience(self, state: PodState | None) -> None:
        """Check that the pod has not waited, or been lost, for longer than ``patience_s``.

        Raises:
            ConfigurationError: the pod did not start in time.
            EngineUnavailable: the pod's end cannot be observed.
        """
        if state is not None and (state.is_final or state.stage is PodStage.RUNNING):
            return
        waited_s = time.monotonic() - self._since
        if waited_s <= self.target.patience_s:
            return
        if state is None or state.stage is PodStage.WAITING:
            said = self._said or (state.words if state else "")
            raise ConfigurationError(
                f"{self.named} did not start within KAAPANA_KUBERNETES_PATIENCE_S={self.target.patience_s:g} s: {said}"
            )
        raise EngineUnavailable(f"{self.named}: {state.words}, and its end cannot be seen since {waited_s:.0f} s")

    def tail(self) -> str:
        """Return the last lines of the operator's output, formatted for the end of a message."""
        return tail(self.last)


_NO_LIMIT_NAMED = (
    "for the memory that it used: `memory_mb` of the operator, or KAAPANA_KUBERNETES_MEMORY_MB for all that name none, "
    "gives more"
)


def failure_of(state: PodState, wait: PodWait, look: str) -> KaapanaAssetsError:
    """Return the error of an operator that failed; ``look`` tells how its pod can be inspected."""
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
        # Kubernetes reports OOMKilled itself, so memory was not the reason.
        return OperatorFailed(f"{wait.named} was killed (exit code {KILLED}), the cluster does not say why{end}")
    try:
        outcome_of(-1 if state.exit_code is None else state.exit_code, launch, wait.last)
    except OperatorError as exc:
        return type(exc)(f"{exc}{look}")
    raise AssertionError(f"{wait.named} ended well and is taken for failed: {state}")
