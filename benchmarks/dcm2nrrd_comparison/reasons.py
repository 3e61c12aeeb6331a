"""Why values of another program differ, where that can be shown from the values themselves.

Each key stands in a table of docs/dcm2nrrd.md with what it means. A key is given only when the
reason accounts for every voxel.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

OTHER_SCALE = "other-scale"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the images of a series say that can be a reason.

    Attributes:
        lossy: compressed so that decoders may differ by rounding.
        dose: an RT Dose, whose planes have offsets.
        photometric: Photometric Interpretations of all planes.
        bits_stored: of a pixel; 0 if planes differ.
        stored: for a volume's name its pixels as stored, before the modality transform.
        lowest: the same, from the lowest bits whatever HighBit says.
    """

    lossy: bool = False
    dose: bool = False
    photometric: frozenset[str] = frozenset()
    bits_stored: int = 0
    stored: dict[str, np.ndarray] = field(default_factory=dict)
    lowest: dict[str, np.ndarray] = field(default_factory=dict)


def shape_reason(ours: np.ndarray, theirs: np.ndarray, facts: Facts) -> str:
    """The key for an array of another shape; empty if no reason is known."""
    if ours.ndim == 4 and theirs.ndim == 3 and ours.shape[:3] == theirs.shape:
        if "PALETTE COLOR" in facts.photometric:
            return "palette"
        return "colour-of-more-than-8-bits" if ours.dtype.itemsize > 1 else ""
    return ""


def value_reason(ours: np.ndarray, theirs: np.ndarray, facts: Facts, name: str) -> tuple[str, str]:
    """The key for other values, and numbers that belong to it; empty if no reason is known."""
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    if facts.lossy and _is_rounding(np.abs(a - b), float(np.ptp(a)), colour=ours.ndim == 4):
        return "lossy", ""
    stored = facts.stored.get(name)
    if stored is not None and np.array_equal(stored, theirs):
        return "stored-values", ""
    if stored is not None and np.array_equal(facts.lowest[name], theirs):
        return "high-bit", "; theirs are the lowest bits"
    if facts.dose and stored is not None and np.array_equal(stored[:, :, ::-1], theirs):
        return "dose-planes", "; theirs are those stored, from the last plane to the first"
    if stored is not None and stored.ndim == 3 and _is_line(stored, b) and not _is_line(stored, a):
        return "one-rescale", "; theirs have one slope and intercept for all planes"
    if "PALETTE COLOR" in facts.photometric and np.array_equal(np.right_shift(ours, 8), theirs):
        return "palette", "; ours = theirs * 256"
    if facts.bits_stored and np.all((a - b) % 2**facts.bits_stored == 0):
        return "sign", f"; multiples of {2**facts.bits_stored}"
    if _same_bytes(ours if stored is None else stored, theirs):
        return "byte-order", "; the same bytes in another order"
    return _scale(a, b, facts)


def _is_rounding(off: np.ndarray, range_: float, *, colour: bool) -> bool:
    if off.max() <= max(3.0, 0.03 * range_):
        return True
    # Colours of half the resolution are doubled by some decoders and interpolated by others.
    return colour and bool(off.max() <= 0.1 * range_ and off.mean() <= 0.005 * range_)


def _same_bytes(ours: np.ndarray, theirs: np.ndarray) -> bool:
    if ours.dtype.kind not in "iu" or ours.dtype.itemsize != theirs.dtype.itemsize:
        return False
    # An odd length has a padding byte, which changes places with the last one.
    return all(
        np.abs(_byte_counts(ours[:, :, number]) - _byte_counts(theirs[:, :, number])).sum() <= 2
        for number in range(ours.shape[2])
    )


def _byte_counts(plane: np.ndarray) -> np.ndarray:
    return np.bincount(np.ascontiguousarray(plane).view(np.uint8).ravel(), minlength=256)


def _is_line(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether one slope and intercept make b of a."""
    if not np.isfinite(a).all() or not np.isfinite(b).all() or np.ptp(a) == 0 or np.ptp(b) == 0:
        return False
    a = a.astype(np.float64)
    slope, intercept = np.polyfit(a.ravel(), b.ravel(), 1)
    return bool(np.allclose(a * slope + intercept, b, rtol=1e-5, atol=1e-5 * float(np.abs(b).max())))


def _scale(a: np.ndarray, b: np.ndarray, facts: Facts) -> tuple[str, str]:
    if not _is_line(b, a):
        return "", ""
    slope, intercept = np.polyfit(b.ravel(), a.ravel(), 1)
    inverted = slope < 0 and "MONOCHROME1" in facts.photometric
    return "monochrome1" if inverted else OTHER_SCALE, f"; ours = theirs * {slope:.6g} + {intercept:.6g}"
