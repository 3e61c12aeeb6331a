"""The model that authors write: workflows of operators. Defining a workflow reports its mistakes.

Nothing here knows about Dagster, or about how operators are run.

    extract = ContainerOperator(name="extract-study-id", image="extract-study-id")
    pool = ContainerOperator(name="pool-jsons", image="pool-jsons", input_operator=extract, level="cohort")
    workflow = Workflow(name="pool-study-ids", operators=(extract, pool))
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from kaapana_assets.dicom.identifiers import checked_name
from kaapana_assets.errors import InvalidIdentifier, WorkflowError
from kaapana_assets.shown import shown
from kaapana_assets.workflows.creation import note_created
from kaapana_assets.workflows.declarations import problem_with_input_names, problem_with_undeclared_folders
from kaapana_assets.workflows.operators import (
    INITIAL_INPUT,
    ContainerOperator,
    Operator,
    PythonOperator,
    name_in_dagster,
)
from kaapana_assets.workflows.parameters import Parameter

REPORT = "report"
"""The output that every workflow has for each cohort: the outcome of each series."""

_RESERVED_WORKFLOWS = {"clean", "cohort", "ingest", "ingest_series", "record_cohort", "workflow_errors"}
_RESERVED = {INITIAL_INPUT, REPORT, "batch", "conf", "launches", "prepare"}


@dataclass(frozen=True, kw_only=True)
class Workflow:
    """A named list of operators with typed parameters.

    Attributes:
        on_failure: ``continue``: a series that fails does not stop the others; ``stop``: the run
            ends at the operator at which a series failed.

    Raises:
        WorkflowError: the definition is not valid; names the file and the operator.
    """

    name: str
    operators: tuple[Operator, ...]
    parameters: tuple[Parameter, ...] = ()
    description: str = ""
    on_failure: Literal["continue", "stop"] = "continue"
    source: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not self.source:
            object.__setattr__(self, "source", _defining_file())
        object.__setattr__(self, "operators", tuple(self.operators))
        object.__setattr__(self, "parameters", tuple(self.parameters))
        problem = _first_problem(self)
        if problem:
            raise WorkflowError(f"{self.source}: workflow {self.name!r}: {problem}")
        object.__setattr__(self, "operators", _in_order(self))
        note_created(self, model=__file__)

    @property
    def job_name(self) -> str:
        """The workflow's name in Dagster, where names have no hyphens."""
        return name_in_dagster(self.name)

    def operator(self, name: str) -> Operator:
        """Return the operator with that full name."""
        return next(operator for operator in self.operators if operator.full_name == name)

    def in_dir(self, operator: Operator) -> str:
        """Return the name of the folder that an operator reads first."""
        if operator.operator_in_dir is not None:
            return operator.operator_in_dir
        return INITIAL_INPUT if operator.input_name is None else self.operator(operator.input_name).out_dir

    def source_of(self, operator: Operator) -> Operator | None:
        """Return the operator that writes the folder that ``operator`` reads first; None for the DICOM files."""
        return self.input_folders(operator)[self.in_dir(operator)]

    def input_folders(self, operator: Operator) -> dict[str, Operator | None]:
        """Return the folders that an operator may read, with the operator that writes each; the first input first.

        The writer of the DICOM files is None. An input operator that writes nothing is a predecessor, but has
        no folder.
        """
        writers = {other.out_dir: other for other in self.operators}
        sources = [None if name == INITIAL_INPUT else self.operator(name) for name in operator.input_names]
        further = [INITIAL_INPUT if source is None else source.out_dir for source in sources]
        found = {folder: writers.get(folder) for folder in (self.in_dir(operator), *further)}
        first = self.in_dir(operator)
        return {folder: writer for folder, writer in found.items() if folder == first or not _writes_nothing(writer)}

    def predecessors(self, operator: Operator) -> tuple[Operator, ...]:
        """Return the operators that must be done with a series before ``operator`` may begin it."""
        folders = self.input_folders(operator).values()
        names = {source.full_name for source in folders if source is not None} | set(operator.input_names)
        return tuple(other for other in self.operators if other.full_name in names)

    def leaves(self) -> tuple[Operator, ...]:
        """Return the series operators without a successor among the series operators."""
        series = [operator for operator in self.operators if operator.level == "series"]
        before = {other.full_name for operator in series for other in self.predecessors(operator)}
        return tuple(operator for operator in series if operator.full_name not in before)


def _writes_nothing(operator: Operator | None) -> bool:
    return operator is not None and operator.only_acts


def _defining_file() -> str:
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_filename in {__file__, "<string>"}:
        frame = frame.f_back
    return shown(Path(frame.f_code.co_filename).name)


def _first_problem(workflow: Workflow) -> str | None:
    try:
        checked_name(workflow.name, kind="workflow name")
    except InvalidIdentifier as exc:
        return str(exc)
    if workflow.job_name in _RESERVED_WORKFLOWS:
        return "the platform uses this name itself"
    if "." in workflow.name:
        return "a workflow's name has no dots, because Dagster's names have none"
    if not workflow.operators:
        return "it has no operators"
    for operator in workflow.operators:
        if not isinstance(operator, (ContainerOperator, PythonOperator)):
            return f"{operator!r} is neither a ContainerOperator nor a PythonOperator"
    twice = _first_repeated([parameter.name for parameter in workflow.parameters])
    if twice:
        return f"two parameters are named {twice!r}"
    names = [operator.full_name for operator in workflow.operators]
    for operator in workflow.operators:
        problem = _problem_of(operator, workflow, names)
        if problem:
            return f"operator {operator.full_name!r}: {problem}"
    return _cycle(workflow)


