"""The frames of a series: where each lies, what its numbers mean, what tells it from the others.

A classic object is one frame, or one for each tile of its picture; an object of many frames gives
one for each. What an attribute means is decided here; where it is looked for, in attributes.py.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from attributes import FARTHEST_MM, Attributes, as_number, item_of
from objects import UNREADABLE, Header, read_header
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from refusal import Refused
from telling import Told, told_of
from tiles import Tiles, tiles_of

SEGMENTATIONS = {"1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"}
SLIDES = "1.2.840.10008.5.1.4.1.1.77.1.6"
NUCLEAR_MEDICINE = "1.2.840.10008.5.1.4.1.1.20"
RT_DOSE = "1.2.840.10008.5.1.4.1.1.481.2"
MEASURES, VALUES = "PixelMeasuresSequence", "PixelValueTransformationSequence"
SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
FRAME_TIMES = {0x00181063, 0x00181065}  # FrameTime, FrameTimeVector


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One plane of pixels.

    Attributes:
        file, index: where its pixels are; the index counts from 0 in the file.
        tiles, tile: how the picture is cut, and which part of it this plane is.
        number: InstanceNumber, the index, the tile: the order in which it was made.
        position: of the centre of its first pixel, mm, LPS; None if the object has none.
        orientation: direction cosines of its rows, then of its columns.
        in_patient: whether these are of the patient, and not of an ultrasound volume of its own.
        spacing_mm: between rows, between columns.
        distance_mm: to the next slice or, failing that, its thickness, as the header says.
        time_ms: between frames without place; NaN if they are in time, but not evenly.
        pixels: keyword of the element with its pixels.
        slope, intercept: of the rescaling of its stored numbers.
        told: what can tell it from others at the same position.
    """

    file: Path
    index: int
    tiles: Tiles | None
    tile: int
    number: tuple[int, int, int]
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    in_patient: bool
    spacing_mm: tuple[float, ...] | None
    distance_mm: float | None
    time_ms: float | None
    frame_of_reference: str
    rows: int
    columns: int
    samples: int
    palette: bool
    low_is_bright: bool
    bits_allocated: int
    bits_stored: int
    signed: bool
    pixels: str
    slope: float
    intercept: float
    told: Mapping[str, Told]

    @property
    def floating(self) -> bool:
        """Whether its stored numbers are no whole ones."""
        return self.pixels != "PixelData"


def read_frames(files: list[Path]) -> tuple[list[Frame], list[str]]:
    """The frames of all files of a series, in the order of the files; what was left out, in words.

    Raises:
        Refused: a file is no readable DICOM object, belongs to another series, or none is an image.
    """
    if not files:
        raise Refused("there is no file")
    frames: list[Frame] = []
    left_out: list[str] = []
    series = None
    for file in files:
        header = read_header(file)
        ds = header.ds
        try:
            if ds.get("SeriesInstanceUID") != (series or ds.get("SeriesInstanceUID")):
                raise Refused(f"{file.name} is of another series, {ds.get('SeriesInstanceUID')}")
            series = ds.get("SeriesInstanceUID")
            if _is_image(header):
                frames.extend(_frames_of(header))
            else:
                left_out.append(f"{file.name} has no pixels; it is {_class_name(ds)}")
        except UNREADABLE as exc:
            raise Refused(f"{file.name} cannot be read: {type(exc).__name__}: {exc}") from exc
    if not frames:
        raise Refused(left_out[0])
    return frames, left_out


def _class_name(ds: Dataset) -> str:
    sop_class = ds.get("SOPClassUID", "")
    return getattr(sop_class, "name", sop_class) or "of no SOP class"


def _is_image(header: Header) -> bool:
    """Whether the object has pixels; one whose class promises them has lost them if it has none."""
    ds = header.ds
    described = "Rows" in ds and "BitsAllocated" in ds
    if header.pixels and described:
        return True
    if header.pixels or described or "Image" in _class_name(ds):
        raise Refused(
            f"{header.file.name} has no pixels, or nothing that describes them, though it is {_class_name(ds)}"
        )
    return False


