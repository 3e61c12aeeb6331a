"""Compressed NRRD files (https://teem.sourceforge.net/nrrd/format.html), written slice by slice."""

import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from geometry import Grid

TYPES = {"float32": "float", "float64": "double"}
LEVEL = 2  # a tenth larger than the default and three times as fast


def header(grid: Grid, dtype: np.dtype) -> str:
    """The header: axes from the fastest, RGB first, several volumes last."""
    first = grid.volumes[0][0]
    sizes = [first.columns, first.rows, len(grid.volumes[0])]
    kinds = ["domain", "domain", "time" if grid.time else "domain"]
    directions = [] if grid.steps_mm is None else [_vector(step) for step in grid.steps_mm]
    spacings = [_text(spacing) for spacing in grid.spacings]
    if first.samples > 1:
        sizes, kinds = [3, *sizes], ["RGB-color", *kinds]
        directions, spacings = ["none", *directions], ["NaN", *spacings]
    if len(grid.volumes) > 1:
        sizes, kinds = [*sizes, len(grid.volumes)], [*kinds, "list"]
        directions, spacings = [*directions, "none"], [*spacings, "NaN"]
    lines = ["NRRD0005", f"type: {TYPES.get(dtype.name, dtype.name)}", f"dimension: {len(sizes)}"]
    if grid.steps_mm is not None and grid.origin_mm is not None:
        # Without the patient it is a space of three dimensions, of which no direction has a name.
        lines += ["space: left-posterior-superior" if grid.in_patient else "space dimension: 3"]
        lines += [f"sizes: {' '.join(map(str, sizes))}"]
        lines += [f"space directions: {' '.join(directions)}", f"kinds: {' '.join(kinds)}"]
        lines += ["endian: little", "encoding: gzip", 'space units: "mm" "mm" "mm"']
        lines += [f"space origin: {_vector(grid.origin_mm)}"]
    else:
        lines += [f"sizes: {' '.join(map(str, sizes))}", f"spacings: {' '.join(spacings)}"]
        lines += [f"kinds: {' '.join(kinds)}", "endian: little", "encoding: gzip"]
    if grid.label is not None:  # as 3D Slicer's MultiVolume reads it
        lines += [f"MultiVolume.FrameIdentifyingDICOMTagName:={grid.label[0]}"]
        lines += [f"MultiVolume.FrameLabels:={','.join(_plain(label) for label in grid.label[1])}"]
        lines += [f"MultiVolume.NumberOfFrames:={len(grid.volumes)}"]
    return "\n".join(lines) + "\n\n"


def write(target: Path, text: str, slices: Iterable[np.ndarray]) -> None:
    """Write the file in one step: while it is written it has another name."""
    aside = target.with_name(f".{target.name}.part")
    packed = zlib.compressobj(LEVEL, zlib.DEFLATED, 31)  # 31: with the header of gzip, which has no time
    try:
        with aside.open("wb") as file:
            file.write(text.encode("ascii"))
            for values in slices:
                little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
                file.write(packed.compress(little.data.cast("B")))
            file.write(packed.flush())
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)
        if not target.exists() and not any(target.parent.iterdir()):
            target.parent.rmdir()


def _vector(values: np.ndarray) -> str:
    return f"({','.join(_text(value) for value in values)})"


def _text(value: float) -> str:
    return "NaN" if value != value else repr(float(value) + 0.0)  # noqa: PLR0124  (NaN; + 0.0 makes -0.0 0.0)


def _plain(label: str) -> str:
    return "".join(letter if letter.isascii() and letter.isprintable() and letter != "," else " " for letter in label)
