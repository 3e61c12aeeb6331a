"""Classic objects whose one picture holds the slices of a volume in tiles, left to right, row by row.

Siemens calls them mosaics, United Imaging VFRAME. An enhanced object is none, whatever it says of
itself: its frames are slices.
"""

import math
from dataclasses import dataclass

import numpy as np
from attributes import Attributes, as_number, private_of, private_tag, text_of
from csa import csa_of
from refusal import Refused

SIEMENS = "SIEMENS MR HEADER"
UNITED_IMAGING = "IMAGE PRIVATE HEADER"


@dataclass(frozen=True)
class Tiles:
    """How the picture is cut.

    Attributes:
        across, down: number of tiles in a row and in a column of the picture.
        positions: of each slice, mm, LPS: the centre of the first pixel of its tile.
        distance_mm: between slices, if the header says it.
        notes: what a reader should know.
    """

    across: int
    down: int
    positions: list[tuple[float, ...]]
    distance_mm: float | None
    notes: tuple[str, ...] = ()


def tiles_of(at: Attributes) -> Tiles | None:
    """How a picture is cut into slices; None if it is one slice.

    Raises:
        Refused: it says that it is tiled, but not all that it takes to place the slices.
    """
    if at.grouped or int(at.number("NumberOfFrames") or 1) > 1:
        return None
    kinds = (at.text("ImageType") or "").upper().split("\\")
    united = private_of(at.ds, 0x0065, UNITED_IMAGING, 0x50)
    siemens = private_of(at.ds, 0x0019, SIEMENS, 0x0A)
    if "VFRAME" in kinds or (united and as_number(united) != 1):
        return _united(at, united)
    csa = csa_of(at.ds) if "MOSAIC" in kinds or siemens else {}
    counts = {text for text in (siemens, *csa.get("NumberOfImagesInMosaic", [])) if text and as_number(text)}
    if "MOSAIC" in kinds:
        return _siemens(at, counts, csa.get("SliceNormalVector", []))
    if any(as_number(text) != 1 for text in counts):
        raise Refused(
            f"{at.file.name} has {counts.pop()} tiles as its private header says, but its ImageType does not say MOSAIC"
        )
    return None


def _siemens(at: Attributes, counts: set[str], normal_text: list[str]) -> Tiles:
    numbers = {as_number(text) for text in counts}
    count = next(iter(numbers), None)
    if len(numbers) != 1 or count is None or count < 1 or not count.is_integer():
        said = " and ".join(sorted(counts)) or "nowhere"
        raise Refused(f"{at.file.name} is a mosaic (ImageType), and its number of slices is said as {said}")
    across = math.ceil(math.sqrt(count))
    position, orientation, spacing = _plane(at)
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    distance = at.number("SpacingBetweenSlices")
    if not distance:
        raise Refused(f"{at.file.name} is a mosaic without SpacingBetweenSlices: where its slices are is unknown")
    width, height = int(at.ds.Columns) // across, int(at.ds.Rows) // across
    _check_cut(at, across, across)
    normal, notes = _direction(at, np.cross(row, column), normal_text)
    # The position is that of a slice as large as the whole picture, with the same centre.
    shift = (across - 1) / 2 * (row * width * spacing[1] + column * height * spacing[0])
    first = np.array(position) + shift
    positions = [tuple(float(each) for each in first + number * abs(distance) * normal) for number in range(int(count))]
    return Tiles(across, across, positions, abs(distance), notes)


def _direction(at: Attributes, normal: np.ndarray, text: list[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """The direction from the first tile to the next, a unit vector along the normal of the plane."""
    if text:
        said = [as_number(part) for part in text[:3]]
        if len(said) != 3 or None in said:
            raise Refused(f"SliceNormalVector of {at.file.name} is {text}, not 3 numbers")
        along = float(np.array(said, float) @ normal)
        if abs(along) < 0.99:
            raise Refused(f"SliceNormalVector of {at.file.name}, {text}, is not the normal of its plane")
        return normal * (1 if along > 0 else -1), ()
    if normal[2] > 0.5:  # scanners number such slices from the feet to the head unless told otherwise
        return normal, ("no SliceNormalVector: slices taken to go from feet to head",)
    raise Refused(f"{at.file.name} is a mosaic whose CSA header has no SliceNormalVector: which way it goes is unknown")


def _united(at: Attributes, count_text: str | None) -> Tiles:
    count = as_number(count_text or "")
    tag = private_tag(at.ds, 0x0065, UNITED_IMAGING, 0x51)
    items = at.ds[tag].value if tag is not None and tag in at.ds and at.ds[tag].VR == "SQ" else []
    if not count or not count.is_integer() or len(items) != count:
        raise Refused(
            f"{at.file.name} is a volume in tiles (VFRAME) of {count_text or 'no'} slices; it places {len(items)}"
        )
    positions = []
    for number, item in enumerate(items, 1):
        said = [as_number(part) for part in (text_of(item, "ImagePositionPatient") or "").split("\\")]
        if len(said) != 3 or any(each is None for each in said):
            raise Refused(f"{at.file.name} does not say where slice {number} of its {len(items)} tiles is")
        positions.append(tuple(float(each or 0) for each in said))
    across = math.ceil(math.sqrt(count))
    down = math.ceil(count / across)
    _check_cut(at, across, down)
    return Tiles(across, down, positions, None)


def _plane(at: Attributes) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
    position = at.place("ImagePositionPatient", count=3)
    orientation = at.numbers("ImageOrientationPatient", count=6)
    spacing = at.place("PixelSpacing", count=2)
    if not position or not orientation or not spacing:
        raise Refused(f"{at.file.name} is a mosaic without position, orientation or pixel spacing")
    return position, orientation, spacing


def _check_cut(at: Attributes, across: int, down: int) -> None:
    if int(at.ds.Columns) % across or int(at.ds.Rows) % down:
        raise Refused(f"{at.file.name}: {at.ds.Columns}x{at.ds.Rows} pixels are not {across}x{down} tiles")


def is_empty_after(picture: np.ndarray, *, across: int, down: int, count: int) -> bool:
    """Whether the tiles after the last slice are of one value, as if nothing was drawn there."""
    height, width = picture.shape[0] // down, picture.shape[1] // across
    rest = []
    for number in range(count, across * down):
        top, left = number // across * height, number % across * width
        rest.append(picture[top : top + height, left : left + width])
    return all(np.unique(tile).size <= 1 for tile in rest)
