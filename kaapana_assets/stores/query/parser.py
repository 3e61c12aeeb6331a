r"""Parses the readable form of a query into its tree, by recursive descent.

Grammar, loosest first::

    query    = and ("OR" and)*
    and      = not (["AND"] not)*          side by side means AND
    not      = "NOT" not | primary
    primary  = "(" query ")" | "*" | words | field ":" value
    value    = word ["*"] | "=" string ["*"] | string ["*"] | "*" | comparison | range | "(" values ")"
    words    = (word | string) ["*"]

A string is in double quotes, with ``\"`` and ``\\`` inside; in a word, a backslash escapes the next
character. ``exists:Field`` and ``_exists_:Field`` match series that have the field.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from kaapana_assets.errors import QueryError
from kaapana_assets.stores.query.limits import MAX_LENGTH, LeafCount, check_shape
from kaapana_assets.stores.query.tree import (
    FIELD_NAME,
    RESERVED_WORDS,
    All,
    And,
    Exists,
    Not,
    Or,
    Prefix,
    Query,
    Range,
    Term,
    Text,
    is_reserved,
)

_NESTED = 100  # the limit of this parser's recursion; that of queries is in ``limits``

_ENDS_WORD = frozenset('()[]{}"*')
_COMPARISONS = (">=", "<=", ">", "<")
_EXISTS = ("exists", "_exists_")


def parse(text: str) -> Query:
    """The tree of a query.

    Raises:
        QueryError: the text is no query; the error has the position.
    """
    if len(text) > MAX_LENGTH:
        raise QueryError(f"a query has at most {MAX_LENGTH} characters", text=text, position=MAX_LENGTH)
    if not text.strip():
        raise QueryError("the query is empty, '*' finds everything", text=text, position=len(text))
    parser = _Parser(text)
    query = parser.either(parser.primary)
    parser.skip_space()
    if parser.position < len(text):
        parser.fail("')' without '('" if text[parser.position] == ")" else "not expected here")
    check_shape(query, text=text)
    return query


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.depth = 0
        self.leaves = LeafCount(text)

    def fail(self, reason: str, *, at: int | None = None) -> NoReturn:
        raise QueryError(reason, text=self.text, position=self.position if at is None else at)

    def skip_space(self) -> None:
        while self.position < len(self.text) and self.text[self.position].isspace():
            self.position += 1

    def at(self, *starts: str) -> bool:
        return any(self.text.startswith(start, self.position) for start in starts)

    def take(self, start: str) -> bool:
        if not self.at(start):
            return False
        self.position += len(start)
        return True

    def at_operator(self, word: str) -> bool:
        """Whether a reserved word is at this position, as a whole word."""
        end = self.position + len(word)
        return self.at(word) and (end == len(self.text) or self.text[end].isspace() or self.text[end] in "()[]{}")

    def take_operator(self, word: str) -> bool:
        self.skip_space()
        if not self.at_operator(word):
            return False
        self.position += len(word)
        return True

    def either(self, primary: Callable[[], Query]) -> Query:
        operands = [self.both(primary)]
        while self.take_operator("OR"):
            operands.append(self.both(primary))
        return operands[0] if len(operands) == 1 else Or(tuple(operands))

    def both(self, primary: Callable[[], Query]) -> Query:
        operands = [self.negated(primary)]
        while True:
            if not self.take_operator("AND"):
                self.skip_space()
                if self.position >= len(self.text) or self.at(")") or self.at_operator("OR"):
                    break
            operands.append(self.negated(primary))
        return operands[0] if len(operands) == 1 else And(tuple(operands))

    def negated(self, primary: Callable[[], Query]) -> Query:
        if not self.take_operator("NOT"):
            return self.nested(primary)
        self.enter()
        query = Not(self.negated(primary))
        self.depth -= 1
        return query

    def nested(self, primary: Callable[[], Query]) -> Query:
        self.skip_space()
        start = self.position
        if not self.take("("):
            return primary()
        self.enter()
        query = self.either(primary)
        self.skip_space()
        if not self.take(")"):
            self.fail("this '(' is not closed", at=start)
        self.depth -= 1
        return query

    def enter(self) -> None:
        self.depth += 1
        if self.depth > _NESTED:
            self.fail(f"nested more than {_NESTED} deep")

    def counted(self, leaf: Query, *, at: int) -> Query:
        self.leaves.add(leaf, position=at)
        return leaf

    def primary(self) -> Query:
        """Parse free text, ``*``, or a field with its condition."""
        start = self.position
        if self.at('"'):
            return self.counted(Text(self.string(), prefix=self.take("*")), at=start)
        if self.take("*"):
            return self.counted(All(), at=start)
        word, plain = self.word(stop=":")
        if not self.take(":"):
            if plain and is_reserved(word):
                self.fail(f"'{word}' stands where a condition should; operators are in capitals, between two "
                          "conditions, and a word to look for is in quotes", at=start)  # fmt: skip
            return self.counted(Text(word, prefix=self.take("*")), at=start)
        if word in _EXISTS:
            return self.counted(Exists(self.field_name()), at=start)
        if not FIELD_NAME.fullmatch(word):
            self.fail(f"'{word}' is not the name of a field", at=start)
        return self.value(word)

    def field_name(self) -> str:
        self.skip_space()
        start = self.position
        name, _ = self.word()
        if not FIELD_NAME.fullmatch(name):
            self.fail(f"'{name}' is not the name of a field", at=start)
        return name

    def value(self, field: str) -> Query:
        """Parse the condition after the colon."""
        self.skip_space()
        if self.at("("):
            return self.nested(lambda: self.value(field))
        start = self.position
        return self.counted(self.one_value(field), at=start)

    def one_value(self, field: str) -> Query:
        if self.at('"'):
            return Text(self.string(), field=field, prefix=self.take("*"))
        if self.at("[", "{"):
            return self.range(field)
        if self.take('="'):
            self.position -= 1
            value = self.string()
            return Prefix(field, value) if self.take("*") else Term(field, value)
        for sign in _COMPARISONS:
            if self.take(sign):
                return self.comparison(field, sign)
        if self.take("*"):
            return Exists(field)
        start = self.position
        value, plain = self.word()
        if plain and value.upper() in RESERVED_WORDS:
            self.fail(f"{field} has no value before '{value}'; put the word in quotes to look for it", at=start)
        return Prefix(field, value) if self.take("*") else Term(field, value)

    def comparison(self, field: str, sign: str) -> Range:
        bound = self.bound()
        if bound is None:
            self.fail(f"'{sign}' needs a value, not '*'", at=self.position - 1)
        if sign.startswith(">"):
            return Range(field, lower=bound, include_lower=sign == ">=")
        return Range(field, upper=bound, include_upper=sign == "<=")

    def range(self, field: str) -> Query:
        start = self.position
        include_lower = self.text[start] == "["
        self.position += 1
        lower = self.bound()
        if not self.take_operator("TO"):
            self.fail("a range is written [from TO to]")
        upper = self.bound()
        self.skip_space()
        if not self.at("]", "}"):
            self.fail(f"this '{self.text[start]}' is not closed", at=start)
        include_upper = self.text[self.position] == "]"
        self.position += 1
        if lower is None and upper is None:
            return Exists(field)
        return Range(field, lower, upper, include_lower, include_upper)

    def bound(self) -> str | None:
        self.skip_space()
        start = self.position
        if self.take("*"):
            return None
        if self.at('"'):
            return self.string()
        bound, plain = self.word()
        if plain and bound.upper() in RESERVED_WORDS:
            self.fail("a bound is missing", at=start)
        return bound

    def word(self, *, stop: str = "") -> tuple[str, bool]:
        """Parse the characters up to a space or bracket. Returns them, and whether none was escaped."""
        start = self.position
        parts = []
        plain = True
        while self.position < len(self.text):
            char = self.text[self.position]
            if char == "\\":
                plain = False
                self.position += 1
                if self.position == len(self.text):
                    self.fail("a backslash at the end", at=self.position - 1)
                char = self.text[self.position]
            elif char.isspace() or char in _ENDS_WORD or char in stop:
                break
            parts.append(char)
            self.position += 1
        if not parts:
            self.fail("a value or a word is missing", at=start)
        if self.at("*") and self.position + 1 < len(self.text) and self.text[self.position + 1] not in " \t\r\n)":
            self.fail("'*' can only stand at the end of a word")
        return "".join(parts), plain

    def string(self) -> str:
        """Parse a string in double quotes. Returns the text between them."""
        start = self.position
        self.position += 1
        parts: list[str] = []
        while not self.take('"'):
            self.take("\\")
            if self.position >= len(self.text):
                self.fail("this quote is not closed", at=start)
            parts.append(self.text[self.position])
            self.position += 1
        if not parts:
            self.fail("nothing between the quotes", at=start)
        return "".join(parts)
