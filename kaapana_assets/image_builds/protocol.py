"""What a builder of images is: what it is given, what it has, and the protocol of all builders.

Docker, Podman and buildah are in ``builders``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class Build:
    """What to build.

    Attributes:
        reference: what the image will be called.
        context: folder with its Dockerfile.
        arguments: build arguments.
        labels: those that are added to the Dockerfile's.
        secrets: files that the build is lent, by id.
        options: further options of the program, which come last.
        no_cache: takes nothing from the cache of earlier builds.
    """

    reference: str
    context: Path
    arguments: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, Path] = field(default_factory=dict)
    options: Sequence[str] = ()
    no_cache: bool = False


@dataclass(frozen=True, kw_only=True)
class StoredImage:
    """An image in the store of a builder.

    Attributes:
        image_id: ``sha256:<hex>``.
        labels: of its configuration.
        repo_digests: ``name@sha256:<hex>`` by which registries have it, as far as the builder knows.
    """

    image_id: str
    labels: Mapping[str, str]
    repo_digests: tuple[str, ...] = ()


class Builder(Protocol):
    """A program that builds images and keeps them."""

    name: str

    def find(self, reference: str) -> StoredImage | None:
        """The image of that reference; None where the store has none.

        Raises:
            EngineUnavailable: the store cannot be asked.
        """
        ...

    def pull(self, reference: str) -> None:
        """Fetch an image from its registry.

        Raises:
            ConfigurationError: its registry does not let this user in, or there is no such image.
        """
        ...

    def build(self, build: Build, *, output: Callable[[str], None]) -> None:
        """Build an image; ``output`` is called with each line that the program prints.

        Raises:
            ConfigurationError: the build failed; the message has its last lines.
        """
        ...

    def push(self, reference: str, *, insecure: bool) -> str:
        """Send an image to the registry that its reference names; gives the digest of its manifest there.

        Raises:
            ConfigurationError: the registry does not let this user in.
            EngineUnavailable: it cannot be reached, or failed.
        """
        ...

    def save(self, reference: str, file: Path) -> None:
        """Write an image and its reference as a tar that ``docker load`` and ``ctr images import`` read.

        Raises:
            EngineUnavailable: it cannot be written.
        """
        ...
