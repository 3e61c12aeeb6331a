"""The record of the images built on this home: the image ID and content digest of each reference.

A cluster does not report which image a node would run. ``kaapana-assets images build`` therefore records
each image in ``<home>/images.json``; the record is compared with the image that a node did run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from kaapana_assets.durable import write_file
from kaapana_assets.errors import ConfigurationError
from kaapana_assets.home_paths import HomePaths
from kaapana_assets.locks import locked


@dataclass(frozen=True, kw_only=True)
class BuiltImage:
    """One built image.

    Attributes:
        reference: ``registry/name:tag``.
        name: name of its image folder.
        image_id: the image ID, which is the digest of its configuration, ``sha256:<hex>``.
        content_digest: digest of its image folder at the build, see ``folder.content_digest``.
        repo_digests: digests of its manifest in registries, ``sha256:<hex>``; empty until it is pushed.
        built_at: build time, ISO 8601 in UTC.
    """

    reference: str
    name: str
    image_id: str
    content_digest: str
    repo_digests: tuple[str, ...] = ()
    built_at: str = ""

    def is_run_as(self, image_id: str) -> bool:
        """Whether ``image_id``, as reported by a node (image ID or ``name@digest``), is this image."""
        return image_id.rpartition("@")[2] in {self.image_id, *self.repo_digests}


class BuiltImages:
    """The images built on a home, kept in ``images.json``."""

    def __init__(self, home: Path) -> None:
        self._file = HomePaths(home).images_record

    def all(self) -> dict[str, BuiltImage]:
        """All images by reference.

        Raises:
            ConfigurationError: the record is damaged.
        """
        try:
            text = self._file.read_text()
        except FileNotFoundError:
            return {}
        try:
            images = [BuiltImage(**{**each, "repo_digests": tuple(each["repo_digests"])}) for each in json.loads(text)]
        except (ValueError, KeyError, TypeError) as exc:
            raise ConfigurationError(
                f"{self._file} is damaged ({exc}): remove it and build the images again: kaapana-assets images build"
            ) from exc
        return {image.reference: image for image in images}

    def find(self, reference: str) -> BuiltImage | None:
        """The image of that reference; None if it was not built on this home."""
        return self.all().get(reference)

    def add(self, image: BuiltImage) -> None:
        """Record a built image; replaces the record of the same reference."""
        with self._transaction() as images:
            images[image.reference] = image

    def add_repo_digest(self, reference: str, digest: str) -> None:
        """Record the digest that a registry gave to a recorded image."""
        with self._transaction() as images:
            known = images[reference]
            images[reference] = replace(known, repo_digests=tuple(dict.fromkeys([*known.repo_digests, digest])))

    @contextmanager
    def _transaction(self) -> Iterator[dict[str, BuiltImage]]:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with locked(self._file.with_name(".images.lock")):
            images = self.all()
            yield images
            write_file(self._file, json.dumps([asdict(image) for image in images.values()], indent=1))
