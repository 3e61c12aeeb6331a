"""What base images hold of Python packages, as a site says it: the setting KAAPANA_BASE_REQUIREMENTS.

A base image is not there for the process runner. Packages that it would bring are installed instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from kaapana_assets.errors import ConfigurationError
from kaapana_assets.image_builds.dockerfile.stages import Packages


@dataclass(frozen=True)
class BaseRequirements:
    """Requirements by base image.

    Attributes:
        folder: where relative paths begin.
        by_image: pattern of a reference -> a file of requirements, or requirements.
    """

    folder: Path = Path()
    by_image: Mapping[str, str | Sequence[str]] = field(default_factory=dict)

    def find(self, reference: str) -> Packages | None:
        """The packages of a base image, by the first pattern that fits; None where none does.

        A pattern fits the whole reference, or what is left of it without its tag or digest, without
        its registry, or without further components at its beginning.

        Raises:
            ConfigurationError: the file cannot be read.
        """
        names = set(_names(reference))
        for pattern, given in self.by_image.items():
            if any(fnmatchcase(name, pattern) for name in names):
                return Packages(lines=self._lines(pattern, given))
        return None

    def check(self) -> None:
        """See that all files can be read.

        Raises:
            ConfigurationError: one cannot.
        """
        for pattern, given in self.by_image.items():
            self._lines(pattern, given)

    def _lines(self, pattern: str, given: str | Sequence[str]) -> tuple[str, ...]:
        if not isinstance(given, str):
            return tuple(given)
        try:
            return tuple((self.folder / given).expanduser().read_text(encoding="utf-8").splitlines())
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigurationError(
                f"KAAPANA_BASE_REQUIREMENTS: the file {self.folder / given} of {pattern!r} cannot be read: {exc}"
            ) from exc


def _names(reference: str) -> Iterator[str]:
    without_digest = reference.partition("@")[0]
    path, _, last = without_digest.rpartition("/")
    without_tag = f"{path}/{last.partition(':')[0]}" if path else last.partition(":")[0]
    for name in (reference, without_digest, without_tag):
        parts = name.split("/")
        yield from ("/".join(parts[start:]) for start in range(len(parts)))
