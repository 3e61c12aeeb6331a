"""What it means to launch one operator: the launch, its outcome, and the protocol of all runners.

Implementations live in modules of their own (``process``). What a container sees in its
environment is in ``contract``, the same for every runner.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One start of one container and everything it sees.

    Attributes:
        run_id: name of the run directory, ``<workflow>-<time>``.
        workflow: name of the workflow.
        cohort: name of the cohort; empty in a backfill over series.
        operator: name of the operator, unique in its workflow.
        image: reference as the author wrote it, such as ``dcm2nrrd`` or ``registry/x/dcm2nrrd:0.1.0``.
        directory: the run directory, absolute; ``/data`` in a container. It holds
            ``<batch_name>/<series>/<folder>``, pooled folders and ``conf/``.
        operator_in_dir: folder name that the operator reads, the same for each series.
        operator_out_dir: folder name that the operator writes. The operator makes it itself.
        batch_name: name of the folder of series.
        parameters: workflow parameters as strings; their names are upper-cased in the environment.
        env_vars: the operator's own variables; a workflow parameter of the same name wins.
        command: arguments that replace the image's ENTRYPOINT and CMD; None starts the image as built.
        timeout_s: seconds after which the operator is ended; None for no limit.
        memory_mb: memory limit in MiB; None for no limit.
        cpu: CPU cores (1.5 is one and a half); None for no limit. Runners without isolation ignore it.
        gpus: GPUs that it gets for itself. Runners without isolation ignore it.
        network: whether it may reach a network, where the runner can hold that.
        image_pull_secrets: names of the secrets to pull the image with, where the cluster pulls it.
    """

    run_id: str
    workflow: str
    operator: str
    image: str
    directory: Path
    operator_in_dir: str
    operator_out_dir: str
    cohort: str = ""
    batch_name: str = "batch"
    parameters: Mapping[str, str] = field(default_factory=dict)
    env_vars: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] | None = None
    timeout_s: float | None = None
    memory_mb: int | None = None
    cpu: float | None = None
    gpus: int = 0
    network: bool = False
    image_pull_secrets: tuple[str, ...] = ()


def launch_digest(launch: Launch) -> str:
    """``sha256:<hex>`` of all that a launch says: equal for equal launches, also of other processes."""
    values = {each.name: getattr(launch, each.name) for each in fields(launch)}
    text = json.dumps({**values, "directory": str(launch.directory.absolute())}, sort_keys=True, default=dict)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


class Outcome(Enum):
    """How an operator ended when it did not fail."""

    DONE = "done"
    """Exit code 0. Its outputs are not verified yet."""
    SKIPPED = "skipped"
    """Exit code 126: the operator found nothing to do."""


class Runner(Protocol):
    """Launches operators; one instance may be used from several threads at once."""

    @property
    def isolates(self) -> bool:
        """True where a read-only file or one of another owner cannot be written by an operator."""
        ...

    @property
    def parallel_launches(self) -> int:
        """How many launches of one operator, of some series each, go on at once in batch mode."""
        ...

    def check(self) -> str:
        """What would launch operators, in words with its version; see that it can.

        Raises:
            EngineUnavailable: it does not answer now.
            ConfigurationError: it refuses, or cannot work with these settings.
        """
        ...

    def adopts(self, launch: Launch) -> bool:
        """Whether an equal launch of an earlier process is there, and ``run`` would go on with it.

        It runs, or it ended and nobody has been told how. What it writes, or wrote, must then be left
        in place. False where nothing outlives the process that started it.

        Raises:
            EngineUnavailable: that cannot be found out now.
        """
        ...

    def end_left(self, run_id: str) -> None:
        """End what an earlier process of a run left and nobody went on with; the run is over.

        Args:
            run_id: as its launches have it.

        Raises:
            EngineUnavailable: that cannot be done now.
        """
        ...

    def image_digest(self, image: str) -> str:
        """Digest of what the image holds, the same as long as its content is the same.

        It goes into fingerprints and code versions, so it is called when Dagster loads definitions
        and is quick, unless an engine has to be waited for.

        Raises:
            NotFound: there is no such image.
            EngineUnavailable: that cannot be found out now, also after some patience.
        """
        ...

    def run(
        self, launch: Launch, *, output: Callable[[str], None], cancelled: threading.Event | None = None
    ) -> Outcome:
        """Run one operator to its end; nothing that it started is left when this returns or raises.

        Args:
            launch: what to start.
            output: called in the calling thread with each line of stdout and stderr, without its
                line end, as it comes.
            cancelled: ends the operator when set.

        Raises:
            OperatorFailed: exit code other than 0 and 126, or ``cancelled`` was set. The message
                has the exit code and the last lines of output.
            OperatorTimeout: it ran longer than ``timeout_s``.
            OperatorOutOfMemory: it was ended for its memory use, as far as the runner can tell.
            NotFound: there is no such image.
            ConfigurationError: the image or its environment cannot be prepared, or no place that the
                runner has can hold what the launch asks for.
            EngineUnavailable: the engine does not answer, also after some patience. What was started
                may go on; the next ``run`` of an equal launch goes on with it.
        """
        ...
