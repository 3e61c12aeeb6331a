"""The protocol of image builders, and its values: the build request and the stored image.

The implementations for docker, podman and buildah are in ``builders``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class Build:
    """The request of one image build.

    Attributes:
        reference: reference that the image gets.
        context: the build context, a folder with the Dockerfile.
        arguments: build arguments by name.
        labels: labels that are added to those of the Dockerfile.
        secrets: files of build secrets by secret ID.
        options: further command-line options of the builder, appended last.
        no_cache: whether the layers of earlier builds are ignored.
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
    """An image in the image store of a builder.

    Attributes:
        image_id: ``sha256:<hex>``.
        labels: labels of its configuration.
        repo_digests: its digests in registries, ``name@sha256:<hex>``, as far as the builder knows them.
    """

    image_id: str
    labels: Mapping[str, str]
    repo_digests: tuple[str, ...] = ()


class Builder(Protocol):
    """A program that builds images and has a store for them."""

    name: str

    def find(self, reference: str) -> StoredImage | None:
        """The stored image of that reference; None if the store has none.

        Raises:
            EngineUnavailable: the store does not answer.
        """
        ...

    def pull(self, reference: str) -> None:
        """Pull an image from its registry.

        Raises:
            ConfigurationError: the registry denies access, or has no such image.
        """
        ...

    def build(self, build: Build, *, output: Callable[[str], None]) -> None:
        """Build an image; ``output`` is called with each line that the builder prints.

        Raises:
            ConfigurationError: the build failed; the message holds the last lines of its output.
        """
        ...

    def push(self, reference: str, *, insecure: bool) -> str:
        """Push an image to the registry of its reference; returns the digest of its manifest there.

        Raises:
            ConfigurationError: the registry denies access.
            EngineUnavailable: the registry cannot be reached, or the push failed.
        """
        ...

    def save(self, reference: str, file: Path) -> None:
        """Write an image with its reference as a tar for ``docker load`` and ``ctr images import``.

        Raises:
            EngineUnavailable: the tar cannot be written.
        """
        ...
