"""What differs between the volumes of dcm2nrrd and those of another program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dcm2nrrd_comparison.reasons import Facts, shape_reason, value_reason
from dcm2nrrd_comparison.volumes import Volume, slices, turned_like

SAME_MM = 0.06  # positions that are rounded to one decimal are off by up to 0.05 mm
ROUNDING_MM = 0.1  # of a step between two positions with one decimal each
ORDER = ("shape", "place", "origin", "direction", "spacing", "values")  # the worst first


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One difference.

    Attributes:
        reference: the program that has it otherwise.
        what: what differs: ``shape``, ``origin``, ``direction``, ``spacing``, ``values``, ...
        key: the reason, as a table in the documentation names it; empty for none that is known.
        text: the numbers.
    """

    reference: str
    what: str
    text: str
    key: str = ""

    def __str__(self) -> str:
        return f"{self.reference}: {self.what}: {self.text}" + (f" [{self.key}]" if self.key else "")


def compare(ours: Sequence[Volume], theirs: Sequence[Volume], *, reference: str, facts: Facts) -> list[Difference]:
    """The differences, each volume of ours paired with the one of theirs that is most like it.

    Args:
        ours: volumes of dcm2nrrd.
        theirs: volumes of the other program.
        reference: its name.
        facts: what may be a reason.
    """
    left, unlike, found = list(theirs), [], []
    for volume in ours:
        pairs = [(_differences(volume, each, reference, facts), each) for each in left]
        differences, best = min(pairs, key=lambda pair: _badness(pair[0]), default=([], None))
        if best is None or any(each.what == "shape" and not each.key for each in differences):
            unlike.append(volume)
            continue
        found += differences
        left = [each for each in left if each is not best]
    left = [each for each in left if not any(_equal(volume, each) for volume in ours)]  # written twice
    text = f"ours {_sizes(unlike)}, theirs {_sizes(left)}"
    if unlike or left:
        found.append(Difference(reference=reference, what="shape" if unlike and left else "volumes", text=text))
    if any(each.what in {"shape", "volumes", "values"} and not each.key for each in found) and (
        grouped := _grouping(ours, theirs)
    ):
        return [Difference(reference=reference, what="grouping", text=grouped, key="other-grouping")]
    return found


def _sizes(volumes: Sequence[Volume]) -> str:
    return ", ".join(sorted(volume.size for volume in volumes)[:6]) + ("..." if len(volumes) > 6 else "") or "none"


def _badness(differences: list[Difference]) -> list[int]:
    return sorted((ORDER.index(each.what) - len(ORDER) for each in differences), reverse=False)


def _equal(ours: Volume, theirs: Volume) -> bool:
    return not _differences(ours, theirs, "", Facts())


def _differences(ours: Volume, theirs: Volume, reference: str, facts: Facts) -> list[Difference]:
    def differs(what: str, text: str, key: str = "") -> Difference:
        return Difference(reference=reference, what=what, key=key, text=f"{text} ({ours.name})")

    options = [theirs.values]
    if ours.affine is not None and ours.in_patient:
        theirs = turned_like(theirs, ours.affine)
        options = [theirs.values]
    else:  # a program that invents a place may have turned rows or columns
        options += [np.flip(theirs.values, axis) for axis in (1, 0, (0, 1))]
    if ours.values.shape != theirs.values.shape:
        key = shape_reason(ours.values, theirs.values, facts)
        return [differs("shape", f"ours {ours.size}, theirs {theirs.size}", key)]
    found = [differs(*each) for each in _geometry(ours, theirs, dose=facts.dose and reference == "dcm2niix")]
    if not any(same(ours.values, values) for values in options):
        values = min(options, key=lambda values: np.count_nonzero(ours.values != values))
        texts = [value_reason(ours.values, each, facts, ours.name) for each in options]
        key, more = next((each for each in texts if each[0]), ("", ""))
        found.append(differs("values", _numbers(ours.values, values) + more, key))
    return found