def _frames_of(header: Header) -> Iterator[Frame]:
    ds, name = header.ds, header.file.name
    if ds.get("SOPClassUID", "") in SEGMENTATIONS:
        raise Refused(f"{name} is a segmentation, whose frames overlap by segment, and no image")
    if ds.get("SamplesPerPixel", 1) not in (1, 3):
        raise Refused(f"{name} has {ds.SamplesPerPixel} samples per pixel, not 1 or 3")
    bits = (ds.BitsAllocated, ds.get("BitsStored") or ds.BitsAllocated)
    if bits[0] not in (1, 8, 16, 32, 64) or not 0 < bits[1] <= bits[0]:
        raise Refused(f"{name} has BitsAllocated {bits[0]} and BitsStored {bits[1]}, which is not possible here")
    if ds.Rows < 1 or ds.Columns < 1:
        raise Refused(f"{name} has {ds.Columns}x{ds.Rows} pixels")
    if "ModalityLUTSequence" in ds:
        raise Refused(f"{name} has a modality lookup table, which is not supported")
    first = Attributes(ds, index=0, file=header.file)
    number = first.number("NumberOfFrames") or 1.0
    count = int(number)
    if count != number or count < 1:
        raise Refused(f"{name} has {number:g} frames")
    if first.grouped and len(ds.PerFrameFunctionalGroupsSequence) != count:
        raise Refused(f"{name} has {count} frames and {len(ds.PerFrameFunctionalGroupsSequence)} functional groups")
    _check_no_slide(first, count)
    tiles = tiles_of(first)
    time_ms = None
    if count > 1 and _position(first) is None:
        time_ms = _time_ms(ds, first, count)
    for index in range(count):
        at = Attributes(ds, index=index, file=header.file)
        told = told_of(at)
        for tile in range(len(tiles.positions) if tiles else 1):
            yield _frame(header, at, tiles=tiles, tile=tile, count=count, time_ms=time_ms, told=told)


def _check_no_slide(at: Attributes, count: int) -> None:
    tiled = (at.text("DimensionOrganizationType") or "").startswith("TILED")
    tiled |= at.ds.get("SOPClassUID", "") == SLIDES or any(
        item_of(source, "PlanePositionSlideSequence") is not None
        for source in (*at.ds.get("PerFrameFunctionalGroupsSequence", [])[:1], at.ds)
    )
    total = (at.number("TotalPixelMatrixRows") or 0, at.number("TotalPixelMatrixColumns") or 0)
    if tiled and (count > 1 or total[0] > at.ds.Rows or total[1] > at.ds.Columns):
        raise Refused(f"{at.file.name} is a slide in {count} tiles, and no volume")


def _position(at: Attributes) -> tuple[tuple[float, ...], bool] | None:
    """Where a frame of an object of one or many is, and whether in the patient."""
    for keyword, group, in_patient in (
        ("ImagePositionPatient", "PlanePositionSequence", True),
        ("ImagePositionVolume", "PlanePositionVolumeSequence", False),
    ):
        if not at.grouped and not in_patient:
            continue
        found = at.place(keyword, group, count=3)
        if found:
            return found, in_patient
    return None


def _check_own_positions(at: Attributes, count: int) -> None:
    """One position in the object itself is not that of each of its frames."""
    if count == 1 or at.ds.get("SOPClassUID", "") == RT_DOSE:
        return
    grouped = at.grouped and any(
        item_of(source, group) is not None
        for group in ("PlanePositionSequence", "PlanePositionVolumeSequence")
        for source in (
            at.ds.PerFrameFunctionalGroupsSequence[at.index],
            item_of(at.ds, "SharedFunctionalGroupsSequence") or Dataset(),
        )
    )
    if not grouped and ("ImagePositionPatient" in at.ds or at.ds.get("SOPClassUID", "") == NUCLEAR_MEDICINE):
        raise Refused(f"{at.file.name} has {count} frames and does not say where each of them is")


