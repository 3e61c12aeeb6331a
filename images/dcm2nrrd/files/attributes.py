"""Attributes of one frame, wherever its object says them; numbers that are numbers.

An object of many frames says them in its functional groups (PS3.3 C.7.6.16): the frame's own, then
the shared ones; what no group has may stand in the object itself, as in a classic one.
"""

import math
from collections.abc import Iterator
from pathlib import Path

from objects import UNREADABLE
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from refusal import Refused

FARTHEST_MM = 1e6  # what is farther is no place in a scanner
SLOPES = (1e-30, 1e30)


class Attributes:
    """What an object says of one of its frames."""

    def __init__(self, ds: Dataset, *, index: int, file: Path) -> None:
        self.ds = ds
        self.index = index
        self.file = file
        self.grouped = "PerFrameFunctionalGroupsSequence" in ds

    def text(self, keyword: str, group: str = "") -> str | None:
        """The value as text, several values with backslashes between; None if there is none."""
        for source in self.sources(group):
            found = text_of(source, keyword)
            if found:
                return found
        return None

    def sources(self, group: str) -> Iterator[Dataset]:
        """Where an attribute of a group is looked for, in this order."""
        if group and self.grouped:
            item = item_of(self.ds.PerFrameFunctionalGroupsSequence[self.index], group)
            shared = item_of(self.ds, "SharedFunctionalGroupsSequence")
            shared = None if shared is None else item_of(shared, group)
            yield from (source for source in (item, shared) if source is not None)
        yield self.ds

    def number(self, keyword: str, group: str = "") -> float | None:
        """A finite number.

        Raises:
            Refused: there is a value that is none.
        """
        numbers = self.numbers(keyword, group, count=None)
        return numbers[0] if numbers else None

    def numbers(self, keyword: str, group: str = "", *, count: int | None) -> tuple[float, ...] | None:
        """As many finite numbers as belong there."""
        text = self.text(keyword, group)
        if text is None:
            return None
        numbers = [as_number(part) for part in text.split("\\")]
        found = tuple(number for number in numbers if number is not None)
        if len(found) < len(numbers) or (count is not None and len(found) != count):
            many = "a finite number" if count is None else f"{count} finite numbers"
            raise Refused(f"{keyword} of {self.file.name} is {text}, not {many}")
        return found

    def place(self, keyword: str, group: str = "", *, count: int) -> tuple[float, ...] | None:
        """Numbers in mm that can be of a scanner."""
        numbers = self.numbers(keyword, group, count=count)
        if numbers and max(map(abs, numbers)) > FARTHEST_MM:
            raise Refused(f"{keyword} of {self.file.name} is {self.text(keyword, group)}, which is no place")
        return numbers

    def slope(self, keyword: str, group: str = "") -> float:
        """A factor of stored numbers; 1 if there is none."""
        slope = self.number(keyword, group)
        self._check_factor(keyword, group, within=slope is None or SLOPES[0] <= abs(slope) <= SLOPES[1])
        return 1.0 if slope is None else slope

    def intercept(self, keyword: str, group: str = "") -> float:
        """What is added to stored numbers; 0 if there is nothing."""
        intercept = self.number(keyword, group) or 0.0
        self._check_factor(keyword, group, within=abs(intercept) <= SLOPES[1])
        return intercept

    def _check_factor(self, keyword: str, group: str, *, within: bool) -> None:
        if not within:
            raise Refused(f"{keyword} of {self.file.name} is {self.text(keyword, group)}: its values are lost")


def text_of(ds: Dataset, keyword: str | int) -> str | None:
    """An element's value as text; as it is stored where it breaks the rules of its VR."""
    tag = tag_for_keyword(keyword) if isinstance(keyword, str) else keyword
    if tag is None or tag not in ds:
        return None
    try:
        value = ds[tag].value
    except UNREADABLE:
        value = ds.get_item(tag).value
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    several = not isinstance(value, str) and hasattr(value, "__iter__")
    text = "\\".join(str(each).strip() for each in value) if several else str("" if value is None else value)
    return text.strip(" \0") or None


def private_of(ds: Dataset, group: int, creator: str, element: int) -> str | None:
    """A private element of a creator, as text."""
    tag = private_tag(ds, group, creator, element)
    return None if tag is None else text_of(ds, tag)


def private_tag(ds: Dataset, group: int, creator: str, element: int) -> int | None:
    """The tag that an element of a private creator has in this object."""
    for block in range(0x10, 0x20):
        if (group << 16 | block) not in ds:
            continue
        if (text_of(ds, group << 16 | block) or "").upper() == creator.upper():
            return group << 16 | block << 8 | element
    return None


def item_of(ds: Dataset, keyword: str) -> Dataset | None:
    """The first item of a sequence."""
    if keyword not in ds or not ds[keyword].value:
        return None
    return ds[keyword].value[0]


def as_number(text: str) -> float | None:
    """The finite number that a text is."""
    try:
        number = float(text) if "_" not in text else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None
