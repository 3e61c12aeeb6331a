"""Renders a preview in a subprocess, for pixel data that C and C++ libraries decode.

If a file from outside exploits or crashes such a library, only the subprocess is affected.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from kaapana_assets.dicom.limits import ReadingLimits
from kaapana_assets.errors import OverLimit, UnreadableDicom

_TIMEOUT_S = 120
NO_PIXELS, UNREADABLE, OVER_LIMIT = 10, 11, 12
"""Exit codes of the subprocess."""

_WORKER = "kaapana_assets.dicom.preview_worker"
_FOR_PYTHON = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG", "TMPDIR")  # no settings, no secrets
_ROOT = Path(__file__).resolve().parents[2]


def preview_in_subprocess(path: Path, *, size: int, limits: ReadingLimits) -> bytes | None:
    """The PNG of a file, or None, as ``preview.preview_png`` returns it.

    Raises:
        UnreadableDicom: as for ``preview_png``; also if the decoder crashes or exceeds two minutes.
        OverLimit: the frame exceeds ``limits``.
    """
    request = json.dumps([str(path.absolute()), size, limits.inflated_bytes, limits.preview_bytes])
    environment = {name: os.environ[name] for name in _FOR_PYTHON if name in os.environ}
    try:
        done = subprocess.run(
            [sys.executable, "-m", _WORKER, request], capture_output=True, stdin=subprocess.DEVNULL, check=False,
            timeout=_TIMEOUT_S, cwd=_ROOT, env=environment,
        )  # fmt: skip
    except subprocess.TimeoutExpired as exc:
        raise UnreadableDicom(f"{path}: no preview (decoding exceeded {_TIMEOUT_S} s)") from exc
    if done.returncode == 0:
        return done.stdout
    if done.returncode == NO_PIXELS:
        return None
    message = done.stdout.decode("utf-8", "replace")
    if done.returncode == OVER_LIMIT:
        raise OverLimit(message)
    if done.returncode == UNREADABLE:
        raise UnreadableDicom(message)
    raise UnreadableDicom(f"{path}: no preview (its decoder ended with exit code {done.returncode})")
