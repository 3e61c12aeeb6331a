"""The typed parameters of a workflow, and the conversion of text to their values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kaapana_assets.errors import ParameterError, WorkflowError

Value = str | int | float | bool
_TYPES: tuple[type, ...] = (str, int, float, bool)
_TRUE, _FALSE = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}


@dataclass(frozen=True)
class Parameter:
    """A parameter that a person may set when sending a cohort to a workflow.

    Containers see it as an environment variable, with its name in upper case and its value as a string
    (``true`` and ``false`` for bool).

    Attributes:
        name: lower-case letters, digits and underscores.
        default: the default value; its type is the parameter's type: str, int, float or bool.
        description: shown to the person who sets the value.
        choices: if given, the only values allowed.

    Raises:
        WorkflowError: the name or the default is not valid.
    """

    name: str
    default: Value
    description: str = ""
    choices: tuple[Value, ...] = ()

    def __post_init__(self) -> None:
        if not self.name.isidentifier() or self.name != self.name.lower():
            raise WorkflowError(f"parameter {self.name!r}: a name has lower-case letters, digits and underscores")
        if type(self.default) not in _TYPES:
            raise WorkflowError(f"parameter {self.name!r}: the default must be a str, int, float or bool")
        if self.choices and self.default not in self.choices:
            raise WorkflowError(f"parameter {self.name!r}: the default {self.default!r} is not one of its choices")

    def parse(self, given: object) -> Value:
        """Convert a value or its text to the parameter's type.

        Raises:
            ParameterError: the value is not of the parameter's type, or not one of its choices.
        """
        try:
            value = _converted(given, type(self.default))
        except ValueError as exc:
            kind = type(self.default).__name__
            raise ParameterError(f"parameter {self.name!r} takes a value of type {kind}, not {given!r}") from exc
        if self.choices and value not in self.choices:
            allowed = ", ".join(str(choice) for choice in self.choices)
            raise ParameterError(f"parameter {self.name!r} takes one of {allowed}, not {given!r}")
        return value


def _converted(given: object, kind: type) -> Value:
    if kind is bool and isinstance(given, str):
        if given.lower() in _TRUE | _FALSE:
            return given.lower() in _TRUE
        raise ValueError(given)
    if kind is bool or isinstance(given, bool):
        if isinstance(given, bool) and kind is bool:
            return given
        raise ValueError(given)
    if kind is str and isinstance(given, str):
        return given
    if kind is int and isinstance(given, (int, str)):
        return int(given)
    if kind is float and isinstance(given, (int, float, str)):
        return float(given)
    raise ValueError(given)


def complete(parameters: tuple[Parameter, ...], given: Mapping[str, object]) -> dict[str, Value]:
    """Return the values of all parameters: the given ones, and the defaults of the others.

    Raises:
        ParameterError: a name is unknown, or a value has the wrong type or is not one of the choices.
    """
    known = {parameter.name: parameter for parameter in parameters}
    unknown = sorted(set(given) - set(known))
    if unknown:
        have = ", ".join(sorted(known)) or "none"
        raise ParameterError(f"no parameter named {', '.join(unknown)}; this workflow has: {have}")
    return {name: known[name].parse(given[name]) if name in given else known[name].default for name in known}


def as_text(value: Value) -> str:
    """Return the value as the text that containers see."""
    return str(value).lower() if isinstance(value, bool) else str(value)