def _time_ms(ds: Dataset, at: Attributes, count: int) -> float:
    """The time between frames without place; NaN if it is not the same between all."""
    _check_own_positions(at, count)
    pointers = ds.get("FrameIncrementPointer")
    pointers = [] if pointers is None else [pointers] if isinstance(pointers, int) else list(pointers)
    if pointers and not FRAME_TIMES & {int(pointer) for pointer in pointers}:
        names = ", ".join(keyword_for_tag(pointer) or str(pointer) for pointer in pointers)
        raise Refused(f"{at.file.name} has {count} frames told apart by {names}, which is neither place nor time")
    vector = at.numbers("FrameTimeVector", count=None) or ()
    step = at.number("FrameTime")
    if step and step > 0 and 0x00181065 not in pointers:
        return step
    if len(vector) == count and min(vector[1:]) > 0:
        return vector[1] if max(vector[1:]) - min(vector[1:]) <= 1e-3 * vector[1] else float("nan")
    indices = [
        Attributes(ds, index=index, file=at.file).number("TemporalPositionIndex", "FrameContentSequence")
        for index in range(count if at.grouped else 0)
    ]
    if indices and indices == [float(number) for number in range(1, count + 1)]:
        return float("nan")
    raise Refused(f"{at.file.name} has {count} frames and says neither where nor when each of them is")


def _frame(
    header: Header,
    at: Attributes,
    *,
    tiles: Tiles | None,
    tile: int,
    count: int,
    time_ms: float | None,
    told: Mapping[str, Told],
) -> Frame:
    ds = header.ds
    place = _position(at)
    position, in_patient = place or (None, True)
    if place:
        _check_own_positions(at, count)
    orientation = at.numbers("ImageOrientationPatient", "PlaneOrientationSequence", count=6)
    if not in_patient:
        orientation = at.numbers("ImageOrientationVolume", "PlaneOrientationVolumeSequence", count=6)
    dose = ds.get("SOPClassUID") == RT_DOSE
    if dose and count > 1 and position and orientation:
        position = _dose_position(at, count, first=position, orientation=orientation)
    palette = ds.get("PhotometricInterpretation") == "PALETTE COLOR"
    bits_stored = int(ds.get("BitsStored") or ds.BitsAllocated)
    return Frame(
        file=header.file,
        index=at.index,
        tiles=tiles,
        tile=tile,
        number=(_whole(at.text("InstanceNumber")), at.index, tile),
        position=tiles.positions[tile] if tiles else position,
        orientation=orientation,
        in_patient=in_patient,
        spacing_mm=next((found for name in SPACINGS if (found := at.place(name, MEASURES, count=2))), None),
        distance_mm=(tiles.distance_mm if tiles else None) or _distance(at),
        time_ms=time_ms,
        frame_of_reference=str(ds.get("FrameOfReferenceUID") or ""),
        rows=int(ds.Rows) // (tiles.down if tiles else 1),
        columns=int(ds.Columns) // (tiles.across if tiles else 1),
        samples=3 if palette else int(ds.get("SamplesPerPixel") or 1),
        low_is_bright=ds.get("PhotometricInterpretation") == "MONOCHROME1",
        palette=palette,
        bits_allocated=int(ds.BitsAllocated),
        bits_stored=bits_stored,
        signed=ds.get("PixelRepresentation") == 1,
        pixels=header.pixels or "",
        slope=at.slope("DoseGridScaling") if dose else at.slope("RescaleSlope", VALUES),
        intercept=0.0 if dose else at.intercept("RescaleIntercept", VALUES),
        told=told,
    )


def _whole(text: str | None) -> int:
    return int(text) if text and text.lstrip("+-").isdecimal() else 0


def _dose_position(
    at: Attributes, count: int, *, first: tuple[float, ...], orientation: tuple[float, ...]
) -> tuple[float, ...]:
    offsets = at.place("GridFrameOffsetVector", count=count)
    if not offsets or offsets[0] != 0:
        raise Refused(f"{at.file.name} has dose planes whose offsets do not begin with 0 or are incomplete")
    a, b = orientation[:3], orientation[3:]
    normal = (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])
    return tuple(start + offsets[at.index] * part for start, part in zip(first, normal, strict=True))


def _distance(at: Attributes) -> float | None:
    for name in ("SpacingBetweenSlices", "SliceThickness"):
        value = as_number(at.text(name, MEASURES) or "")
        if value and abs(value) < FARTHEST_MM:
            return abs(value)
    return None
