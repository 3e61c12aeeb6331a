"""The nodes of a query and their meaning, which every index implementation follows.

A field is a keyword of the document, with dots into nested documents. A field with several values,
or one in a sequence with several items, matches if one of its values does. Letter case matters in the
names of fields, but not in values. ``str`` of a node is text that parses to an equal node.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

from kaapana_assets.errors import QueryError

FIELD_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
RESERVED_WORDS = frozenset(("AND", "OR", "NOT", "TO"))
_BARE_WORD = re.compile(r"[\w^/+.%&;#@=,'-][\w^/+.%&;#@=,'<>!-]*")
_BARE_VALUE = re.compile(r"[\w^/+.%&;#@,'-][\w^/+.%&;#@=,'<>!:-]*")


@dataclass(frozen=True)
class All:
    """Matches every series."""

    def __str__(self) -> str:
        return "*"


@dataclass(frozen=True)
class Term:
    """A value of the field equals this value as a whole; numbers are compared as numbers ("2" equals 2.0)."""

    field: str
    value: str

    def __post_init__(self) -> None:
        _check_field(self.field)
        _check_filled(self.value, "value")

    def __str__(self) -> str:
        return f"{self.field}:{_value_text(self.value)}"


@dataclass(frozen=True)
class Prefix:
    """A text value of the field begins with this text."""

    field: str
    value: str

    def __post_init__(self) -> None:
        _check_field(self.field)
        _check_filled(self.value, "value")

    def __str__(self) -> str:
        return f"{self.field}:{_value_text(self.value)}*"


@dataclass(frozen=True)
class Range:
    """A value of the field lies between two bounds; ``None`` leaves a side open.

    Numbers are compared only if the bounds are numbers. Text, dates and times are compared with the
    bounds in alphabetical order. A date bound covers the whole period that it names: up to ``2020``
    includes all of 2020, up to ``2020-06`` all of June.
    """

    field: str
    lower: str | None = None
    upper: str | None = None
    include_lower: bool = True
    include_upper: bool = True

    def __post_init__(self) -> None:
        _check_field(self.field)
        if self.lower is None and self.upper is None:
            raise QueryError("a range needs a bound", text=self.field, position=0)
        for bound, name in ((self.lower, "include_lower"), (self.upper, "include_upper")):
            if bound is None:
                object.__setattr__(self, name, True)
            else:
                _check_filled(bound, "bound")

    def __str__(self) -> str:
        opening, closing = "[" if self.include_lower else "{", "]" if self.include_upper else "}"
        return f"{self.field}:{opening}{_bound_text(self.lower)} TO {_bound_text(self.upper)}{closing}"


@dataclass(frozen=True)
class Text:
    """The words follow each other, in this order, in one text value.

    Words are runs of letters and digits, also within values such as ``ep2d_diff``. Without a field,
    any text of the document may contain them; numbers and times of day are not text. A UID is one word.

    Attributes:
        prefix: the last word may be the beginning of a longer one.
    """

    text: str
    field: str | None = None
    prefix: bool = False

    def __post_init__(self) -> None:
        if self.field is not None:
            _check_field(self.field)
        _check_filled(self.text, "text")

    def __str__(self) -> str:
        star = "*" if self.prefix else ""
        if self.field is not None:
            return f"{self.field}:{_quoted(self.text)}{star}"
        bare = _BARE_WORD.fullmatch(self.text) and not is_reserved(self.text)
        return (self.text if bare else _quoted(self.text)) + star


@dataclass(frozen=True)
class Exists:
    """The field exists, with any value."""

    field: str

    def __post_init__(self) -> None:
        _check_field(self.field)

    def __str__(self) -> str:
        return f"exists:{self.field}"


@dataclass(frozen=True)
class And:
    """All operands match; there are at least two."""

    operands: tuple[Query, ...]

    def __post_init__(self) -> None:
        _check_operands(self.operands)

    def __str__(self) -> str:
        return " AND ".join(_operand_text(operand) for operand in self.operands)


@dataclass(frozen=True)
class Or:
    """One of the operands matches; there are at least two."""

    operands: tuple[Query, ...]

    def __post_init__(self) -> None:
        _check_operands(self.operands)

    def __str__(self) -> str:
        return " OR ".join(_operand_text(operand) for operand in self.operands)


@dataclass(frozen=True)
class Not:
    """The operand does not match."""

    operand: Query

    def __str__(self) -> str:
        return f"NOT {_operand_text(self.operand)}"


Query: TypeAlias = All | Term | Prefix | Range | Text | Exists | And | Or | Not


def is_reserved(word: str) -> bool:
    """Whether a bare word is an operator, or could be taken for one because only its letter case differs."""
    return word.upper() in RESERVED_WORDS


def _operand_text(operand: Query) -> str:
    return f"({operand})" if isinstance(operand, And | Or) else str(operand)


def _value_text(value: str) -> str:
    bare = _BARE_VALUE.fullmatch(value) and value.upper() not in RESERVED_WORDS
    return value if bare else f"={_quoted(value)}"


def _bound_text(bound: str | None) -> str:
    if bound is None:
        return "*"
    return bound if _BARE_VALUE.fullmatch(bound) and bound.upper() not in RESERVED_WORDS else _quoted(bound)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _check_field(field: str) -> None:
    if not FIELD_NAME.fullmatch(field):
        raise QueryError("a field is letters, digits and '_', with dots into nested documents", text=field, position=0)


def _check_filled(text: str, kind: str) -> None:
    if not text:
        raise QueryError(f"an empty {kind}", text=text, position=0)


def _check_operands(operands: tuple[Query, ...]) -> None:
    if len(operands) < 2:
        raise QueryError("AND and OR need two operands", text=" ".join(map(str, operands)), position=0)
