"""A small picture of a DICOM object for people to look at; never input to anything."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi
from pydicom.pixels.utils import pixel_array

from kaapana_assets.dicom.headers import PYDICOM_ERRORS, pydicom_quiet
from kaapana_assets.errors import UnreadableDicom

_PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


def preview_png(path: Path, *, size: int = 128) -> bytes | None:
    """A PNG of the object, of its middle frame if it has several; None if it has no pixels.

    Grey values are shown through the window or VOI LUT of the header, else between the 1st and 99th
    percentile. MONOCHROME1 is inverted, so that bright is more.

    Args:
        path: of any transfer syntax that the installed decoders of pydicom can read.
        size: longest side of the picture, in pixels.

    Raises:
        UnreadableDicom: the file cannot be read or its pixels cannot be decoded.

    References:
        PS3.3 C.11.2 (VOI LUT), C.7.6.3.1.2 (photometric interpretation).
    """
    from PIL import Image

    try:
        with pydicom_quiet():
            ds = pydicom.dcmread(path, force=True)
            if not any(keyword in ds for keyword in _PIXEL_KEYWORDS):
                return None
            pixels = _displayed(ds)
            picture = Image.fromarray(pixels)
    # RuntimeError is what the decoders' plugins let out.
    except (*PYDICOM_ERRORS, RuntimeError) as exc:
        raise UnreadableDicom(f"{path}: no preview ({type(exc).__name__}: {str(exc)[:200]})") from exc
    picture.thumbnail((size, size))
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return file.getvalue()


def _displayed(ds: Dataset) -> npt.NDArray[Any]:
    """The middle frame as 8-bit grey (rows, columns) or RGB (rows, columns, 3)."""
    frames = max(1, int(ds.get("NumberOfFrames") or 1))
    frame = pixel_array(ds, index=frames // 2)
    interpretation = str(ds.get("PhotometricInterpretation", "MONOCHROME2"))
    if interpretation == "PALETTE COLOR":
        frame = apply_color_lut(frame, ds)
    if frame.ndim == 3:
        return _to_bytes(frame[..., :3], low=0.0, high=255.0 if frame.dtype == np.uint8 else float(frame.max() or 1))
    values = apply_modality_lut(frame, ds)
    window = _window(ds)
    if "VOILUTSequence" in ds and np.issubdtype(values.dtype, np.integer):
        values = apply_voi(values, ds)
        low, high = float(values.min()), float(values.max())
    elif window is not None:
        low, high = window
    else:
        low, high = (float(bound) for bound in np.percentile(values, (1, 99)))
    grey = _to_bytes(values, low=low, high=high)
    return 255 - grey if interpretation == "MONOCHROME1" else grey


def _window(ds: Dataset) -> tuple[float, float] | None:
    """Lowest and highest value of the first window of a header (PS3.3 C.11.2.1.2.1)."""
    bounds = []
    for keyword in ("WindowCenter", "WindowWidth"):
        value = ds.get(keyword)
        value = value[0] if isinstance(value, Sequence) and not isinstance(value, str) and value else value
        try:
            bounds.append(float(value))
        except (TypeError, ValueError):
            return None
    center, width = bounds
    return (center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2) if width >= 1 else None


def _to_bytes(values: npt.NDArray[Any], *, low: float, high: float) -> npt.NDArray[Any]:
    scaled = (np.nan_to_num(values.astype(np.float64)) - low) * (255.0 / (high - low) if high > low else 0.0)
    return np.clip(scaled, 0, 255).astype(np.uint8)
