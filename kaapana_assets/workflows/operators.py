"""What one processing step is, and what a step written in Python is given.

Nothing here knows of Dagster, of workflows as a whole, or of how operators are run.
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
    """The name of a workflow, operator or output as Dagster has it: without hyphens."""
    return name.replace("-", "_")


@dataclass(frozen=True)
class OperatorContext:
    """What a Python operator is given: the same folders that a container sees, and the stores.

    Attributes:
        directory: the run directory (``/data`` of containers).
        series: the SeriesInstanceUIDs to work on.
        parameters: the workflow's parameters by name.
        settings: what the author configured the operator with.
        cohort: name of the cohort; empty in a backfill over series.
        objects: the object store.
        log: for what a person should read of the run.
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
        """The folder with what the input operator made of a series, or that of another input."""
        return self.directory / "batch" / series_instance_uid / (folder or self.operator_in_dir)

    def output_of(self, series_instance_uid: str) -> Path:
        """The folder for what this operator makes of a series; it exists."""
        return self._made("batch", series_instance_uid, self.operator_out_dir)

    @property
    def pooled_input(self) -> Path:
        """The folder with what a pooled input operator made of the cohort."""
        return self.pooled_input_of(self.operator_in_dir)

    def pooled_input_of(self, folder: str) -> Path:
        """The folder with what one of several pooled inputs made of the cohort."""
        return self.directory / folder

    @property
    def pooled_output(self) -> Path:
        """The folder for what this operator makes of the whole cohort; it exists."""
        return self._made(self.operator_out_dir)

    def _made(self, *names: str) -> Path:
        with opened(self.directory, *names, make=True) as folder:
            return folder.path


@dataclass(frozen=True, kw_only=True)
class Operator:
    """One processing step; authors use ContainerOperator or PythonOperator.

    Attributes:
        name: unique in its workflow, with the parallel_id.
        input_operator: the operator (or its name) whose output is read; None reads the DICOM files.
        inputs: what is read besides: operators, their names, or INITIAL_INPUT for the DICOM files. What is
            declared nowhere is not there when the operator runs.
        operator_in_dir: the folder read first, when it is not the input operator's; an input, too.
        operator_out_dir: the folder written, when it is not the name; the parallel_id is appended.
        level: ``series``: one output per series; ``cohort``: one pooled output.
        output_patterns: globs; each output must hold a file for each of them. Empty: any file.
        outputs: ``folder``: it writes its output folder, which is verified; None: it only acts (prints,
            notifies, deletes) and writes nothing, exit code 0 is success for all series it was given.
        reuse: whether an earlier run's output is used again; None: unless it only acts, which it does in every run.
        timeout_s: seconds that one launch may take; None has no limit.
        retries: how often a failed launch is repeated before its series are tried alone.
        parallel_id: tells several operators with one image apart.
        parameters: names of the workflow parameters it sees; None sees all. Only these count for
            what has to be computed again.
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
        """The name of the folder it writes."""
        return self._with_parallel_id(self.operator_out_dir or self.name)

    @property
    def only_acts(self) -> bool:
        """Whether it writes nothing."""
        return self.outputs is None

    @property
    def is_reused(self) -> bool:
        """Whether what it did in an earlier run stands for this one."""
        return not self.only_acts if self.reuse is None else self.reuse

    @property
    def input_name(self) -> str | None:
        """The full name of its input operator; None for the DICOM files."""
        name = None if self.input_operator is None else _name_of(self.input_operator)
        return None if name == INITIAL_INPUT else name

    @property
    def further_inputs(self) -> tuple[str, ...]:
        """The full names of its further inputs, INITIAL_INPUT among them where it is declared."""
        return tuple(_name_of(each) for each in self.inputs)

    @property
    def input_names(self) -> tuple[str, ...]:
        """The full names of all inputs that it names, without the folder that it reads where it names none."""
        return self.further_inputs if self.input_name is None else (self.input_name, *self.further_inputs)

    def seen(self, parameters: Mapping[str, Value]) -> dict[str, Value]:
        """The parameters that it sees: only these are in its fingerprint, so no others may reach its output."""
        return {name: parameters[name] for name in (parameters if self.parameters is None else self.parameters)}

    def _with_parallel_id(self, name: str) -> str:
        return f"{name}-{self.parallel_id}" if self.parallel_id else name


def folder_of(source: Operator | str) -> str:
    """The name of the folder that holds an input: what an operator writes, or INITIAL_INPUT.

    For ``env_vars``, so that no folder's name is written twice: ``{"DICOM_DIR": folder_of(INITIAL_INPUT)}``.

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
    """A step done by an image that keeps to the container contract.

    Attributes:
        image: name of a folder in images/, or a full reference.
        command: replaces the image's entry point.
        env_vars: added to the environment; contract variables win.
        image_pull_secrets: names of the secrets that give access to the image's registry.
        memory_mb: limit in MiB.
        cpu: limit in cores.
        gpus: GPUs for each launch.
        network: whether it may reach a network; without, runners that isolate give it none.
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
    """A step done by a Python function of the platform, with access to its stores.

    Attributes:
        function: called once with all series, like a container.
        settings: what configures the function; changing it is a new version of the operator.
        is_there: for one whose output tells of things outside the shelf: given the object store and an
            output's folder, whether they are there. Asked before the output is used again.
    """

    function: Callable[[OperatorContext], None]
    settings: Mapping[str, str] = field(default_factory=dict)
    is_there: Callable[[ObjectStore, Path], bool] | None = None
