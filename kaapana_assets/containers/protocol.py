"""The launch of one operator, its outcome, and the protocol that every runner implements.

The runners live in packages of their own: ``process``, ``docker``, ``kubernetes``. ``contract`` makes the
environment variables of a container, the same for every runner.
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
    """One start of one operator, with everything that it sees.

    Attributes:
        run_id: name of the run directory, ``<workflow>-<time>``.
        workflow: name of the workflow.
        cohort: name of the cohort; empty in a backfill over series.
        operator: name of the operator, unique in its workflow.
        image: reference as the author wrote it, such as ``dcm2nrrd`` or ``registry/x/dcm2nrrd:0.1.0``.
        directory: the launch's view of the run directory, absolute; ``/data`` in a container. It holds
            ``<batch_name>/<series>/<folder>``, pooled folders and ``conf/``.
        operator_in_dir: name of the folder that the operator reads, the same for each series.
        operator_out_dir: name of the folder that the operator writes. The operator creates it itself.
        batch_name: name of the folder that holds one folder for each series.
        parameters: workflow parameters as strings; their names are upper-cased in the environment.
        env_vars: the operator's own variables; a workflow parameter of the same name wins.
        command: arguments that replace the image's ENTRYPOINT and CMD; None starts the image as built.
        timeout_s: seconds after which the runner ends the operator; None for no limit.
        memory_mb: memory limit in MiB; None for no limit.
        cpu: CPU cores (1.5 is one and a half); None for no limit. Runners without isolation ignore it.
        gpus: GPUs for its exclusive use. Runners without isolation ignore it.
        network: whether it may reach a network, as far as the runner can enforce that.
        image_pull_secrets: names of the secrets that a cluster pulls the image with.
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
    """Return ``sha256:<hex>`` of all fields of a launch: equal launches have equal digests in every process."""
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
        """Whether operators are kept from writing files that are read-only or belong to another user."""
        ...

    @property
    def parallel_launches(self) -> int:
        """How many launches of one operator run in parallel in batch mode, each for its own series."""
        ...

    def check(self) -> str:
        """Check that operators can be launched; return the name and version of what launches them.

        Raises:
            EngineUnavailable: the engine does not answer now.
            ConfigurationError: the engine refuses, or cannot work with these settings.
        """
        ...

    def adopts(self, launch: Launch) -> bool:
        """Whether ``run`` would adopt an equal launch that an earlier process left.

        That launch still runs, or it has ended and no run has recorded its outcome. Its view must then be
        left untouched. Always False for runners whose operators end with the process that started them.

        Raises:
            EngineUnavailable: the engine does not answer now.
        """
        ...

    def end_left(self, run_id: str) -> None:
        """End the launches that earlier processes of a finished run left and no process adopted.

        Args:
            run_id: the ``Launch.run_id`` of those launches.

        Raises:
            EngineUnavailable: the engine does not answer now.
        """
        ...

    def image_digest(self, image: str) -> str:
        """Return the digest of the image's content; it changes only when the content does.

        It is part of fingerprints and code versions. Dagster calls it while it loads definitions, so it
        must be quick, except while it waits for an engine that does not answer.

        Raises:
            NotFound: there is no such image.
            EngineUnavailable: the engine does not answer, even after retries.
        """
        ...

    def run(
        self, launch: Launch, *, output: Callable[[str], None], cancelled: threading.Event | None = None
    ) -> Outcome:
        """Run one operator to its end and return its outcome.

        Except after EngineUnavailable, nothing that the operator started is left running.

        Args:
            launch: the launch to start or adopt.
            output: called in the calling thread with each line of stdout and stderr as it arrives,
                without its line end.
            cancelled: ends the operator when set.

        Raises:
            OperatorFailed: the exit code is neither 0 nor 126, or ``cancelled`` was set. The message
                has the exit code and the last lines of output.
            OperatorTimeout: it ran longer than ``timeout_s``.
            OperatorOutOfMemory: it was killed for its memory use, as far as the runner can tell.
            NotFound: there is no such image.
            ConfigurationError: the image or its environment cannot be prepared, or the runner cannot
                provide the resources that the launch asks for.
            EngineUnavailable: the engine does not answer, even after retries. The operator may still run;
                the next ``run`` of an equal launch adopts it.
        """
        ...
