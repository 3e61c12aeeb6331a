"""The state of one workflow file: the workflows that it defines, and the problems that it has.

The command line, the health page and Dagster's assets ``workflow_errors`` all show this state. ``loader``
adds the problems that a file alone does not show, such as a missing image or a name that another file uses.
"""

from __future__ import annotations

import ast
import importlib
import keyword
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from kaapana_assets.errors import WorkflowError
from kaapana_assets.shown import shown, shown_lines
from kaapana_assets.workflows import plan_imports
from kaapana_assets.workflows.creation import Created, created_workflows
from kaapana_assets.workflows.model import REPORT, Workflow
from kaapana_assets.workflows.operators import name_in_dagster

# Dagster's reserved words, which no job and no output may use as a name.
_DAGSTERS_WORDS = {
    "context", "conf", "config", "meta", "arg_dict", "dict", "input_arg_dict", "output_arg_dict", "int", "str",
    "float", "bool", "input", "output", "type",
}  # fmt: skip
_NOT_THE_AUTHORS = {__file__, plan_imports.__file__, importlib.__file__}


@dataclass(frozen=True)
class FileState:
    """The workflows and problems of one workflow file.

    Attributes:
        name: path of the file, relative to the folder of workflow files.
        path: absolute path of the file.
        workflows: the workflows that can be run.
        problems: problems of the file, each as a text for its author; empty if there are none.
        names: names of all workflows that the file defines, even if they cannot be run.
    """

    name: str
    path: Path
    workflows: tuple[Workflow, ...] = ()
    problems: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # File names, and the messages of errors in authors' code, may contain control characters.
        object.__setattr__(self, "name", shown(self.name))
        object.__setattr__(self, "problems", tuple(map(shown_lines, self.problems)))


def load_file(path: Path, source: bytes, *, name: str) -> FileState:
    """Execute a file's source as it was read, and return the state of the file by itself."""
    try:
        with created_workflows() as created:
            module = plan_imports.execute(path, source)
    except (SystemExit, Exception) as exc:  # noqa: BLE001 - the file is its author's code, it may raise anything
        return FileState(name, path, problems=(_explained(exc, path),))
    found = _top_level(module)
    problems = [*_hidden(created, found, path), *_not_called(created, path, source)]
    if not found and not problems:
        problems.append(
            "it defines no workflow: give it a Workflow that a name at its top level stands for; what workflow files "
            "import belongs into workflows/plugins"
        )
    return FileState(name, path, tuple(found), tuple(problems), tuple(each.name for each in found))


def last_line(problem: str) -> str:
    """Return the last line of a problem, in which a traceback gives its reason."""
    return problem.strip().splitlines()[-1]


def makes_workflows(source: bytes) -> bool:
    """Whether a Python file has a line that creates a workflow."""
    try:
        return any(True for _ in _calls(ast.parse(source)))
    except (SyntaxError, ValueError):
        return False


def names_in_dagster(workflow: Workflow) -> set[str]:
    """Return the names of a workflow's job, graph, ops and assets, which no other workflow may use."""
    job = workflow.job_name
    operators = [name_in_dagster(operator.full_name) for operator in workflow.operators]
    own = {job, *(f"{job}_{name}" for name in ("cohort", "prepare", REPORT, *operators))}
    return own | {f"{job}__{name}" for name in operators}


def word_of_dagster(workflow: Workflow) -> str | None:
    """Return a name in a workflow that Dagster or Python reserves; None if there is none."""
    names = [workflow.name, *(operator.full_name for operator in workflow.operators)]
    return next((name for name in names if _is_word(name_in_dagster(name))), None)


def _is_word(name: str) -> bool:
    return name in _DAGSTERS_WORDS or keyword.iskeyword(name)


def _top_level(module: ModuleType) -> list[Workflow]:
    values = [value for value in vars(module).values() if isinstance(value, Workflow)]
    return list({id(value): value for value in values}.values())


def _hidden(created: Sequence[Created], found: Sequence[Workflow], path: Path) -> Iterator[str]:
    """Yield a problem for each workflow that the file creates but does not assign to a top-level name."""
    operators = [workflow.operators for workflow in found]
    for each in created:
        workflow = each.workflow
        if each.file != str(path) or not isinstance(workflow, Workflow) or workflow.operators in operators:
            continue
        yield (
            f"workflow {workflow.name!r}, made in line {each.line}, is not found: no name at the top level of the file "
            f"stands for it; write there: {workflow.job_name} = ..."
        )


def _not_called(created: Sequence[Created], path: Path, source: bytes) -> Iterator[str]:
    """Yield a problem for each line in a function that would create a workflow but was not executed."""
    lines = {each.line for each in created if each.file == str(path)}
    for function, call in _calls(ast.parse(source)):
        if function is not None and not lines & set(range(call.lineno, (call.end_lineno or call.lineno) + 1)):
            yield (
                f"the workflow in line {call.lineno} is not found: it is made inside the function {function}, which "
                "nothing at the top level of the file calls; make it at the top level, or write there: "
                f"workflow = {function}(...)"
            )


def _calls(tree: ast.AST, function: str | None = None) -> Iterator[tuple[str | None, ast.Call]]:
    """Yield each call of ``Workflow`` below a node, with the name of the function that contains it."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Call):
            called = node.func
            if (isinstance(called, ast.Name) and called.id == "Workflow") or (
                isinstance(called, ast.Attribute) and called.attr == "Workflow"
            ):
                yield function, node
        inner = node.name if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) else function
        yield from _calls(node, inner)


def _explained(exc: BaseException, path: Path) -> str:
    if isinstance(exc, WorkflowError):
        return str(exc)
    lines = traceback.format_exception(type(exc), exc, exc.__traceback__)
    mine = [line for line in lines if not any(f'"{file}"' in line for file in _NOT_THE_AUTHORS)]
    return f"{path.name} cannot be loaded:\n\n" + "".join(line for line in mine if "<frozen importlib" not in line)
