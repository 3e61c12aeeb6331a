"""Each series as compressed NRRD, ``<SeriesInstanceUID>.nrrd``, or refused with the reason.

A series is refused, and nothing is written for it, when a NRRD of it would say something untrue
about where its voxels are. The others go on; the exit code is 1 if any was refused. A series of
several stacks has one file for each, ``<SeriesInstanceUID>_<number>_<plane>.nrrd``.
"""

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from frames import Frame, read_frames
from geometry import Grid, place, place_nowhere
from nrrd_file import header, write
from objects import silence_warnings
from refusal import Refused
from stacks import Stack, stacks_of
from volumes import name_of, volumes_of
from voxels import output_type, rescaled

SKIPPED = 126


@dataclass(frozen=True)
class Piece:
    """What one file will hold, and what its name says of it."""

    name: str
    grid: Grid

    @property
    def frames(self) -> list[Frame]:
        """In the order in which they are written."""
        return [frame for volume in self.grid.volumes for frame in volume]


def convert(in_dir: Path, target: Path) -> str:
    """What was written, in words: one file, or several whose names begin as the target's.

    Raises:
        Refused: the series cannot be written truly.
    """
    files = sorted(path for path in in_dir.glob("*") if path.is_file() and not path.name.startswith("."))
    frames, left_out = read_frames(files)
    stacks = stacks_of(frames)
    pieces = [piece for number, stack in enumerate(stacks, 1) for piece in _pieces(stack, f"{number} of {len(stacks)}")]
    types = [output_type(piece.frames) for piece in pieces]
    target.parent.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    said = []
    for number, (piece, dtype) in enumerate(zip(pieces, types, strict=True), 1):
        path = target if len(pieces) == 1 else target.with_name(f"{target.stem}_{number}_{piece.name}.nrrd")
        try:
            write(path, header(piece.grid, dtype), (rescaled(frame, dtype) for frame in piece.frames))
        except Refused:
            _remove(written)
            raise
        written.append(path)
        words = _words(piece.grid, dtype)
        said.append(words if len(pieces) == 1 else f"{path.name}: {words}")
    return " | ".join(said) + "".join(f"; left out: {each}" for each in left_out)


def _pieces(stack: Stack, number: str) -> list[Piece]:
    if stack.frames[0].position is None or stack.frames[0].orientation is None:
        return [Piece("unplaced", place_nowhere(stack.frames))]
    try:
        sets = volumes_of(stack.frames)
        every = [volume for volumes in sets for volume in volumes]
        names = [name_of(volumes, [each for each in every if each not in volumes]) for volumes in sets]
        return [
            Piece("_".join(filter(None, [stack.name, _plain(name)])), place(volumes))
            for name, volumes in zip(names, sets, strict=True)
        ]
    except Refused as exc:
        if not stack.differs:
            raise
        which = f"stack {number}, {stack.name}, {len(stack.frames)} images"
        raise Refused(f"mixed {stack.differs}; {which}: {exc}") from exc


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:80]


def _words(grid: Grid, dtype: np.dtype) -> str:
    first = grid.volumes[0][0]
    sizes = [first.columns, first.rows, len(grid.volumes[0]), *([len(grid.volumes)] if len(grid.volumes) > 1 else [])]
    notes = [*grid.notes, *(["low numbers are bright (MONOCHROME1)"] if first.low_is_bright else [])]
    if grid.label is not None:
        notes.append(f"volumes by {grid.label[0]}")
    shape = "x".join(str(size) for size in sizes)
    return f"{shape} {dtype.name}{'' if first.samples == 1 else ' RGB'}" + "".join(f"; {note}" for note in notes)


def _remove(written: list[Path]) -> None:
    for path in written:
        path.unlink()
    if written and not any(written[0].parent.iterdir()):
        written[0].parent.rmdir()


def main() -> int:
    silence_warnings()
    batch_dir = Path("/", os.environ["WORKFLOW_DIR"], os.environ["BATCH_NAME"])
    written = refused = 0
    for series_dir in sorted(path for path in batch_dir.glob("*") if path.is_dir()):
        series = series_dir.name
        out_dir = series_dir / os.environ["OPERATOR_OUT_DIR"]
        try:
            said = convert(series_dir / os.environ["OPERATOR_IN_DIR"], out_dir / f"{series}.nrrd")
        except Refused as exc:
            refused += 1
            print(f"series {series}: refused: {exc}", flush=True)
            continue
        written += 1
        print(f"series {series}: written: {said}", flush=True)
    print(f"{written} series written, {refused} refused")
    if refused:
        return 1
    return 0 if written else SKIPPED


if __name__ == "__main__":
    sys.exit(main())
