"""A preview made in a process of its own, for pixels that libraries in C and C++ decode.

What a file from outside makes such a library do, a crash too, ends that process and nothing else.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

from kaapana_assets.dicom.limits import ReadingLimits
from kaapana_assets.errors import OverLimit, UnreadableDicom

_TIMEOUT_S = 120
_NO_PIXELS, _UNREADABLE, _OVER_LIMIT = 10, 11, 12
_FOR_PYTHON = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG", "TMPDIR")  # no settings, no secrets
_ROOT = Path(__file__).resolve().parents[2]


def preview_apart(path: Path, *, size: int, limits: ReadingLimits) -> bytes | None:
    """The PNG of a file, or None, as ``preview.preview_png`` gives it.

    Raises:
        UnreadableDicom: as there; also if the decoder crashed or took longer than two minutes.
        OverLimit: a frame is larger than ``limits`` say.
    """
    asked = json.dumps([str(path.absolute()), size, limits.inflated_bytes, limits.preview_bytes])
    environment = {name: os.environ[name] for name in _FOR_PYTHON if name in os.environ}
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__, asked], capture_output=True, stdin=subprocess.DEVNULL, check=False,
            timeout=_TIMEOUT_S, cwd=_ROOT, env=environment,
        )  # fmt: skip
    except subprocess.TimeoutExpired as exc:
        raise UnreadableDicom(f"{path}: no preview (not decoded within {_TIMEOUT_S} s)") from exc
    if done.returncode == 0:
        return done.stdout
    if done.returncode == _NO_PIXELS:
        return None
    said = done.stdout.decode("utf-8", "replace")
    if done.returncode == _OVER_LIMIT:
        raise OverLimit(said)
    if done.returncode == _UNREADABLE:
        raise UnreadableDicom(said)
    raise UnreadableDicom(f"{path}: no preview (its decoder ended with exit code {done.returncode})")


def _main(asked: str) -> int:
    """Write the PNG, or why there is none, to what was the standard output."""
    from kaapana_assets.dicom.preview import decoded_preview

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
        code, said = (_NO_PIXELS, b"") if found is None else (0, found)
    except UnreadableDicom as exc:
        code, said = _OVER_LIMIT if isinstance(exc, OverLimit) else _UNREADABLE, str(exc).encode()
    with os.fdopen(answer, "wb") as file:
        file.write(said)
    return code


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1]))
