"""Refuses Python requirements that name files outside of the image."""

from __future__ import annotations

import re

from kaapana_assets.errors import ConfigurationError
from kaapana_assets.image_builds.dockerfile.stages import Packages

_IMAGE_PATH = re.compile(r"(--editable )?/")  # a path in the image; it is mapped to the copied files
_CONTINUATION = re.compile(r"\\\r?\n")
_OUTSIDE = re.compile(
    r"^(?:-r|--requirement|-c|--constraint)"  # files in the image were already replaced by their lines
    r"|(?:^|@\s*|[\s=+\"']|(?:^|\s)-[a-z])(?:file:|~|\.{0,2}/|\.\.$|\$\{)"
    r"|/\.\.(?:[/\s\"']|$)",
    re.IGNORECASE,
)


def check_requirements(packages: Packages, *, name: str) -> None:
    """Check that an installation uses only the package index, URLs and files of the image.

    Args:
        packages: the installation.
        name: name of the image, for messages.

    Raises:
        ConfigurationError: a line names another file of this machine.
    """
    for lines in (packages.lines, packages.constraints):
        # A word continued on the next line is one word to pip, two to uv.
        texts = (_CONTINUATION.sub(between, "\n".join(lines)) for between in (" ", ""))
        for line in (line for text in texts for line in text.splitlines()):
            text = re.sub(r"(^|\s)#.*", "", line).strip()
            rest = text.removeprefix(found[0]) if packages.local and (found := _IMAGE_PATH.match(text)) else text
            if _OUTSIDE.search(rest):
                raise ConfigurationError(
                    f"image {name}: the requirement {text[:100]!r} leads out of the image folder; name a package, or "
                    "copy the file into the folder and install it by its path from the Dockerfile"
                )
