"""The operators that authors write, in containers or in Python, and the context of a Python operator.

Nothing here knows about Dagster, about whole workflows, or about how operators are run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from kaapana_assets.errors import WorkflowError
from kaapana_assets.stores.objects.protocol import ObjectStore
from kaapana_assets.untrusted import opened
from kaapana_assets.workflows.parameters import Value

Level = Literal["series", "cohort"]

INITIAL_INPUT = "initial-input"
"""The folder with a series' DICOM files, the input of operators without an input operator."""


def name_in_dagster(name: str) -> str:
    """Return the name of a workflow, operator or output in Dagster: without hyphens."""
    return name.replace("-", "_")


@dataclass(frozen=True)
class OperatorContext:
    """The argument of a Python operator's function: the folders that a container sees, and the object store.

    Attributes:
        directory: the directory of the launch (``/data`` in containers).
        series: the SeriesInstanceUIDs to work on.
        operator_in_dir: name of the folder that the operator reads first.
        operator_out_dir: name of the folder that the operator writes.
        parameters: the workflow parameters that the operator sees, by name.
        settings: the settings that the author gave the operator.
        cohort: name of the cohort; empty in a backfill over series.
        objects: the object store.
        log: logger for messages to the people who read the run's log.
    """

    directory: Path
    series: tuple[str, ...]
    operator_in_dir: str
    operator_out_dir: str
    parameters: Mapping[str, Value]
    settings: Mapping[str, str]
    cohort: str
    objects: ObjectStore
    log: logging.Logger

    def input_of(self, series_instance_uid: str, folder: str | None = None) -> Path:
        """Return the folder with a series' input: that of the input operator, or of another declared input."""
        return self.directory / "batch" / series_instance_uid / (folder or self.operator_in_dir)

    def output_of(self, series_instance_uid: str) -> Path:
        """Return the folder for this operator's output of a series; it exists."""
        return self._made("batch", series_instance_uid, self.operator_out_dir)

    @property
    def pooled_input(self) -> Path:
        """The folder with the output of a pooled input operator."""
        return self.pooled_input_of(self.operator_in_dir)

    def pooled_input_of(self, folder: str) -> Path:
        """Return the folder with one of several pooled inputs."""
        return self.directory / folder

    @property
    def pooled_output(self) -> Path:
        """The folder for this operator's pooled output of the cohort; it exists."""
        return self._made(self.operator_out_dir)

    def _made(self, *names: str) -> Path:
        with opened(self.directory, *names, make=True) as folder:
            return folder.path


