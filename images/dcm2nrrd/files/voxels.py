"""Pixels of one frame, as the numbers that they mean."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import pydicom
from frames import Frame, Refused
from pydicom.pixels import apply_color_lut


def output_type(frames: list[Frame]) -> np.dtype:
    """One type that holds every value that the frames can have.

    Whole numbers stay whole: the stored type where the rescaled range fits, else the smallest that
    fits. With a slope or intercept that is not whole: float32, or float64 for more than 16 bits.
    """
    if any(frame.floating for frame in frames):
        return np.dtype(np.float64 if any(frame.bits_allocated > 32 for frame in frames) else np.float32)
    stored = np.dtype(f"{'i' if frames[0].signed else 'u'}{max(1, frames[0].bits_allocated // 8)}")
    if frames[0].samples > 1:
        # The entries of a palette have 8 or 16 bits, whatever the bits of their indices.
        return _decoded(frames[0].file).dtype if frames[0].palette else stored
    if any(not frame.slope.is_integer() or not frame.intercept.is_integer() for frame in frames):
        return np.dtype(np.float32 if max(frame.bits_stored for frame in frames) <= 16 else np.float64)
    ends = [end for frame in frames for end in _range(frame)]
    for dtype in (stored, *map(np.dtype, (np.int16, np.uint16, np.int32, np.uint32, np.int64))):
        if np.iinfo(dtype).min <= min(ends) and max(ends) <= np.iinfo(dtype).max:
            return dtype
    raise Refused(f"values from {min(ends)} to {max(ends)} fit no type of whole numbers")


def rescaled(frame: Frame, dtype: np.dtype) -> np.ndarray:
    """The pixels of a frame with its own slope and intercept: rows, columns and, for RGB, samples.

    Raises:
        Refused: they cannot be decoded, or are not what the header says.
    """
    pixels = _decoded(frame.file)
    if frame.samples == 1:
        pixels = pixels.reshape(-1, frame.rows, frame.columns)[frame.index]
    else:
        pixels = pixels.reshape(-1, frame.rows, frame.columns, 3)[frame.index]
    if frame.samples > 1 or (frame.slope == 1 and frame.intercept == 0):
        values = pixels
    elif dtype.kind == "f":
        values = pixels.astype(np.float64) * frame.slope + frame.intercept
    else:
        values = pixels.astype(np.int64) * int(frame.slope) + int(frame.intercept)
    if dtype.kind != "f" and values.dtype != dtype:
        low, high = int(values.min()), int(values.max())
        if low < np.iinfo(dtype).min or high > np.iinfo(dtype).max:
            raise Refused(f"{frame.file.name} has values from {low} to {high}, more than its header says")
    return values.astype(dtype, copy=False)


def _range(frame: Frame) -> tuple[int, int]:
    low = -(1 << (frame.bits_stored - 1)) if frame.signed else 0
    high = (1 << (frame.bits_stored - int(frame.signed))) - 1
    ends = [int(frame.slope) * end + int(frame.intercept) for end in (low, high)]
    return min(ends), max(ends)


@lru_cache(maxsize=2)  # the frames of one object follow each other
def _decoded(file: Path) -> np.ndarray:
    try:
        ds = pydicom.dcmread(file)
        pixels = ds.pixel_array
        return apply_color_lut(pixels, ds) if ds.PhotometricInterpretation == "PALETTE COLOR" else pixels
    except (RuntimeError, ValueError, NotImplementedError, AttributeError, TypeError, LookupError, OSError) as exc:
        raise Refused(f"the pixels of {file.name} cannot be decoded: {type(exc).__name__}: {exc}") from exc
