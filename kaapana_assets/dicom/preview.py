"""Renders a small PNG of a DICOM object, for people only: nothing computes with it."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    HTJ2K,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
)

from kaapana_assets.dicom.frame_size import decoded_size_bytes
from kaapana_assets.dicom.headers import PYDICOM_ERRORS, captured_pydicom_warnings, open_dicom
from kaapana_assets.dicom.limits import DEFAULT_LIMITS, ReadingLimits
from kaapana_assets.dicom.preview_process import preview_in_subprocess
from kaapana_assets.errors import OverLimit, UnreadableDicom

_PIXEL_TAGS = frozenset((0x7FE00008, 0x7FE00009, 0x7FE00010))
_OVERSAMPLING = 8
_DECODED_BY_LIBRARIES = frozenset(
    (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes, *JPEG2000TransferSyntaxes, HTJ2K, HTJ2KLossless, HTJ2KLosslessRPCL)
)


def preview_png(path: Path, *, size: int = 128, limits: ReadingLimits = DEFAULT_LIMITS) -> bytes | None:
    """A PNG of the object's middle frame; None if the object has no pixel data.

    Grey values pass through the VOI LUT or window of the header, or else are scaled between the 1st
    and 99th percentile. MONOCHROME1 is inverted, so that bright means a high value. Only the middle
    frame is read. It is decoded only if both the DICOM header and the header of the compressed frame
    state a size within the limits. A transfer syntax that C and C++ libraries decode (the JPEG family)
    is decoded in a subprocess.

    Args:
        path: in any transfer syntax that pydicom's installed decoders can read.
        size: longest side of the PNG, in pixels.
        limits: for the file and the decoded frame.

    Raises:
        UnreadableDicom: the file cannot be read or its pixel data cannot be decoded.
        OverLimit: the frame exceeds ``limits``.

    References:
        PS3.3 C.11.2 (VOI LUT), C.7.6.3.1.2 (photometric interpretation).
    """
    return _preview(path, size=size, limits=limits, in_subprocess=True)


def decoded_preview(path: Path, *, size: int, limits: ReadingLimits) -> bytes | None:
    """Like ``preview_png``, but decodes in this process.

    Raises:
        UnreadableDicom, OverLimit: as for ``preview_png``.
    """
    return _preview(path, size=size, limits=limits, in_subprocess=False)


def _preview(path: Path, *, size: int, limits: ReadingLimits, in_subprocess: bool) -> bytes | None:
    from PIL import Image

    try:
        with captured_pydicom_warnings(), open_dicom(path, limits=limits) as file:
            header = pydicom.dcmread(file, stop_before_pixels=True, force=True)
            if in_subprocess and _is_decoded_by_libraries(UID(str(header.file_meta.get("TransferSyntaxUID", "")))):
                return preview_in_subprocess(path, size=size, limits=limits)
            frame = _middle_frame(file, header, path=path, limit_bytes=limits.preview_bytes)
            if frame is None:
                return None
            picture = Image.fromarray(_displayed(_thinned(frame, size), header))
    # The decoder plugins raise RuntimeError.
    except (UnreadableDicom, *PYDICOM_ERRORS, RuntimeError) as exc:
        if isinstance(exc, OverLimit):
            raise
        raise UnreadableDicom(f"{path}: no preview ({type(exc).__name__}: {str(exc)[:200]})") from exc
    picture.thumbnail((size, size))
    png = io.BytesIO()
    picture.save(png, format="PNG")
    return png.getvalue()


def _is_decoded_by_libraries(syntax: UID) -> bool:
    """Whether a library other than pydicom and numpy decodes this transfer syntax."""
    return syntax in _DECODED_BY_LIBRARIES


def _middle_frame(file: BinaryIO, header: Dataset, *, path: Path, limit_bytes: int) -> npt.NDArray[Any] | None:
    """The decoded middle frame; None if the object has no pixel data.

    Args:
        file: positioned at the pixel data.
        header: all attributes before the pixel data.
        path: named in errors.
        limit_bytes: limit for the decoded frame.
    """
    is_deflated = header.buffer is not None
    source = cast("BinaryIO", header.buffer) if is_deflated else file
    head = source.read(12)
    group, element = struct.unpack(">HH" if header.original_encoding[1] is False else "<HH", head[:4].ljust(4, b"\0"))
    if group << 16 | element not in _PIXEL_TAGS:
        return None
    frames = max(1, int(header.get("NumberOfFrames") or 1))
    index = frames // 2
    size = int(header.Rows) * int(header.Columns) * int(header.get("SamplesPerPixel") or 1)
    _check(size * -(-int(header.BitsAllocated) // 8), path, limit_bytes)
    syntax = UID(header.file_meta.TransferSyntaxUID)
    if syntax.is_encapsulated:
        encoded = get_frame(file, index, number_of_frames=frames)
        _check(len(encoded), path, limit_bytes)
        _check(decoded_size_bytes(encoded, syntax, limit=limit_bytes), path, limit_bytes)
    if is_deflated:
        return pixel_array(pydicom.dcmread(path), index=index)
    file.seek(0)
    return pixel_array(file, index=index)


def _check(size_bytes: int, path: Path, limit_bytes: int) -> None:
    if size_bytes > limit_bytes:
        raise OverLimit(f"{path}: no preview: a frame of {size_bytes} bytes, KAAPANA_PREVIEW_BYTES is {limit_bytes}")


def _thinned(frame: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    """Every n-th pixel of a frame much larger than the PNG: the next steps take ten times its memory."""
    step = max(1, max(frame.shape[:2]) // (_OVERSAMPLING * size))
    return frame[::step, ::step]


def _displayed(frame: npt.NDArray[Any], ds: Dataset) -> npt.NDArray[Any]:
    """The frame as 8-bit grey (rows, columns) or RGB (rows, columns, 3)."""
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
    """The bounds of the first window in the header (PS3.3 C.11.2.1.2.1); None without one."""
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
