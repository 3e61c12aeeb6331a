"""Runs the converter as the product does, and reads what came of each series."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dcm2nrrd_comparison.series import Series

TIMEOUT_S = 1800
READS, WRITES = "initial-input", "dcm2nrrd"
REFUSED_EXIT_CODE = 1


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What came of one series.

    Attributes:
        outcome: ``written``, ``refused`` or ``crashed``.
        reason: why it was refused, or how it crashed.
        lines: what the converter said of it, or everything if it ran for this series alone.
        inputs: the folder of its DICOM files.
        files: what was written.
    """

    outcome: str
    reason: str
    lines: list[str]
    inputs: Path
    files: list[Path]


def chunks(series: Sequence[Series], size: int) -> Iterator[list[Series]]:
    """Series for one process each time: no two with the same UID."""
    chunk: list[Series] = []
    for each in series:
        if len(chunk) == size or any(each.uid == other.uid for other in chunk):
            yield chunk
            chunk = []
        chunk.append(each)
    if chunk:
        yield chunk


def convert(series: Sequence[Series], run_dir: Path, *, converter: Path, python: Path) -> list[Conversion]:
    """Converts series in one process, which takes one after the other.

    If the process does not end well, or a series has neither output nor refusal, those without
    are tried again in a process each.
    """
    ended = _run(series, run_dir, converter=converter, python=python)
    found = []
    for number, each in enumerate(series):
        conversion = _read(each, run_dir, ended, alone=len(series) == 1)
        if conversion.outcome == "crashed" and len(series) > 1:
            (conversion,) = convert([each], run_dir / f"alone-{number}", converter=converter, python=python)
        found.append(conversion)
    return found


@dataclass(frozen=True)
class _Ended:
    exit_code: int | None
    lines: list[str]


def _run(series: Sequence[Series], run_dir: Path, *, converter: Path, python: Path) -> _Ended:
    for each in series:
        _lay_out(each, run_dir)
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
        return _Ended(None, [f"not done after {TIMEOUT_S} s"])
    return _Ended(ended.returncode, ended.stdout.decode(errors="backslashreplace").splitlines())


def _lay_out(series: Series, run_dir: Path) -> None:
    """Links the files of a series as ``<SOPInstanceUID>.dcm``."""
    folder = run_dir / "batch" / series.uid / READS
    folder.mkdir(parents=True)
    for sop, file in series.files.items():
        name = sop if re.fullmatch(r"[0-9.]{1,64}", sop) else file.name
        (folder / f"{name}.dcm").symlink_to(file.resolve())


def _read(series: Series, run_dir: Path, ended: _Ended, *, alone: bool) -> Conversion:
    folder = run_dir / "batch" / series.uid
    files = sorted((folder / WRITES).rglob("*.nrrd"))
    own = [line for line in ended.lines if line.startswith(f"series {series.uid}:")]
    refusals = [line.split(": refused: ", 1)[1] for line in own if ": refused: " in line]
    outcome, reason = "crashed", ""
    if ended.exit_code in {0, REFUSED_EXIT_CODE} and bool(files) != bool(refusals):
        outcome = "written" if files else "refused"
        reason = "; ".join(refusals)
    if alone and outcome != "crashed" and ended.exit_code != (0 if files else REFUSED_EXIT_CODE):
        outcome = "crashed"
    if outcome == "crashed":
        last = next((line for line in reversed(ended.lines) if line.strip()), "nothing said")
        reason = f"exit code {ended.exit_code}, {len(files)} files: {last}"
    return Conversion(
        outcome=outcome, reason=reason, lines=ended.lines if alone else own, inputs=folder / READS, files=files
    )
