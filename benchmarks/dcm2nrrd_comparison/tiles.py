"""Pictures whose tiles are the slices of a volume: mosaics of Siemens and grids of United Imaging."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

ENHANCED = "SharedFunctionalGroupsSequence"


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """How a picture is cut: tiles across and down, how many are slices, and the position of each (mm, LPS)."""

    across: int
    down: int
    count: int
    positions: list[np.ndarray]


def tiles_of(ds: Dataset) -> Tiles | None:
    """The tiles of a picture; None if it is a plane like any other."""
    if ENHANCED in ds or int(ds.get("NumberOfFrames") or 1) > 1 or "ImageOrientationPatient" not in ds:
        return None
    return _siemens(ds) or _united_imaging(ds)


def _siemens(ds: Dataset) -> Tiles | None:
    if "MOSAIC" not in [str(each) for each in ds.get("ImageType") or []]:
        return None
    header = csa(_private(ds, 0x0029, "SIEMENS CSA HEADER", 0x10))
    said = _private(ds, 0x0019, "SIEMENS MR HEADER", 0x0A) or next(iter(header.get("NumberOfImagesInMosaic", [])), None)
    if not said:
        return None
    count = int(said)
    across = math.ceil(math.sqrt(count))
    row, column = (
        np.array([float(each) for each in part]) for part in np.split(np.array(ds.ImageOrientationPatient), 2)
    )
    normal = np.cross(row, column)
    if len(header.get("SliceNormalVector", [])) == 3 and normal @ [float(x) for x in header["SliceNormalVector"]] < 0:
        normal = -normal
    down_mm, across_mm = (float(each) for each in ds.PixelSpacing)
    # The position of the header is that of a slice as large as the whole picture around the same centre.
    first = np.array([float(each) for each in ds.ImagePositionPatient])
    first += row * across_mm * (ds.Columns - ds.Columns // across) / 2
    first += column * down_mm * (ds.Rows - ds.Rows // across) / 2
    distance = float(ds.get("SpacingBetweenSlices") or ds.SliceThickness)
    return Tiles(
        across=across, down=across, count=count, positions=[first + normal * distance * each for each in range(count)]
    )


def _united_imaging(ds: Dataset) -> Tiles | None:
    count = int(float(_private(ds, 0x0065, "Image Private Header", 0x50) or 0))
    slices: Any = _private(ds, 0x0065, "Image Private Header", 0x51)
    if count < 2 or not slices:
        return None
    across = math.ceil(math.sqrt(count))
    positions = [np.array([float(each) for each in item.ImagePositionPatient]) for item in slices]
    if len(positions) < count:
        return None
    return Tiles(across=across, down=math.ceil(count / across), count=count, positions=positions[:count])


def _private(ds: Dataset, group: int, creator: str, element: int) -> Any:  # noqa: ANN401  (of any VR)
    try:
        return ds.private_block(group, creator)[element].value
    except KeyError:
        return None


def csa(data: object) -> dict[str, list[str]]:
    """The tags of Siemens' CSA header of the second kind (SV10); empty for any other bytes."""
    if not isinstance(data, bytes) or not data.startswith(b"SV10"):
        return {}
    found: dict[str, list[str]] = {}
    at = 16
    for _ in range(struct.unpack_from("<I", data, 8)[0]):
        name = data[at : at + 64].split(b"\0")[0].decode("latin-1")
        items = struct.unpack_from("<I", data, at + 76)[0]
        at += 84
        values = []
        for _ in range(items):
            length = struct.unpack_from("<I", data, at + 4)[0]
            values.append(data[at + 16 : at + 16 + length].split(b"\0")[0].decode("latin-1").strip())
            at += 16 + (length + 3) // 4 * 4
        found[name] = [value for value in values if value]
    return found
