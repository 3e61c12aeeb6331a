"""Stacks of a series: frames of one size, one spacing and one orientation. Most series are one.

Positions along a stack belong to geometry.py, what repeats there to volumes.py.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass

import numpy as np
from frames import Frame
from refusal import Refused

COSINES = 1e-4  # 0.03 mm over a plane of 300 mm
SPACING = 1e-4
PLANES = ("sagittal", "coronal", "axial")


@dataclass(frozen=True)
class Stack:
    """Frames that can lie on one grid.

    Attributes:
        name: of its plane, for file names; "" where the object does not say where it is.
        differs: what tells it from the other stacks of the series; "" if it is the only one.
    """

    frames: list[Frame]
    name: str = ""
    differs: str = ""


def stacks_of(frames: list[Frame]) -> list[Stack]:
    """The stacks of a series, in the order in which they were made.

    Raises:
        Refused: frames have no common place, or none at all.
    """
    found = sorted({frame.frame_of_reference or "none" for frame in frames})
    if len(found) > 1:
        raise Refused(f"mixed frame of reference: {', '.join(found[:4])}")
    unplaced = [frame for frame in frames if frame.position is None or frame.orientation is None]
    if len(unplaced) == len(frames):
        return [Stack(frames)]
    if unplaced:
        raise Refused(f"{len(unplaced)} of {len(frames)} images have no position or orientation")
    for frame in frames:
        _check_plane(frame)
    orientations = _clusters(frames, lambda frame: frame.orientation or (), _is_same_orientation)
    spacings = _clusters(frames, lambda frame: frame.spacing_mm or (), _is_same_spacing)
    aspects: dict[str, Callable[[Frame], Hashable]] = {
        "orientation": lambda frame: orientations[id(frame)],
        "image size": lambda frame: (frame.columns, frame.rows),
        "pixel spacing": lambda frame: spacings[id(frame)],
        "samples per pixel": lambda frame: (frame.samples, frame.palette),
        "photometric interpretation": lambda frame: frame.low_is_bright,
        "frame of reference": lambda frame: frame.in_patient,
    }
    differs = ", ".join(name for name, aspect in aspects.items() if len({aspect(frame) for frame in frames}) > 1)
    parts: dict[tuple[Hashable, ...], list[Frame]] = {}
    for frame in frames:
        parts.setdefault(tuple(aspect(frame) for aspect in aspects.values()), []).append(frame)
    stacks = sorted(parts.values(), key=lambda part: min(frame.number for frame in part))
    return [Stack(part, _plane(part[0]), differs) for part in stacks]


def _check_plane(frame: Frame) -> None:
    orientation = np.array(frame.orientation)
    row, column = orientation[:3], orientation[3:]
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if max(abs(length - 1) for length in lengths) > 1e-3 or abs(row @ column) > 1e-3:
        raise Refused(f"ImageOrientationPatient {orientation.tolist()} is not two unit vectors at right angles")
    if frame.spacing_mm is None:
        raise Refused("there is no PixelSpacing")
    if min(frame.spacing_mm) <= 0:
        raise Refused(f"PixelSpacing {list(frame.spacing_mm)} mm is not above 0")


def _is_same_orientation(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(np.abs(one - other).max() <= COSINES)


def _is_same_spacing(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(np.abs(one / other - 1).max() <= SPACING)


def _clusters(
    frames: list[Frame],
    value: Callable[[Frame], tuple[float, ...]],
    same: Callable[[np.ndarray, np.ndarray], bool],
) -> dict[int, int]:
    """For each frame the number of the first value that is nearly its own."""
    firsts: list[np.ndarray] = []
    known: dict[tuple[float, ...], int] = {}
    found = {}
    for frame in frames:
        each = value(frame)
        if each not in known:
            near = (number for number, first in enumerate(firsts) if same(np.array(each), first))
            known[each] = next(near, len(firsts))
            if known[each] == len(firsts):
                firsts.append(np.array(each))
        found[id(frame)] = known[each]
    return found


def _plane(frame: Frame) -> str:
    orientation = np.array(frame.orientation)
    normal = np.abs(np.cross(orientation[:3], orientation[3:]))
    return PLANES[int(normal.argmax())] if normal.max() > 0.8 else "oblique"
