"""A disk of one MiB for tests, in a mount namespace of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]


def on_small_disk(folder: Path, code: str, *, size: str = "1m", **variables: str) -> str:
    """What Python code prints that runs where ``folder`` is a small disk; skips where none can be made."""
    folder.mkdir(parents=True, exist_ok=True)
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs a mount namespace (root), for a disk that is really full")
    mount = f'mount -t tmpfs -o size={size} tmpfs "$0" && exec "$@"'
    argv = ["unshare", "--mount", "sh", "-c", mount, str(folder), sys.executable, "-c", code]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KAAPANA_")}
    done = subprocess.run(
        argv,
        env=environment | {"PYTHONPATH": str(TESTS)} | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    if "mount:" in done.stderr and "permission" in done.stderr:
        pytest.skip("this machine lets nobody mount a file system")
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout
