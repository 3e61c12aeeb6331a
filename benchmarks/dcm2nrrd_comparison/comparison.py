"""What differs between the volumes of dcm2nrrd and those of another program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dcm2nrrd_comparison.volumes import Volume, turned_like

SAME_MM = 0.06  # positions that are rounded to one decimal are off by up to 0.05 mm


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One difference.

    Attributes:
        reference: the program that has it otherwise.
        key: the reason, as a table in the documentation names it; empty for none that is known.
        text: what differs, with numbers.
    """

    reference: str
    key: str
    text: str

    def __str__(self) -> str:
        return f"{self.reference}: {self.text}" + (f" [{self.key}]" if self.key else "")


def compare(
    ours: Sequence[Volume], theirs: Sequence[Volume], *, reference: str, lossy: bool, inverted: bool
) -> list[Difference]:
    """The differences, each volume of ours paired with the one of theirs that is most like it.

    Args:
        ours: volumes of dcm2nrrd.
        theirs: volumes of the other program.
        reference: its name.
        lossy: decoders may differ by rounding.
        inverted: the pixels are MONOCHROME1, which some programs turn.
    """
    left, found = list(theirs), []
    for volume in ours:
        pairs = [(_differences(volume, each, reference, lossy=lossy, inverted=inverted), each) for each in left]
        if not pairs:
            found.append(
                Difference(reference=reference, key="", text=f"has no volume like {volume.name}, {volume.size}")
            )
            continue
        differences, best = min(pairs, key=lambda pair: _badness(pair[0]))
        found += differences
        left = [each for each in left if each is not best]
    if left:
        sizes = ", ".join(sorted({each.size for each in left}))
        found.append(Difference(reference=reference, key="", text=f"has {len(left)} volumes more ({sizes})"))
    return found


def _badness(differences: list[Difference]) -> tuple[int, int]:
    words = ("shape", "origin", "direction", "spacing", "values")
    ranks = [len(words) - words.index(each.text.split(":")[0]) for each in differences]
    return max(ranks, default=0), len(ranks)


def _differences(ours: Volume, theirs: Volume, reference: str, *, lossy: bool, inverted: bool) -> list[Difference]:
    def differs(text: str, key: str = "") -> Difference:
        return Difference(reference=reference, key=key, text=f"{text} ({ours.name})")

    if ours.affine is not None:
        theirs = turned_like(theirs, ours.affine)
        options = [theirs.values]
    else:  # a program that invents a place may have turned the rows
        flat = theirs.values
        options = [flat, np.flip(flat, 1), np.flip(flat, (0, 1)), np.flip(flat, 0)]
    if ours.values.shape != theirs.values.shape:
        return [differs(f"shape: ours {ours.size}, theirs {theirs.size}")]
    found = [differs(*each) for each in _geometry(ours, theirs)]
    texts = [_values(ours.values, values, lossy=lossy, inverted=inverted) for values in options]
    if all(texts):
        text, key = min((each for each in texts if each), key=lambda each: (not each[1], each[0]))
        found.append(differs(text, key))
    return found


def _geometry(ours: Volume, theirs: Volume) -> list[tuple[str, str]]:
    if ours.affine is None or theirs.affine is None:
        return []
    one_slice = ours.values.shape[2] == 1
    a, b = ours.affine, theirs.affine
    ends = np.array([[0, 0, 0], *np.diag(np.maximum(np.array(ours.shape[:3]) - 1, 1))])
    places = [(matrix[:3, :3] @ ends.T).T + matrix[:3, 3] for matrix in (a, b)]
    off = np.linalg.norm(places[0] - places[1], axis=1)
    if off[: 3 if one_slice else 4].max() <= SAME_MM and (not one_slice or off[3] <= SAME_MM):
        return []
    found = []
    spacings = [np.linalg.norm(matrix[:3, :3], axis=0) for matrix in (a, b)]
    if off[0] > SAME_MM:
        found.append((f"origin: ours {_text(a[:3, 3])}, theirs {_text(b[:3, 3])}", ""))
    allowed = np.maximum(SAME_MM / np.maximum(np.array(ours.shape[:3]) - 1, 1), 1e-4 * spacings[0])
    wrong = np.abs(spacings[0] - spacings[1]) > allowed
    if wrong.any():
        only_thickness = one_slice and not wrong[:2].any()
        text = f"spacing: ours {_text(spacings[0])}, theirs {_text(spacings[1])}"
        found.append((text, "thickness-of-one-slice" if only_thickness else ""))
    cosines = [matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0) for matrix in (a, b)]
    if np.abs(cosines[0] - cosines[1]).max() > 1e-3:
        found.append((f"direction: ours {_text(cosines[0].T)}, theirs {_text(cosines[1].T)}", ""))
    return found or [(f"origin: places differ by up to {off.max():.4g} mm", "")]


def _values(ours: np.ndarray, theirs: np.ndarray, *, lossy: bool, inverted: bool) -> tuple[str, str] | None:
    """What differs and the reason, if known; None if they are the same but for the rounding of floats."""
    if same(ours, theirs):
        return None
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    off = np.abs(a - b)
    text = f"values: {np.count_nonzero(off)} of {off.size} differ, by up to {off.max():.6g}"
    text += f"; ours {a.min():.6g} to {a.max():.6g}, theirs {b.min():.6g} to {b.max():.6g}"
    if lossy and off.max() <= max(3.0, 0.02 * float(np.ptp(a))):
        return text, "lossy"
    if np.ptp(b) > 0:
        slope, intercept = np.polyfit(b.ravel(), a.ravel(), 1)
        if np.allclose(b * slope + intercept, a, rtol=1e-5, atol=1e-5 * float(np.abs(a).max())):
            text += f"; ours = theirs * {slope:.6g} + {intercept:.6g}"
            return text, "monochrome1" if inverted and slope < 0 else "other-scale"
    return text, ""


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
