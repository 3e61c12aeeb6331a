"""Builds by the Go toolchain, of sources beside this file."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from services.service import Missing, run_build


def digest(folder: Path) -> str:
    """Of the names and the content of all files below a folder, shortened."""
    found = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        found.update(f"{path.relative_to(folder)} {path.stat().st_size}\n".encode() + path.read_bytes())
    return found.hexdigest()[:12]


def build_go(source: Path, into: Path, *flags: str) -> None:
    """Build the command in a folder of sources, as one file of the folder's name.

    Raises:
        Missing: Go is missing, or can't build it.
    """
    if shutil.which("go") is None:
        raise Missing("Go, which builds it")
    # Outside of a checkout, so that nothing of a checkout gets into the file or stands in Go's way.
    sources = into / "sources"
    shutil.copytree(source, sources)
    build = ["nice", "go", "build", "-p", "2", "-trimpath", "-buildvcs=false", "-ldflags", " ".join(("-s -w", *flags))]
    run_build([*build, "-o", into / source.name, "."], folder=sources, CGO_ENABLED="0")
    shutil.rmtree(sources)
