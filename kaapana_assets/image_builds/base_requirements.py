"""Python packages of base images, from the setting KAAPANA_BASE_REQUIREMENTS.

The process runner has no base image. It installs the packages that the base image would have brought.
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
    """The Python requirements of each base image.

    Attributes:
        folder: relative paths of requirements files start here.
        by_image: glob of an image reference -> path of a requirements file, or a list of requirements.
    """

    folder: Path = Path()
    by_image: Mapping[str, str | Sequence[str]] = field(default_factory=dict)

    def find(self, reference: str) -> Packages | None:
        """The packages of a base image, from the first matching pattern; None if no pattern matches.

        A pattern matches the full reference, or the reference without its tag or digest, without its
        registry, or without more of its leading path components.

        Raises:
            ConfigurationError: the requirements file cannot be read.
        """
        names = set(_names(reference))
        for pattern, given in self.by_image.items():
            if any(fnmatchcase(name, pattern) for name in names):
                return Packages(lines=self._lines(pattern, given))
        return None

    def check(self) -> None:
        """Check that every requirements file can be read.

        Raises:
            ConfigurationError: a file cannot be read.
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
