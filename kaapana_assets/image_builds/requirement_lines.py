"""Requirements of an image that would lead the installer to files outside of the image."""

from __future__ import annotations

import re

from kaapana_assets.errors import ConfigurationError
from kaapana_assets.image_builds.dockerfile.stages import Packages

_IMAGE_PATH = re.compile(r"(--editable )?/")  # laid out, and turned to where they are
_CONTINUATION = re.compile(r"\\\r?\n")
_OUTSIDE = re.compile(
    r"^(?:-r|--requirement|-c|--constraint)"  # those in the image were put in their place before
    r"|(?:^|@\s*|[\s=+\"']|(?:^|\s)-[a-z])(?:file:|~|\.{0,2}/|\.\.$|\$\{)"
    r"|/\.\.(?:[/\s\"']|$)",
    re.IGNORECASE,
)


def check_requirements(packages: Packages, *, name: str) -> None:
    """See that an installation takes packages from the index, from addresses or from the image.

    Raises:
        ConfigurationError: a line names another file of this machine.
    """
    for lines in (packages.lines, packages.constraints):
        # A word that goes on in the next line is one to pip, two to uv.
        texts = (_CONTINUATION.sub(between, "\n".join(lines)) for between in (" ", ""))
        for line in (line for text in texts for line in text.splitlines()):
            text = re.sub(r"(^|\s)#.*", "", line).strip()
            rest = text.removeprefix(found[0]) if packages.local and (found := _IMAGE_PATH.match(text)) else text
            if _OUTSIDE.search(rest):
                raise ConfigurationError(
                    f"image {name}: the requirement {text[:100]!r} leads out of the image folder; name a package, or "
                    "copy the file into the folder and install it by its path from the Dockerfile"
                )
