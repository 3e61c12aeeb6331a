"""Each series as one compressed NRRD, ``<SeriesInstanceUID>.nrrd``, or refused with the reason.

A series is refused, and nothing is written for it, when a NRRD of it would say something untrue
about where its voxels are. The others go on; the exit code is 1 if any was refused.
"""

import os
import sys
from pathlib import Path

from frames import Refused, read_frames
from geometry import place
from nrrd_file import header, write
from voxels import output_type, rescaled

SKIPPED = 126


def convert(in_dir: Path, target: Path) -> str:
    """What was written, in words.

    Raises:
        Refused: the series cannot be written truly.
    """
    files = sorted(path for path in in_dir.glob("*") if path.is_file() and not path.name.startswith("."))
    frames = read_frames(files)
    grid = place(frames)
    dtype = output_type(frames)
    target.parent.mkdir(parents=True, exist_ok=True)
    slices = (rescaled(frame, dtype) for volume in grid.volumes for frame in volume)
    write(target, header(grid, dtype), slices)
    first = frames[0]
    sizes = [first.columns, first.rows, len(grid.volumes[0]), len(grid.volumes)]
    shape = "x".join(str(size) for size in (sizes if len(grid.volumes) > 1 else sizes[:3]))
    colour = "" if first.samples == 1 else " RGB"
    notes = [*grid.notes, *(["low numbers are bright (MONOCHROME1)"] if first.low_is_bright else [])]
    return f"{shape} {dtype.name}{colour}" + "".join(f"; {note}" for note in notes)


def main() -> int:
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
