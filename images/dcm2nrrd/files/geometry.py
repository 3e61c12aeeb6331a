"""From a stack's volumes to one grid of voxels, or the reason why there is none. No files, no pixels.

NRRD says of a whole volume: an origin and one step for each axis. So the frames must lie exactly
on such a grid; what is near it by less than rounding counts as on it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from frames import Frame
from refusal import Refused
from volumes import Volume, label_of

ROUNDING_MM = 0.051  # positions written with one decimal are off by up to 0.05 mm
DECIMALS = (1, 2, 3, 4)
STEEPEST = math.cos(math.radians(45))


@dataclass(frozen=True)
class Grid:
    """Where the voxels are.

    Attributes:
        volumes: for each volume its frames along the slice axis; most series are one volume.
        steps_mm: vectors from a voxel to the next along columns' index, rows' index and slices,
            LPS; None if the series does not say where it lies.
        origin_mm: centre of the first voxel, LPS.
        spacings: for a grid without place: along each axis, NaN where unknown.
        time: the slice axis is time in ms, not space.
        in_patient: whether the space is the patient's.
        label: what tells the volumes apart, with one value for each.
        notes: what a reader should know.
    """

    volumes: list[list[Frame]]
    steps_mm: np.ndarray | None
    origin_mm: np.ndarray | None
    spacings: tuple[float, float, float]
    time: bool = False
    in_patient: bool = True
    label: tuple[str, list[str]] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Line:
    """Where the first pixels of the slices are: a first one and the way to the next."""

    first: np.ndarray
    step: np.ndarray
    notes: tuple[str, ...] = ()


def place(volumes: list[Volume]) -> Grid:
    """The grid of volumes that have the same positions.

    Raises:
        Refused: the frames lie on no grid.
    """
    first = volumes[0].frames[0]
    orientation, spacing = np.array(first.orientation), first.spacing_mm or (1.0, 1.0)
    row, column = (axis / np.linalg.norm(axis) for axis in (orientation[:3], orientation[3:]))
    line = _line(volumes, np.cross(row, column))
    steps = np.array([row * spacing[1], column * spacing[0], line.step])
    notes = (*line.notes, *(first.tiles.notes if first.tiles else ()))
    return Grid(
        [volume.frames for volume in volumes],
        steps,
        line.first,
        (spacing[1], spacing[0], float(np.linalg.norm(line.step))),
        in_patient=first.in_patient,
        label=label_of(volumes),
        notes=notes if first.in_patient else (*notes, "placed in a volume of its own, not in the patient"),
    )


def place_nowhere(frames: list[Frame]) -> Grid:
    """The grid of frames of one object that does not say where it is."""
    first = frames[0]
    # A spacing of 0, as some secondary captures have, says nothing.
    spacing = [each if each > 0 else math.nan for each in first.spacing_mm or (0.0, 0.0)]
    if len({frame.file for frame in frames}) > 1:
        raise Refused(f"{len(frames)} images that do not say where they are")
    if len(frames) == 1:
        spacings = (spacing[1], spacing[0], first.distance_mm or math.nan)
        return Grid([frames], None, None, spacings, notes=("without place in the patient",))
    if first.time_ms is None:
        raise Refused(f"{first.file.name} has {len(frames)} frames without position or orientation")
    notes = ["frames in time, without place in the patient"]
    if math.isnan(first.time_ms):
        notes.append("the time between them is not said or not even")
    return Grid([frames], None, None, (spacing[1], spacing[0], first.time_ms), time=True, notes=tuple(notes))


def _line(volumes: list[Volume], normal: np.ndarray) -> Line:
    """The line on which slices lie: from the first to the last, else the nearest to all of them."""
    positions = np.array([[frame.position for frame in volume.frames] for volume in volumes])
    count = positions.shape[1]
    first = positions[0, 0]
    if count == 1:
        said = volumes[0].frames[0].distance_mm
        note = f"one slice, {said:g} mm as its header says" if said else "one slice of unknown thickness, 1 mm assumed"
        line = Line(first, normal * (said or 1.0), (note,))
        along, aside = _off(positions, line, normal)
        if max(along, aside) > ROUNDING_MM:
            raise Refused(f"{len(volumes)} slices in one plane, shifted by up to {max(along, aside):.4g} mm")
        return line
    distance = float((positions[0, -1] - first) @ normal) / (count - 1)
    straight = Line(first, normal * distance)
    if max(_off(positions, straight, normal)) <= min(max(ROUNDING_MM, 0.01 * distance), 0.1 * distance):
        return straight
    allowed = max(min(max(ROUNDING_MM, 0.01 * distance), 0.1 * distance), _rounding(positions, distance))
    means = positions.mean(axis=0)
    numbers = np.arange(count) - (count - 1) / 2
    centre, step = means.mean(axis=0), numbers @ means / (numbers @ numbers)
    for direction in (normal * float(step @ normal), step):
        line = Line(centre - (count - 1) / 2 * direction, direction)
        if max(_off(positions, line, normal)) > allowed:
            continue
        aside = float(np.linalg.norm(direction - (direction @ normal) * normal))
        if aside == 0 or direction is not step:
            return line
        if count > 2 and float(direction @ normal) > STEEPEST * np.linalg.norm(direction):
            note = f"sheared: each slice is shifted by {aside:.4g} mm against its normal (a tilted gantry, for example)"
            return Line(line.first, line.step, (note,))
    raise Refused(_reason(positions, straight, normal))


def _off(positions: np.ndarray, line: Line, normal: np.ndarray) -> tuple[float, float]:
    """How far slices are off their places on a line, at most: along the normal, aside of it."""
    off = positions - (line.first + np.arange(positions.shape[1])[:, None] * line.step)
    along = off @ normal
    return float(np.abs(along).max()), float(np.linalg.norm(off - along[..., None] * normal, axis=-1).max())


def _rounding(positions: np.ndarray, distance: float) -> float:
    """How far the nearest line may be off positions that were rounded to a number of decimals."""
    for decimals in DECIMALS:
        if np.abs(positions - positions.round(decimals)).max() < 1e-9:
            return min(0.75 * 10.0**-decimals, 0.25 * distance)
    return 0.0


def _reason(positions: np.ndarray, line: Line, normal: np.ndarray) -> str:
    distance = float(line.step @ normal)
    along, aside = _off(positions, line, normal)
    if along > min(max(ROUNDING_MM, 0.01 * distance), 0.1 * distance):
        gaps: Sequence[float] = np.diff(positions[0] @ normal).tolist()
        small, large = min(gaps), max(gaps)
        times = round(large / small)
        missing = "; slices are missing" if times > 1 and abs(large / small - times) < 0.02 * times else ""
        return f"slice distance is not constant: {small:.4g} to {large:.4g} mm{missing}"
    return f"slices are shifted sideways by up to {aside:.4g} mm against their normal (a tilted gantry, for example)"
