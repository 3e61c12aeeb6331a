"""The record of images that were built here: which content stands behind each reference.

A cluster tells nobody which image a node would run. What ``kaapana-assets images build`` made is
therefore written down in ``<home>/images.json``, and compared with what a node did run.
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
    """One image as it was built, and pushed if it was.

    Attributes:
        reference: ``registry/name:tag``.
        name: its folder in images/.
        image_id: digest of its configuration, ``sha256:<hex>``; what engines call the image ID.
        content_digest: of the folder that it was built from, see ``image.content_digest``.
        repo_digests: digests of its manifest, ``sha256:<hex>``, as registries name them.
        built_at: ISO 8601, UTC.
    """

    reference: str
    name: str
    image_id: str
    content_digest: str
    repo_digests: tuple[str, ...] = ()
    built_at: str = ""

    def is_run_as(self, image_id: str) -> bool:
        """Whether a node that says it ran ``image_id`` (an image ID or ``name@digest``) ran this image."""
        return image_id.rpartition("@")[2] in {self.image_id, *self.repo_digests}


class BuiltImages:
    """All images that were built on this home."""

    def __init__(self, home: Path) -> None:
        self._file = HomePaths(home).images_record

    def all(self) -> dict[str, BuiltImage]:
        """By reference.

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
        """The image of that reference; None where it was not built here."""
        return self.all().get(reference)

    def add(self, image: BuiltImage) -> None:
        """Write down what was built, in the place of what had its reference before."""
        with self._changing() as images:
            images[image.reference] = image

    def add_repo_digest(self, reference: str, digest: str) -> None:
        """Write down the digest under which a registry has an image that was built here."""
        with self._changing() as images:
            known = images[reference]
            images[reference] = replace(known, repo_digests=tuple(dict.fromkeys([*known.repo_digests, digest])))

    @contextmanager
    def _changing(self) -> Iterator[dict[str, BuiltImage]]:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with locked(self._file.with_name(".images.lock")):
            images = self.all()
            yield images
            write_file(self._file, json.dumps([asdict(image) for image in images.values()], indent=1))