@dataclass(frozen=True, kw_only=True)
class Operator:
    """One processing step; authors use ContainerOperator or PythonOperator.

    Attributes:
        name: name of the operator; together with the parallel_id, unique in its workflow.
        input_operator: the operator (or its name) whose output is read first; None reads the DICOM files.
        inputs: further inputs: operators, their names, or INITIAL_INPUT for the DICOM files. Folders that are
            not declared do not exist when the operator runs.
        operator_in_dir: the folder that is read first, if it is not the input operator's; also an input.
        operator_out_dir: the folder that is written, if it is not the name; the parallel_id is appended.
        level: ``series``: one output per series; ``cohort``: one pooled output.
        output_patterns: globs; each output must have a matching file for each of them. Empty: any file.
        outputs: ``folder``: it writes its output folder, which is verified; None: it only acts (prints,
            notifies, deletes) and writes nothing, so exit code 0 is success for all series of the launch.
        reuse: whether outputs of earlier runs are reused; None: yes, unless the operator only acts.
        timeout_s: seconds that one launch may take; None for no limit.
        retries: how often a failed launch is retried before its series are tried one by one.
        parallel_id: distinguishes operators with the same name.
        parameters: names of the workflow parameters that it sees; None for all. Only these are part of its
            fingerprints.
    """

    name: str
    input_operator: Operator | str | None = None
    inputs: tuple[Operator | str, ...] = ()
    operator_in_dir: str | None = None
    operator_out_dir: str | None = None
    level: Level = "series"
    output_patterns: tuple[str, ...] = ()
    outputs: Literal["folder"] | None = "folder"
    reuse: bool | None = None
    timeout_s: float | None = None
    retries: int = 0
    parallel_id: str | None = None
    parameters: tuple[str, ...] | None = None

    @property
    def full_name(self) -> str:
        """The name with the parallel_id."""
        return self._with_parallel_id(self.name)

    @property
    def out_dir(self) -> str:
        """The name of the folder that it writes."""
        return self._with_parallel_id(self.operator_out_dir or self.name)

    @property
    def only_acts(self) -> bool:
        """Whether it writes nothing."""
        return self.outputs is None

    @property
    def is_reused(self) -> bool:
        """Whether its outputs of earlier runs are reused."""
        return not self.only_acts if self.reuse is None else self.reuse

    @property
    def input_name(self) -> str | None:
        """The full name of its input operator; None for the DICOM files."""
        name = None if self.input_operator is None else _name_of(self.input_operator)
        return None if name == INITIAL_INPUT else name

    @property
    def further_inputs(self) -> tuple[str, ...]:
        """The full names of its further inputs, with INITIAL_INPUT if it is declared."""
        return tuple(_name_of(each) for each in self.inputs)

    @property
    def input_names(self) -> tuple[str, ...]:
        """The full names of all declared inputs; without INITIAL_INPUT if that is only the default."""
        return self.further_inputs if self.input_name is None else (self.input_name, *self.further_inputs)

    def seen(self, parameters: Mapping[str, Value]) -> dict[str, Value]:
        """Return the parameters that it sees; only these are in its fingerprint, so it must get no others."""
        return {name: parameters[name] for name in (parameters if self.parameters is None else self.parameters)}

    def _with_parallel_id(self, name: str) -> str:
        return f"{name}-{self.parallel_id}" if self.parallel_id else name


def folder_of(source: Operator | str) -> str:
    """Return the name of the folder that holds an input: an operator's output folder, or INITIAL_INPUT.

    For use in ``env_vars``, so that no folder name is written twice: ``{"DICOM_DIR": folder_of(INITIAL_INPUT)}``.

    Raises:
        WorkflowError: it is neither an operator nor INITIAL_INPUT.
    """
    if isinstance(source, Operator):
        return source.out_dir
    if source != INITIAL_INPUT:
        raise WorkflowError(f"folder_of takes an operator or INITIAL_INPUT, not {source!r}")
    return INITIAL_INPUT


def _name_of(source: Operator | str) -> str:
    return source.full_name if isinstance(source, Operator) else source


@dataclass(frozen=True, kw_only=True)
class ContainerOperator(Operator):
    """An operator that runs an image which follows the container contract.

    Attributes:
        image: name of a folder in images/, or a full reference.
        command: arguments that replace the image's ENTRYPOINT and CMD.
        env_vars: further environment variables; parameters and contract variables of the same name win.
        image_pull_secrets: names of the secrets that give access to the image's registry.
        memory_mb: memory limit in MiB.
        cpu: limit in CPU cores.
        gpus: number of GPUs for each launch.
        network: whether it may reach a network; if not, runners that isolate operators give it none.
    """

    image: str
    command: tuple[str, ...] | None = None
    env_vars: Mapping[str, str] = field(default_factory=dict)
    image_pull_secrets: tuple[str, ...] = ()
    memory_mb: int | None = None
    cpu: float | None = None
    gpus: int = 0
    network: bool = False


@dataclass(frozen=True, kw_only=True)
class PythonOperator(Operator):
    """An operator that calls a Python function in the platform's process, with access to the object store.

    Attributes:
        function: called like a container is launched: once for all series of a launch.
        settings: configuration of the function; a change makes a new version of the operator.
        is_there: for outputs that record data outside the shelf, such as objects: whether that data still
            exists, given the object store and an output's folder. Called before the output is reused.
    """

    function: Callable[[OperatorContext], None]
    settings: Mapping[str, str] = field(default_factory=dict)
    is_there: Callable[[ObjectStore, Path], bool] | None = None
