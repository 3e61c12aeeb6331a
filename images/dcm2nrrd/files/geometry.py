"""From frames to one grid of voxels, or the reason why there is none. No files, no pixels.

NRRD says of a whole volume: an origin and one step for each axis. So the frames must lie exactly
on such a grid, at right angles; what is near it by less than rounding counts as on it.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from frames import Frame, Refused

COSINES = 1e-4  # 0.03 mm over a plane of 300 mm
SAME_MM = 0.001
ROUNDING_MM = 0.051  # positions written with one decimal are off by up to 0.05 mm


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
        label: what tells the volumes apart, with one value for each.
        notes: what a reader should know.
    """

    volumes: list[list[Frame]]
    steps_mm: np.ndarray | None
    origin_mm: np.ndarray | None
    spacings: tuple[float, float, float]
    time: bool = False
    label: tuple[str, list[str]] | None = None
    notes: tuple[str, ...] = ()


def place(frames: list[Frame]) -> Grid:
    """The grid of a series.

    Raises:
        Refused: the frames lie on no grid.
    """
    _same(frames, "image size", lambda frame: f"{frame.columns}x{frame.rows}")
    _same(frames, "samples per pixel", lambda frame: frame.samples)
    _same(frames, "frame of reference", lambda frame: frame.frame_of_reference or "none")
    placed = [frame for frame in frames if frame.position is not None and frame.orientation is not None]
    if not placed:
        return _without_place(frames)
    if len(placed) != len(frames):
        raise Refused(f"{len(frames) - len(placed)} of {len(frames)} images have no position or orientation")
    row, column = _directions(frames)
    spacing = _pixel_spacing(frames)
    normal = np.cross(row, column)
    by_position = _grouped(frames, normal)
    first = np.array(by_position[0][0].position)
    step, notes = _slice_step(by_position, normal)
    _check_on_grid(by_position, first, normal * step, step)
    volumes, label = _volumes(by_position)
    steps = np.array([row * spacing[1], column * spacing[0], normal * step])
    return Grid(volumes, steps, first, (spacing[1], spacing[0], step), label=label, notes=notes)


def _same(frames: Iterable[Frame], what: str, value: object) -> None:
    found = sorted({value(frame) for frame in frames}, key=str)  # type: ignore[operator]
    if len(found) > 1:
        raise Refused(f"mixed {what}: {', '.join(str(each) for each in found[:4])}")


def _without_place(frames: list[Frame]) -> Grid:
    first = frames[0]
    # A spacing of 0, as some secondary captures have, says nothing.
    spacing = [each if each > 0 else math.nan for each in first.spacing_mm or (0.0, 0.0)]
    if len({frame.file for frame in frames}) > 1:
        raise Refused(f"{len(frames)} images that do not say where they are")
    if len(frames) == 1:
        spacings = (spacing[1], spacing[0], first.distance_mm or math.nan)
        return Grid([frames], None, None, spacings, notes=("without place in the patient",))
    spacings = (spacing[1], spacing[0], first.frame_time_ms or math.nan)
    return Grid([frames], None, None, spacings, time=True, notes=("frames in time, without place in the patient",))


def _directions(frames: list[Frame]) -> tuple[np.ndarray, np.ndarray]:
    all_of_them = np.array([frame.orientation for frame in frames])
    if np.abs(all_of_them - all_of_them[0]).max() > COSINES:
        raise Refused(f"mixed orientation: {len(np.unique(all_of_them.round(4), axis=0))} different ones")
    row, column = all_of_them[0][:3], all_of_them[0][3:]
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if max(abs(length - 1) for length in lengths) > 1e-3 or abs(row @ column) > 1e-3:
        raise Refused(f"ImageOrientationPatient {all_of_them[0].tolist()} is not two unit vectors at right angles")
    return row / lengths[0], column / lengths[1]


def _pixel_spacing(frames: list[Frame]) -> tuple[float, float]:
    if any(frame.spacing_mm is None for frame in frames):
        raise Refused("there is no PixelSpacing")
    spacings = np.array([frame.spacing_mm for frame in frames])
    if not np.isfinite(spacings).all() or spacings.min() <= 0:
        raise Refused(f"PixelSpacing {spacings.min(axis=0).tolist()} mm is not above 0")
    if np.abs(spacings / spacings[0] - 1).max() > 1e-4:
        raise Refused(f"mixed pixel spacing: {spacings.min(axis=0).tolist()} to {spacings.max(axis=0).tolist()} mm")
    return float(spacings[0][0]), float(spacings[0][1])


