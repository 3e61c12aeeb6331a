"""Writes THIRD_PARTY.md: the licences of all Python packages that are shipped, from their own metadata.

Shipped is what requirements.txt (the platform's image) and images/*/requirements.txt name. The packages are
unpacked for each Python that is supported, because some versions are only for one of them.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

from uv import find_uv_bin

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.10", "3.11", "3.12")
_REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)")
_OF_WINDOWS = re.compile(r"sys_platform == 'win32'|platform_system == 'Windows'")
_INTRODUCTION = """# Licences of what is shipped

The Python packages in the images that this project builds: the platform's (requirements.txt) and the
operators' (images/). Made by `make licences` from the packages' own metadata. What only tests and
development need is not shipped.

| package | version | licence | in |
|---|---|---|---|
"""


def main() -> int:
    """Write the list."""
    shipped: dict[str, list[str]] = defaultdict(list)
    versions: dict[str, set[str]] = defaultdict(set)
    licences: dict[str, str] = {}
    files = [ROOT / "requirements.txt", *sorted(ROOT.glob("images/*/requirements.txt"))]
    for file in files:
        place = "platform" if file.parent == ROOT else file.parent.name
        for name, version in locked(file):
            versions[name].add(version)
            if place not in shipped[name]:
                shipped[name].append(place)
        for each in _unpacked(file):
            licences[_normal(each.name)] = licence_of(each)
    missing = sorted(shipped.keys() - licences.keys())
    if missing:
        sys.exit(f"these packages were not installed for any Python: {', '.join(missing)}")
    rows = [
        f"| {name} | {', '.join(sorted(versions[name]))} | {licences[name]} | {', '.join(shipped[name])} |\n"
        for name in sorted(shipped)
    ]
    (ROOT / "THIRD_PARTY.md").write_text(_INTRODUCTION + "".join(rows))
    return 0


def locked(file: Path) -> Iterator[tuple[str, str]]:
    """Names and versions of a lock, without what is only for Windows."""
    for line in file.read_text().splitlines():
        found = _REQUIREMENT.match(line)
        if found and not _OF_WINDOWS.search(line):
            yield _normal(found[1]), found[2]


def licence_of(distribution: Distribution) -> str:
    """The licence as the metadata have it: SPDX expression, classifiers, or the old field's first line."""
    metadata = distribution.metadata
    expression = metadata.get("License-Expression")
    if expression:
        return str(expression)
    field = (metadata.get("License") or "").strip()
    named = [each for each in metadata.get_all("Classifier") or () if each.startswith("License ::")]
    said = ", ".join(each.rpartition(" :: ")[2] for each in named if not each.endswith("OSI Approved"))
    first = field.splitlines()[0].strip() if field else ""
    return said or first[:80] or "see its files"


def _unpacked(file: Path) -> Iterator[Distribution]:
    if not any(locked(file)):
        return
    for python in PYTHONS:
        with tempfile.TemporaryDirectory() as folder:
            options = ["-q", "--no-deps", "--require-hashes", "--python-version", python, "--target", folder]
            subprocess.run([find_uv_bin(), "pip", "install", *options, "-r", str(file)], check=True)
            yield from distributions(path=[folder])


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    sys.exit(main())