def _problem_of(operator: Operator, workflow: Workflow, names: list[str]) -> str | None:
    try:
        checked_name(operator.full_name, kind="operator name")
        checked_name(operator.out_dir, kind="output folder")
        if operator.operator_in_dir is not None:
            checked_name(operator.operator_in_dir, kind="input folder")
    except InvalidIdentifier as exc:
        return str(exc)
    if "." in operator.full_name:
        return "an operator's name has no dots, because Dagster's names have none"
    same_key = [name for name in names if name_in_dagster(name) == name_in_dagster(operator.full_name)]
    same_folder = [o.full_name for o in workflow.operators if o.out_dir == operator.out_dir]
    if len(same_key) > 1:
        return "another operator has this name; give them a parallel_id each"
    if operator.full_name in _RESERVED or operator.out_dir in _RESERVED:
        return f"{operator.out_dir!r} is a name that the platform uses itself"
    if len(same_folder) > 1:
        others = ", ".join(name for name in same_folder if name != operator.full_name)
        return f"writes the output folder {operator.out_dir!r}, and so does {others}"
    wrong = problem_with_input_names(operator, names)
    if wrong:
        return wrong
    folders = {INITIAL_INPUT, *(other.out_dir for other in workflow.operators)}
    if operator.operator_in_dir is not None and operator.operator_in_dir not in folders:
        return f"it reads the folder {operator.operator_in_dir!r}, which no operator of the workflow writes"
    return (
        _problem_with_level(operator, workflow)
        or _problem_with_limits(operator, workflow)
        or _problem_with_patterns(operator)
        or _problem_with_outputs(operator, workflow)
        or _problem_with_container(operator)
        or problem_with_undeclared_folders(
            operator,
            declared=workflow.input_folders(operator),
            writers={other.out_dir: other.full_name for other in workflow.operators if not other.only_acts},
            parameters=workflow.parameters,
        )
    )


def _problem_with_level(operator: Operator, workflow: Workflow) -> str | None:
    if operator.level not in ("series", "cohort"):
        return f"level is 'series' or 'cohort', not {operator.level!r}"
    pooled = [other.full_name for other in workflow.predecessors(operator) if other.level == "cohort"]
    if operator.level == "series" and pooled:
        return f"works on single series, but its input {pooled[0]!r} is one pooled output"
    return None


def _problem_with_limits(operator: Operator, workflow: Workflow) -> str | None:
    known = {parameter.name for parameter in workflow.parameters}
    unknown = sorted(set(operator.parameters or ()) - known)
    if unknown:
        return f"it wants the parameters {', '.join(unknown)}, which the workflow does not have"
    if operator.timeout_s is not None and operator.timeout_s <= 0:
        return f"timeout_s must be above zero, not {operator.timeout_s}"
    if operator.retries < 0:
        return f"retries must not be negative, not {operator.retries}"
    return None


def _problem_with_patterns(operator: Operator) -> str | None:
    if isinstance(operator.output_patterns, str):
        return f"output_patterns is a tuple of globs, not the text {operator.output_patterns!r}"
    for pattern in operator.output_patterns:
        if not pattern or pattern.startswith("/") or ".." in pattern.split("/"):
            return f"the output pattern {pattern!r} must be a glob for files below the output folder"
    return None


def _problem_with_outputs(operator: Operator, workflow: Workflow) -> str | None:
    if operator.outputs not in ("folder", None):
        return f"outputs is 'folder' or None, not {operator.outputs!r}"
    if operator.only_acts and operator.output_patterns:
        return "it has output_patterns and outputs=None: what writes nothing has no patterns"
    read = workflow.source_of(operator)
    if read is not None and read.only_acts:
        return (
            f"it reads the folder of {read.full_name!r}, which writes nothing (outputs=None): an operator_in_dir names "
            f"one that something writes, such as {INITIAL_INPUT!r}; its input_operator is waited for then, too"
        )
    return None


def _problem_with_container(operator: Operator) -> str | None:
    if not isinstance(operator, ContainerOperator):
        return None
    if operator.memory_mb is not None and operator.memory_mb <= 0:
        return f"memory_mb must be above zero, not {operator.memory_mb}"
    if operator.cpu is not None and operator.cpu <= 0:
        return f"cpu must be above zero, not {operator.cpu}"
    if operator.gpus < 0:
        return f"gpus must not be negative, not {operator.gpus}"
    if isinstance(operator.command, str):
        return f"command is a tuple of arguments, not the text {operator.command!r}"
    wrong = [name for name, value in operator.env_vars.items() if not isinstance(value, str)]
    if wrong:
        return f"the values of env_vars are text, which that of {wrong[0]} is not"
    return None


def _cycle(workflow: Workflow) -> str | None:
    left = {o.full_name: {before.full_name for before in workflow.predecessors(o)} for o in workflow.operators}
    while left:
        free = [name for name, before in left.items() if not before & left.keys()]
        if not free:
            return f"operator {next(iter(left))!r}: its inputs run in a circle: {', '.join(left)}"
        for name in free:
            del left[name]
    return None


def _in_order(workflow: Workflow) -> tuple[Operator, ...]:
    ordered: list[Operator] = []
    while len(ordered) < len(workflow.operators):
        ordered.extend(
            operator
            for operator in workflow.operators
            if operator not in ordered and all(before in ordered for before in workflow.predecessors(operator))
        )
    return tuple(ordered)


def _first_repeated(names: list[str]) -> str | None:
    return next((name for name in names if names.count(name) > 1), None)
