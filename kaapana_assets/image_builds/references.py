"""From the name of an image folder to the reference that engines and registries know.

The version is the folder's own (its label ``org.opencontainers.image.version``, or ``VERSION`` as images
written for Kaapana have it); registry and suffix are the site's.
"""

from __future__ import annotations

import re
from pathlib import Path

from kaapana_assets.errors import ConfigurationError
from kaapana_assets.image_builds.folder import load_image

VERSION_LABEL = "org.opencontainers.image.version"
KAAPANA_VERSION_LABEL = "VERSION"
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


def is_folder_name(image: str) -> bool:
    """Whether an operator's ``image`` names a folder in images/; else it is a full reference."""
    return not set(image) & set("/:@")


def reference_of(images: Path, image: str, *, registry: str, suffix: str) -> str:
    """``<registry>/<name>:<version>-<suffix>`` of an image folder; a full reference as it is.

    Args:
        images: folder of image folders.
        image: as an operator names it.
        registry: registry and path, or "".
        suffix: what the site appends to versions, or "".

    Raises:
        NotFound: there is no such image folder.
        ConfigurationError: its Dockerfile has no version label, or one that no tag can hold.
    """
    if not is_folder_name(image):
        return image
    found = load_image(images, image)
    labels = found.stage.labels
    version = labels.get(VERSION_LABEL) or labels.get(KAAPANA_VERSION_LABEL, "")
    tag = f"{version}-{suffix}" if suffix else version
    if not version or not _TAG.fullmatch(tag):
        raise ConfigurationError(
            f"image {image}: {found.folder / 'Dockerfile'} needs LABEL {VERSION_LABEL}=... with a version that can be "
            f"a tag, not {tag[:80]!r}"
        )
    # Docker's own short names would be looked for on its public registry; these are only local.
    return f"{registry or 'localhost'}/{found.name}:{tag}"