def _grouped(frames: list[Frame], normal: np.ndarray) -> list[list[Frame]]:
    """Frames at the same distance along the normal together, in its direction."""
    along = {id(frame): float(np.array(frame.position) @ normal) for frame in frames}
    groups: list[list[Frame]] = []
    for frame in sorted(frames, key=lambda frame: (along[id(frame)], frame.number)):
        if groups and along[id(frame)] - along[id(groups[-1][0])] <= SAME_MM:
            groups[-1].append(frame)
        else:
            groups.append([frame])
    for group in groups:
        group.sort(key=lambda frame: frame.number)
    return groups


def _slice_step(by_position: list[list[Frame]], normal: np.ndarray) -> tuple[float, tuple[str, ...]]:
    if len(by_position) == 1:
        said = by_position[0][0].distance_mm
        note = f"one slice, {said:g} mm as its header says" if said else "one slice of unknown thickness, 1 mm assumed"
        return said or 1.0, (note,)
    along = np.array([np.array(group[0].position) @ normal for group in by_position])
    return float(along[-1] - along[0]) / (len(along) - 1), ()


def _check_on_grid(by_position: list[list[Frame]], first: np.ndarray, step: np.ndarray, distance: float) -> None:
    allowed = min(max(ROUNDING_MM, 0.01 * distance), 0.1 * distance)
    direction = step / distance
    along, aside = [], 0.0
    for number, group in enumerate(by_position):
        for frame in group:
            off = np.array(frame.position) - (first + number * step)
            along.append(float(off @ direction))
            aside = max(aside, float(np.linalg.norm(off - (off @ direction) * direction)))
    if max(abs(off) for off in along) > allowed:
        gaps = np.diff([np.array(group[0].position) @ direction for group in by_position])
        small, large = float(gaps.min()), float(gaps.max())
        missing = "; slices are missing" if abs(large / small - round(large / small)) < 0.02 else ""
        raise Refused(f"slice distance is not constant: {small:.4g} to {large:.4g} mm{missing}")
    if aside > allowed:
        raise Refused(
            f"slices are shifted sideways by up to {aside:.4g} mm against their normal (a tilted gantry, for example)"
        )


def _volumes(by_position: list[list[Frame]]) -> tuple[list[list[Frame]], tuple[str, list[str]] | None]:
    """The frames sorted into volumes, each with one frame at every position."""
    counts = sorted({len(group) for group in by_position})
    if counts == [1]:
        return [[group[0] for group in by_position]], None
    if len(counts) > 1:
        raise Refused(f"several images at the same position, {counts[0]} at some and {counts[-1]} at others")
    keywords = _telling(by_position)
    keyed = [{tuple(dict(frame.identity)[key] for key in keywords): frame for frame in group} for group in by_position]
    if len(keyed[0]) == counts[0] and all(group.keys() == keyed[0].keys() for group in keyed):
        keys = sorted(keyed[0], key=lambda key: min(group[key].number for group in keyed))
        volumes = [[group[key] for group in keyed] for key in keys]
        return volumes, (" ".join(keywords), [" ".join(key) for key in keys])
    volumes = [list(volume) for volume in zip(*by_position, strict=True)]
    if not _in_turn(volumes) and not _in_turn([list(group) for group in by_position]):
        raise Refused(f"{counts[0]} images at each position, and nothing tells which belong to one volume")
    for volume in volumes:
        if len({tuple(dict(frame.identity)[key] for key in keywords) for frame in volume}) > 1:
            raise Refused(f"{counts[0]} images at each position, mixed in {', '.join(keywords)}")
    return volumes, ("InstanceNumber", [str(min(frame.number for frame in volume)[0]) for volume in volumes])


def _telling(by_position: list[list[Frame]]) -> list[str]:
    """Keywords with the same several values at every position."""
    found = []
    for keyword in dict.fromkeys(key for group in by_position for frame in group for key, _ in frame.identity):
        values = [sorted(dict(frame.identity).get(keyword, "") for frame in group) for group in by_position]
        if len(set(values[0])) > 1 and "" not in values[0] and all(each == values[0] for each in values):
            found.append(keyword)
    return found


def _in_turn(parts: list[list[Frame]]) -> bool:
    """Whether all of a part was made before anything of the next part, each frame with its own number."""
    numbers = [sorted(frame.number for frame in part) for part in parts]
    if len({number for part in numbers for number in part}) < sum(len(part) for part in numbers):
        return False
    return all(earlier[-1] < later[0] for earlier, later in pairwise(sorted(numbers)))
