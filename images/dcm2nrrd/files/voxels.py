"""Pixels of one frame, as the numbers that they mean."""

from functools import lru_cache
from pathlib import Path

import numpy as np
from frames import Frame
from objects import UNREADABLE, read_pixels
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut
from pydicom.uid import RLELossless
from refusal import Refused
from tiles import is_empty_after

WHOLE = tuple(map(np.dtype, (np.int16, np.uint16, np.int32, np.uint32, np.int64)))


def output_type(frames: list[Frame]) -> np.dtype:
    """One type that holds every value that the frames can have.

    Whole numbers stay whole: the stored type where the rescaled range fits, else the smallest that
    fits. With a slope or intercept that is not whole: float32, or float64 for more than 16 bits.
    """
    if any(frame.floating for frame in frames):
        wide = any(frame.pixels == "DoubleFloatPixelData" or _is_wide(frame) for frame in frames)
        return np.dtype(np.float64 if wide else np.float32)
    stored = {_stored(frame) for frame in frames}
    if frames[0].samples > 1:
        # The entries of a palette have 8 or 16 bits, whatever the bits of their indices.
        types = {_decoded(frame.file).dtype for frame in frames} if frames[0].palette else stored
        if len(types) > 1:
            raise Refused(f"colours of mixed types: {', '.join(sorted(map(str, types)))}")
        return types.pop()
    if any(not frame.slope.is_integer() or not frame.intercept.is_integer() for frame in frames):
        wide = any(_is_wide(frame) for frame in frames)
        return np.dtype(np.float64 if wide else np.float32)
    ends = [end for frame in frames for end in _range(frame)]
    for dtype in (*(stored if len(stored) == 1 else ()), *WHOLE):
        if np.iinfo(dtype).min <= min(ends) and max(ends) <= np.iinfo(dtype).max:
            return dtype
    raise Refused(f"values from {min(ends)} to {max(ends)} fit no type of whole numbers")


def rescaled(frame: Frame, dtype: np.dtype) -> np.ndarray:
    """The pixels of a frame with its own slope and intercept: rows, columns and, for RGB, samples.

    Raises:
        Refused: they cannot be decoded, or are not what the header says.
    """
    pixels = _plane(frame)
    if frame.samples > 1 or (frame.slope == 1 and frame.intercept == 0):
        values = pixels
    elif dtype.kind == "f":
        values = pixels.astype(np.float64) * frame.slope + frame.intercept
    else:
        values = pixels.astype(np.int64) * int(frame.slope) + int(frame.intercept)
    if dtype.kind != "f" and values.dtype != dtype:
        if values.dtype.kind == "f":
            raise Refused(f"the pixels of {frame.file.name} are {values.dtype} where its header says whole numbers")
        low, high = int(values.min()), int(values.max())
        if low < np.iinfo(dtype).min or high > np.iinfo(dtype).max:
            raise Refused(f"{frame.file.name} has values from {low} to {high}, more than its header says")
    with np.errstate(over="ignore"):
        cast = values.astype(dtype, copy=False)
    if cast.dtype.kind == "f" and (np.isfinite(values) & ~np.isfinite(cast)).any():
        raise Refused(f"{frame.file.name} has values that {dtype} cannot hold")
    return cast


def _plane(frame: Frame) -> np.ndarray:
    pixels = _decoded(frame.file)
    tiles = frame.tiles
    down, across = (tiles.down, tiles.across) if tiles else (1, 1)
    shape = (frame.rows * down, frame.columns * across, *((3,) if frame.samples > 1 else ()))
    frames, rest = divmod(pixels.size, int(np.prod(shape)))
    if rest or frames <= frame.index:
        raise Refused(f"the pixels of {frame.file.name} are not the {shape[1]}x{shape[0]} that its header says")
    picture = pixels.reshape(-1, *shape)[frame.index]
    if tiles is None:
        return picture
    if frame.tile == 0 and not is_empty_after(picture, across=across, down=down, count=len(tiles.positions)):
        raise Refused(f"{frame.file.name} has pixels in more tiles than the {len(tiles.positions)} that it says")
    top, left = frame.tile // across * frame.rows, frame.tile % across * frame.columns
    return picture[top : top + frame.rows, left : left + frame.columns]


def _stored(frame: Frame) -> np.dtype:
    return np.dtype(f"{'i' if frame.signed else 'u'}{max(1, frame.bits_allocated // 8)}")


def _is_wide(frame: Frame) -> bool:
    """Whether its stored whole numbers are more than float32 holds exactly."""
    return not frame.floating and frame.bits_stored > 16


def _range(frame: Frame) -> tuple[int, int]:
    low = -(1 << (frame.bits_stored - 1)) if frame.signed else 0
    high = (1 << (frame.bits_stored - int(frame.signed))) - 1
    ends = [int(frame.slope) * end + int(frame.intercept) for end in (low, high)]
    return min(ends), max(ends)


@lru_cache(maxsize=2)  # the frames of one object follow each other
def _decoded(file: Path) -> np.ndarray:
    try:
        ds = read_pixels(file)
        if "PixelData" not in ds:  # floating point, which has no bits to choose
            return ds.pixel_array
        if ds.PhotometricInterpretation == "PALETTE COLOR":
            return apply_color_lut(ds.pixel_array, ds)
        shift = _shift(ds, file)
        return ds.pixel_array >> shift if shift else ds.pixel_array
    except UNREADABLE as exc:
        raise Refused(f"the pixels of {file.name} cannot be decoded: {type(exc).__name__}: {exc}") from exc


def _shift(ds: Dataset, file: Path) -> int:
    """By how many bits values are above the lowest (PS3.5 8.1.1); makes the object say that all are stored."""
    stored = int(ds.get("BitsStored") or ds.BitsAllocated)
    high = stored - 1 if ds.get("HighBit") is None else int(ds.HighBit)
    shift = high + 1 - stored
    if not shift:
        return 0
    syntax = ds.file_meta.TransferSyntaxUID
    said = f"HighBit of {file.name} is {high}, with {stored} of {ds.BitsAllocated} bits stored"
    if not 0 < shift <= int(ds.BitsAllocated) - stored:
        raise Refused(f"{said}, which cannot be")
    if ds.get("SamplesPerPixel", 1) > 1 or (syntax.is_encapsulated and syntax != RLELossless):
        raise Refused(f"{said}, which is supported for uncompressed grey pixels only")
    ds.BitsStored = high + 1
    return shift
