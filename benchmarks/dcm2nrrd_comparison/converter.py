"""Runs the converter on one series as the product does, and reads what came of it."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dcm2nrrd_comparison.series import Series

TIMEOUT_S = 1800
READS, WRITES = "initial-input", "dcm2nrrd"


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What came of one series.

    Attributes:
        outcome: ``written``, ``refused`` or ``crashed``.
        reason: why it was refused, or how it crashed.
        lines: all that the converter said.
        files: what it wrote.
    """

    outcome: str
    reason: str
    lines: list[str]
    files: list[Path]


def lay_out(series: Series, run_dir: Path) -> Path:
    """The folder of a series in a run directory, with its files linked as ``<SOPInstanceUID>.dcm``."""
    folder = run_dir / "batch" / series.uid / READS
    folder.mkdir(parents=True)
    for sop, file in series.files.items():
        name = sop if re.fullmatch(r"[0-9.]{1,64}", sop) else file.name
        (folder / f"{name}.dcm").symlink_to(file.resolve())
    return folder


def convert(series: Series, run_dir: Path, *, converter: Path, python: Path) -> Conversion:
    """The series of a run directory converted in a process of its own."""
    contract = {
        "WORKFLOW_DIR": str(run_dir),
        "BATCH_NAME": "batch",
        "OPERATOR_IN_DIR": READS,
        "OPERATOR_OUT_DIR": WRITES,
        "BATCHES_INPUT_DIR": str(run_dir / "batch"),
        "RUN_ID": "compare-1",
        "DAG_ID": "compare",
        "TASK_ID": "dcm2nrrd",
    }
    try:
        ended = subprocess.run(
            [python, converter],
            cwd=converter.parent,
            env={**os.environ, **contract, "PYTHONWARNINGS": "ignore"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Conversion(outcome="crashed", reason=f"not done after {TIMEOUT_S} s", lines=[], files=[])
    lines = ended.stdout.decode(errors="backslashreplace").splitlines()
    folder = run_dir / "batch" / series.uid / WRITES
    files = sorted(folder.rglob("*.nrrd")) if folder.is_dir() else []
    refusal = next(_refusals(lines), None)
    if ended.returncode == 0 and files:
        return Conversion(outcome="written", reason="", lines=lines, files=files)
    if ended.returncode == 1 and refusal and not files:
        return Conversion(outcome="refused", reason=refusal, lines=lines, files=files)
    last = next((line for line in reversed(lines) if line.strip()), "nothing said")
    reason = f"exit code {ended.returncode}, {len(files)} files: {last}"
    return Conversion(outcome="crashed", reason=reason, lines=lines, files=files)


def _refusals(lines: list[str]) -> Iterator[str]:
    for line in lines:
        if found := re.match(r"series \S+: refused: (.*)", line):
            yield found[1]
