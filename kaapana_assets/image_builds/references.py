"""The image reference of an image folder.

The version comes from the Dockerfile (label ``org.opencontainers.image.version``, or ``VERSION`` in images
written for Kaapana); registry and tag suffix come from the settings of the site.
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
    """Whether an operator's ``image`` is the name of an image folder and not a full reference."""
    return not set(image) & set("/:@")


def reference_of(images: Path, image: str, *, registry: str, suffix: str) -> str:
    """The reference ``<registry>/<name>:<version>-<suffix>`` of an image folder.

    Args:
        images: the folder that holds the image folders.
        image: name of an image folder; a full reference is returned unchanged.
        registry: registry and path, or "".
        suffix: suffix of the site for versions, or "".

    Raises:
        NotFound: there is no such image folder.
        ConfigurationError: its Dockerfile has no version label, or the version is not valid in a tag.
    """
    if not is_folder_name(image):
        return image
    found = load_image(images, image)
    labels = found.stage.labels
    version = labels.get(VERSION_LABEL) or labels.get(KAAPANA_VERSION_LABEL, "")
    tag = f"{version}-{suffix}" if suffix else version
    if not version or not _TAG.fullmatch(tag):
        raise ConfigurationError(
            f"image {image}: {found.folder / 'Dockerfile'} needs LABEL {VERSION_LABEL}=... with a version that is "
            f"valid in a tag; {tag[:80]!r} is not"
        )
    # Engines look for a name without a registry on Docker Hub; these images are local.
    return f"{registry or 'localhost'}/{found.name}:{tag}"
