"""Decodes one preview and ends: the process that ``preview_process`` starts."""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path

from kaapana_assets.dicom.limits import ReadingLimits
from kaapana_assets.dicom.preview import decoded_preview
from kaapana_assets.dicom.preview_process import NO_PIXELS, OVER_LIMIT, UNREADABLE
from kaapana_assets.errors import OverLimit, UnreadableDicom


def _main(asked: str) -> int:
    """Write the PNG, or why there is none, to what was the standard output."""
    path, size, inflated_bytes, preview_bytes = json.loads(asked)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold what the picture shows
    answer = os.dup(1)
    # Decoders print what they think of a file.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    limits = ReadingLimits(inflated_bytes=inflated_bytes, preview_bytes=preview_bytes)
    code = 0
    try:
        found = decoded_preview(Path(path), size=size, limits=limits)
        code, said = (NO_PIXELS, b"") if found is None else (0, found)
    except UnreadableDicom as exc:
        code, said = OVER_LIMIT if isinstance(exc, OverLimit) else UNREADABLE, str(exc).encode()
    with os.fdopen(answer, "wb") as file:
        file.write(said)
    return code


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1]))
