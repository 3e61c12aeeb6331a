"""Every written plane against the planes that pydicom reads, and which plane became which."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dcm2nrrd_comparison.comparison import SAME_MM, Difference, same
from dcm2nrrd_comparison.planes import Plane
from dcm2nrrd_comparison.volumes import Volume, slices

PYDICOM = "pydicom"
CLOCK = {"AcquisitionTime", "ContentTime"}  # begin anew at midnight
ROUNDED_MM = 0.1  # from its line lies a position whose three numbers are rounded to one decimal
DRIFT = 0.002  # as a share: an echo time differs so much from slice to slice


@dataclass(frozen=True, kw_only=True)
class Matched:
    """For each volume its planes in the order of slices (None where none fits), and what differs."""

    planes: list[list[Plane | None]]
    differences: list[Difference]


def match(volumes: Sequence[Volume], planes: Sequence[Plane], named: set[Path]) -> Matched:
    """Finds for every written plane the plane of the series that has its place and its values.

    Args:
        volumes: what was written.
        planes: all planes of the series.
        named: files that the converter names, whose planes may be left out.
    """
    free = list(planes)
    found: list[list[Plane | None]] = []
    differences: list[Difference] = []
    for volume in volumes:
        chosen: list[Plane | None] = []
        for number, values in enumerate(slices(volume)):
            fitting = [plane for plane in free if _at(volume, number, plane) and same(values, plane.values)]
            last = chosen[-1].contrast if chosen and chosen[-1] else None
            best = min(fitting, key=lambda plane: _preference(volume, number, plane, last), default=None)
            chosen.append(best)
            if best is not None:
                free = [plane for plane in free if plane is not best]
        found.append(chosen)
        differences += _missing(volume, chosen, planes) + _place(volume, planes)
    differences += _left_out(free, [plane for chosen in found for plane in chosen if plane], named)
    differences += _mixed(found, planes) + _labels(volumes, found)
    return Matched(planes=found, differences=differences)


def _differs(what: str, text: str) -> Difference:
    return Difference(reference=PYDICOM, what=what, text=text)


def _preference(volume: Volume, number: int, plane: Plane, last: dict[str, str] | None) -> tuple[bool, bool, float]:
    """Of planes with equal values: first those that have the label, then those like the slice before."""
    unlabelled = any(_not_said([plane], keywords.split(), label) for keywords, label in volume.labels.items())
    return unlabelled, plane.contrast != last, _off(volume, number, plane)


def _off(volume: Volume, number: int, plane: Plane) -> float:
    if volume.affine is None or plane.position is None:
        return abs(number - plane.number)
    expected = volume.affine[:3, :3] @ [0, 0, number] + volume.affine[:3, 3]
    return float(np.linalg.norm(plane.position - expected))


def _at(volume: Volume, number: int, plane: Plane) -> bool:
    """Whether the NRRD has slice ``number`` where the plane is; True where one of them has no place."""
    if volume.affine is None or plane.position is None or plane.orientation is None or plane.spacing_mm is None:
        return True
    steps = volume.affine[:3, :3]
    row, column = plane.orientation[:3] * plane.spacing_mm[1], plane.orientation[3:] * plane.spacing_mm[0]
    rows, columns = plane.values.shape[:2]
    far = max(np.linalg.norm(steps[:, 0] - row) * columns, np.linalg.norm(steps[:, 1] - column) * rows)
    step = float(np.linalg.norm(steps[:, 2]))
    allowed = min(max(ROUNDED_MM, 0.011 * step), 0.25 * step)
    return _off(volume, number, plane) <= allowed and bool(far <= 2 * SAME_MM)


def _place(volume: Volume, planes: Sequence[Plane]) -> list[Difference]:
    placed = [plane for plane in planes if plane.position is not None and plane.orientation is not None]
    if volume.affine is not None and any(plane.in_patient != volume.in_patient for plane in placed):
        return [_differs("place", f"{volume.name} is {'' if volume.in_patient else 'not '}in the space of the patient")]
    if volume.affine is None and placed:
        return [_differs("place", f"{volume.name} has none, though {placed[0].name} says where it lies")]
    if volume.timed and not any(plane.timed for plane in planes):
        return [_differs("time", f"the third axis of {volume.name} is time, which no image says")]
    if volume.affine is not None and not np.isfinite(np.linalg.norm(volume.affine, axis=0)).all():
        return [_differs("place", f"{volume.name} has one that is no finite number")]
    if not np.isfinite(volume.values).all() and all(plane.stored.dtype.kind != "f" for plane in planes):
        return [_differs("values", f"{volume.name} has some that are no finite numbers")]
    if volume.affine is not None and not placed:
        return [_differs("place", f"{volume.name} has one, though no image says where it lies")]
    return []


def _missing(volume: Volume, chosen: list[Plane | None], planes: Sequence[Plane]) -> list[Difference]:
    wrong = [number for number, plane in enumerate(chosen) if plane is None]
    if not wrong:
        return []
    values = list(slices(volume))
    here = [plane for plane in planes if _at(volume, wrong[0], plane)]
    elsewhere = [plane for plane in planes if same(values[wrong[0]], plane.values)]
    text = f"{len(wrong)} of {len(chosen)} planes of {volume.name} are no plane of the series at that place"
    if elsewhere:
        text += f"; slice {wrong[0]} has the values of {elsewhere[0].name} at {elsewhere[0].position}"
    elif here and here[0].values.shape == values[wrong[0]].shape:
        off = np.abs(values[wrong[0]].astype(float) - here[0].values)
        text += f"; values of slice {wrong[0]} differ from {here[0].name} by up to {np.nanmax(off):.6g}"
        ours, theirs = values[wrong[0]], here[0].values
        text += f" (ours {ours.min():.6g} to {ours.max():.6g}, pydicom {theirs.min():.6g} to {theirs.max():.6g})"
    else:
        text += "; no plane of the series has that place"
    return [_differs("planes", text)]


def _left_out(free: list[Plane], used: list[Plane], named: set[Path]) -> list[Difference]:
    lost = [plane for plane in free if plane.file not in named]
    twice = [plane for plane in lost if any(_twin(plane, other) for other in used)]
    lost = [plane for plane in lost if not any(plane is each for each in twice)]
    if not lost:
        return []
    return [_differs("planes", f"{len(lost)} planes are in no volume, {lost[0].name} first")]


def _twin(plane: Plane, other: Plane) -> bool:
    if plane.position is None or other.position is None:
        return False
    return float(np.linalg.norm(plane.position - other.position)) < 0.001 and same(plane.values, other.values)


def _mixed(found: list[list[Plane | None]], planes: Sequence[Plane]) -> list[Difference]:
    """Volumes that mix what differs between images at one place."""
    at_place: dict[tuple[float, ...], list[Plane]] = defaultdict(list)
    for plane in planes:
        if plane.position is not None:
            at_place[tuple(plane.position.round(2))].append(plane)
    telling = {
        keyword
        for group in at_place.values()
        for keyword in {key for plane in group for key in plane.contrast}
        if _several({plane.contrast.get(keyword) for plane in group})
    }
    differences = []
    for number, chosen in enumerate(found):
        for keyword in sorted(telling):
            values = {plane.contrast.get(keyword) for plane in chosen if plane}
            if _several(values):
                text = f"volume {number} has {keyword} {', '.join(sorted(str(each) for each in values)[:5])}"
                differences.append(_differs("mixed", text))
    return differences


def _several(values: set[str | None]) -> bool:
    """Whether values differ by more than drift."""
    numbers = [number for value in values if (number := as_number(value)) is not None]
    if len(numbers) < len(values):
        return len(values) > 1
    return max(numbers) - min(numbers) > DRIFT * abs(max(numbers))


def _labels(volumes: Sequence[Volume], found: list[list[Plane | None]]) -> list[Difference]:
    """Labels that are not what the images say, do not tell volumes apart, or are out of order."""
    differences = []
    by_file: dict[str, list[str]] = defaultdict(list)
    by_clock: set[str] = set()
    for volume, chosen in zip(volumes, found, strict=True):
        for keywords, label in volume.labels.items():
            by_file[volume.name.split("[")[0]].append(label)
            by_clock |= {volume.name.split("[")[0]} if keywords in CLOCK else set()
            if wrong := _not_said([plane for plane in chosen if plane], keywords.split(), label):
                text = f"{volume.name} has {keywords} {label}, its images say {wrong} otherwise"
                differences.append(_differs("labels", text))
    for name, labels in by_file.items():
        if len(set(labels)) < len(labels):
            differences.append(_differs("labels", f"those of {name} are not unique: {', '.join(labels[:6])}"))
        numbers = [] if name in by_clock else [number for label in labels if (number := as_number(label)) is not None]
        if len(numbers) == len(labels) and numbers != sorted(numbers):
            differences.append(_differs("labels", f"those of {name} are not in order: {', '.join(labels[:6])}"))
    return differences


def _not_said(planes: list[Plane], keywords: list[str], label: str) -> str:
    """The first keyword whose part of a label not all images agree with or, for moments, none does."""
    parts = [label] if len(keywords) == 1 else label.split()
    if len(parts) != len(keywords):  # values hold blanks
        return ""
    for part, keyword in zip(parts, keywords, strict=True):
        all_agree = all(_agree(part, plane.contrast.get(keyword, part)) for plane in planes)
        moments = [plane.moment[keyword] for plane in planes if keyword in plane.moment]
        if part != "none" and not (all_agree and (not moments or any(_agree(part, said) for said in moments))):
            return keyword
    return ""


def _agree(label: str, text: str) -> bool:
    number, said = as_number(label), as_number(text)
    if number is not None and said is not None:
        return abs(number - said) <= DRIFT * abs(said)
    if number is None and "\\" in text and " " in label:  # a direction
        numbers, all_said = [as_number(each) for each in label.split()], [as_number(each) for each in text.split("\\")]
        if None not in numbers and None not in all_said:
            return bool(np.allclose(np.array(numbers, float), np.array(all_said, float), atol=0.01))
    plain = "".join(letter if letter.isascii() and letter.isprintable() and letter != "," else " " for letter in text)
    return label == plain.replace("\\", "/")


def as_number(text: object) -> float | None:
    try:
        return float(str(text))
    except ValueError:
        return None
