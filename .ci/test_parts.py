"""Runs the four parts of the tests, each even if one before it failed, and ends with one line that sums them up.

python .ci/test_parts.py [argument of pytest ...]
"""

# ruff: noqa: T201 - a command, which runs pytest; no package
from __future__ import annotations

import collections
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET  # written by the tests themselves
from dataclasses import dataclass, field
from pathlib import Path

PARTS = {
    "unit": "not services and not system and not cluster",
    "services": "services and not system and not cluster",
    "system": "system and not cluster",
    "cluster": "cluster",
}
_SERVICE = re.compile(r"the service (\S+) needs")
_DATA = "../shared/data"
_NO_TESTS = 5


@dataclass
class Outcome:
    """What became of the tests of one part, or of all."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    wanting: collections.Counter[str] = field(default_factory=collections.Counter)

    def add(self, other: Outcome) -> None:
        """Count those of another part, too."""
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        self.wanting += other.wanting


def main() -> int:
    """Run them; 0 only if every part ran and none of its tests failed."""
    total = Outcome()
    bad: list[str] = []
    for name, marks in PARTS.items():
        print(f"== {name}: pytest -m '{marks}'", flush=True)
        code, outcome = run(marks, sys.argv[1:])
        total.add(outcome)
        if code:
            bad.append(f"{name} ({outcome.failed or f'pytest ended with {code}'})")
    print(summary(total, bad))
    return 1 if bad else 0


def run(marks: str, arguments: list[str]) -> tuple[int, Outcome]:
    """One part, two workers; pytest's exit code and what became of its tests."""
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "outcome.xml"
        chosen = ["-n", "2", "--dist", "loadfile", "-m", marks, f"--junitxml={written}", *arguments]
        code = subprocess.run([sys.executable, "-m", "pytest", *chosen], check=False).returncode
        # With arguments that choose tests, a part may have none.
        if code == _NO_TESTS and arguments:
            code = 0
        return code, read(written) if written.exists() else Outcome()


def read(written: Path) -> Outcome:
    """Count what pytest wrote in JUnit's format."""
    outcome = Outcome()
    for case in ET.parse(written).iter("testcase"):  # noqa: S314
        if case.find("failure") is not None or case.find("error") is not None:
            outcome.failed += 1
        elif (skipped := case.find("skipped")) is not None:
            outcome.skipped += 1
            outcome.wanting[_wanted(skipped.get("message", ""))] += 1
        else:
            outcome.passed += 1
    return outcome


def summary(total: Outcome, bad: list[str]) -> str:
    """One line: how many passed, failed and were skipped, for want of what, and how to get it."""
    said = f"{total.passed} passed, {total.failed} failed"
    if bad:
        said += f" in {', '.join(bad)}"
    said += f", {total.skipped} skipped"
    if total.wanting:
        said += ": " + ", ".join(f"{count} for want of {what}" for what, count in total.wanting.most_common())
    if any(what != _DATA and not what.startswith("(") for what in total.wanting):
        said += "; `make services-build` makes the services that this machine can make and says what the others need"
    return said


def _wanted(reason: str) -> str:
    if found := _SERVICE.search(reason):
        return found[1]
    return _DATA if _DATA in reason else f"({reason})"


if __name__ == "__main__":
    sys.exit(main())
