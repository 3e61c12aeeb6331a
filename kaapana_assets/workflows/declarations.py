"""Finds mistakes in the inputs that an operator declares.

``model`` orders operators by their inputs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from kaapana_assets.workflows.operators import INITIAL_INPUT, ContainerOperator, Operator
from kaapana_assets.workflows.parameters import Parameter


def problem_with_input_names(operator: Operator, names: Collection[str]) -> str | None:
    """Return what is wrong with an operator's inputs; None if each is one of ``names`` or the DICOM files."""
    have = f"which has {', '.join(names)}"
    if operator.input_name is not None and operator.input_name not in names:
        return f"its input operator {operator.input_name!r} is not in the workflow, {have}"
    if isinstance(operator.inputs, (str, Operator)):
        return "inputs is a tuple, also of one: inputs=(extract,)"
    for each in operator.inputs:
        if not isinstance(each, (str, Operator)):
            return f"inputs holds operators, their names or INITIAL_INPUT, not {each!r}"
    unknown = next((name for name in operator.further_inputs if name not in (*names, INITIAL_INPUT)), None)
    return None if unknown is None else f"its input {unknown!r} is not in the workflow, {have}"


def problem_with_undeclared_folders(
    operator: Operator,
    *,
    declared: Collection[str],
    writers: Mapping[str, str],
    parameters: tuple[Parameter, ...],
) -> str | None:
    """Return which variable or parameter names a folder that the operator does not declare; None if none does.

    Args:
        operator: an operator of a workflow.
        declared: the folders that the operator may read.
        writers: full name of the operator that writes a folder, by folder.
        parameters: parameters of the workflow.
    """
    hidden = {INITIAL_INPUT: INITIAL_INPUT, **writers}
    hidden = {folder: name for folder, name in hidden.items() if folder not in (*declared, operator.out_dir)}
    for what, value, otherwise in _given(operator, parameters):
        if value in hidden:
            source = "INITIAL_INPUT" if value == INITIAL_INPUT else repr(hidden[value])
            return (
                f"{what} is the folder {value!r}, which is none of its inputs and so not there when it runs: "
                f"declare it, inputs=({source},); if no folder is meant, {otherwise}"
            )
    return None


def _given(operator: Operator, parameters: tuple[Parameter, ...]) -> Iterator[tuple[str, str, str]]:
    if isinstance(operator, ContainerOperator):
        for name, value in operator.env_vars.items():
            yield f"its environment variable {name}", value, "use another value or rename that operator"
    for parameter in parameters:
        if operator.parameters is None or parameter.name in operator.parameters:
            for choice in (parameter.default, *parameter.choices):
                yield (
                    f"a value of the parameter {parameter.name!r} that it sees",
                    str(choice),
                    "leave the parameter out of what it sees, parameters=(...)",
                )