def _geometry(ours: Volume, theirs: Volume, *, dose: bool) -> list[tuple[str, str, str]]:
    if ours.affine is None or theirs.affine is None or not ours.in_patient:
        return []
    a, b = ours.affine, theirs.affine
    if not np.isfinite(a).all() or not np.isfinite(b).all():
        return [("place", f"ours {_text(a[:3])}, theirs {_text(b[:3])}", "")]
    steps = np.maximum(np.array(ours.shape[:3]) - 1, 1)
    ends = np.array([[0, 0, 0], *np.diag(steps)])
    off = np.linalg.norm((ends @ a[:3, :3].T + a[:3, 3]) - (ends @ b[:3, :3].T + b[:3, 3]), axis=1)
    lengths = [np.linalg.norm(matrix[:3, :3], axis=0) for matrix in (a, b)]
    allowed = min(SAME_MM, 0.25 * float(lengths[0].min()))
    if off.max() <= allowed:
        return []
    one_slice = ours.shape[2] == 1
    if one_slice and off[:3].max() <= allowed:
        text = f"ours {_text(a[:3, 2])}, theirs {_text(b[:3, 2])} for the step from a single slice"
        return [("spacing", text, "one-slice")]
    key = ""
    if off[:3].max() <= allowed and abs(lengths[0][2] - lengths[1][2]) <= ROUNDING_MM:
        key = "rounded-positions"
    if np.abs(lengths[0] - lengths[1])[:2].max() <= allowed / steps[:2].max():
        key = "dose-planes" if dose else "gantry-tilt" if _is_sheared(a) else key
    found = []
    if off[0] > allowed:
        found.append(("origin", f"ours {_text(a[:3, 3])}, theirs {_text(b[:3, 3])}", key))
    if (np.abs(lengths[0] - lengths[1]) > np.maximum(allowed / steps, 1e-4 * lengths[0])).any():
        found.append(("spacing", f"ours {_text(lengths[0])}, theirs {_text(lengths[1])}", key))
    cosines = [matrix[:3, :3] / size for matrix, size in zip((a, b), lengths, strict=True)]
    if np.abs(cosines[0] - cosines[1]).max() > 1e-3:
        found.append(("direction", f"ours {_text(cosines[0].T)}, theirs {_text(cosines[1].T)}", key))
    return found or [("place", f"corners differ by up to {off.max():.4g} mm", key)]


def _numbers(ours: np.ndarray, theirs: np.ndarray) -> str:
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    off = np.abs(a - b)
    text = f"{np.count_nonzero(off)} of {off.size} differ, by up to {off.max():.6g}"
    return f"{text}; ours {a.min():.6g} to {a.max():.6g}, theirs {b.min():.6g} to {b.max():.6g}"


def _is_sheared(affine: np.ndarray) -> bool:
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(directions[:, 2] @ directions[:, :2]).max() > 1e-3)


def _grouping(ours: Sequence[Volume], theirs: Sequence[Volume]) -> str:
    """How both hold the same planes in other volumes, in words; empty if they do not."""
    if not ours or not theirs or any(volume.affine is None for volume in (*ours, *theirs)):
        return ""
    left = [plane for volume in ours for plane in _placed(volume)]
    elsewhere = 0
    for volume in theirs:
        like = max(ours, key=lambda each: _alike(each, volume))
        for place, values in _placed(turned_like(volume, like.affine)):
            fits = [
                (np.linalg.norm(other - place), number)
                for number, (other, pixels) in enumerate(left)
                if same(pixels, values)
            ]
            if not fits:
                return ""
            off, number = min(fits)
            elsewhere += off > SAME_MM
            left.pop(number)
    text = f"ours {_sizes(ours)}, theirs {_sizes(theirs)}; the same planes"
    return "" if left else f"{text}, {elsewhere} of theirs at other places" if elsewhere else text


def _alike(ours: Volume, theirs: Volume) -> float:
    normals = [np.cross(*volume.affine[:3, :2].T) for volume in (ours, theirs) if volume.affine is not None]
    first, second = (normal / np.linalg.norm(normal) for normal in normals)
    return abs(float(first @ second))


def _placed(volume: Volume) -> list[tuple[np.ndarray, np.ndarray]]:
    affine = volume.affine if volume.affine is not None else np.eye(4)
    return [(affine[:3, 2] * number + affine[:3, 3], values) for number, values in enumerate(slices(volume))]


def same(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Whether values agree: whole numbers exactly, others to the precision of 32-bit floats."""
    if ours.shape != theirs.shape:
        return False
    if ours.dtype.kind in "iub" and theirs.dtype.kind in "iub":
        return bool(np.array_equal(ours, theirs))
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    finite = np.isfinite(a)
    if not np.array_equal(finite, np.isfinite(b)):
        return False
    scale = float(np.abs(b[finite]).max(initial=0.0))
    return bool(np.allclose(a[finite], b[finite], rtol=1e-6, atol=1e-6 * scale))


def _text(values: np.ndarray) -> str:
    return "(" + ", ".join(f"{each:.6g}" if abs(each) > 1e-9 else "0" for each in values.ravel()) + ")"
