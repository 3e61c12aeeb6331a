"""The subprocess that ``preview_process`` starts: renders one preview and exits."""

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


def _main(request: str) -> int:
    """Write the PNG, or the reason for having none, to the original standard output."""
    path, size, inflated_bytes, preview_bytes = json.loads(request)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold the pixel data
    output = os.dup(1)
    # Decoders print warnings, which must not mix with the PNG.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    limits = ReadingLimits(inflated_bytes=inflated_bytes, preview_bytes=preview_bytes)
    code = 0
    try:
        png = decoded_preview(Path(path), size=size, limits=limits)
        code, content = (NO_PIXELS, b"") if png is None else (0, png)
    except UnreadableDicom as exc:
        code, content = OVER_LIMIT if isinstance(exc, OverLimit) else UNREADABLE, str(exc).encode()
    with os.fdopen(output, "wb") as file:
        file.write(content)
    return code


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1]))
