"""The frames of a series: where each lies, what its numbers mean, what tells it from the others.

A classic object is one frame; an object of many frames gives one for each, with what its
functional groups say (PS3.3 C.7.6.16).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

SEGMENTATIONS = {"1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"}
NUCLEAR_MEDICINE = "1.2.840.10008.5.1.4.1.1.20"
RT_DOSE = "1.2.840.10008.5.1.4.1.1.481.2"
SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
# What can tell volumes at the same positions apart; the frame's own groups come first.
IDENTITY = (
    ("FrameContentSequence", ("TemporalPositionIndex", "StackID")),
    ("MREchoSequence", ("EffectiveEchoTime",)),
    ("MRDiffusionSequence", ("DiffusionBValue", "DiffusionDirectionality")),
    ("MRImageFrameTypeSequence", ("FrameType",)),
    ("CTImageFrameTypeSequence", ("FrameType",)),
    (
        "",
        (
            "TemporalPositionIdentifier",
            "AcquisitionNumber",
            "EchoTime",
            "TriggerTime",
            "DiffusionBValue",
            "DiffusionGradientOrientation",
            "ImageType",
            "FrameReferenceTime",
            "ContentTime",
        ),
    ),
)


class Refused(Exception):
    """The series cannot be written without saying something untrue."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One plane of pixels.

    Attributes:
        file, index: where its pixels are; the index counts from 0 in the file.
        number: InstanceNumber, then the index: the order in which it was made.
        position: of the centre of its first pixel, mm, LPS; None if the object has none.
        orientation: direction cosines of its rows, then of its columns.
        spacing_mm: between rows, between columns.
        distance_mm: to the next slice or, failing that, its thickness, as the header says.
        frame_time_ms: between frames of a plain multi-frame object.
        slope, intercept: of the rescaling of its stored numbers.
        identity: what can tell it from others at the same position.
    """

    file: Path
    index: int
    number: tuple[int, int]
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    spacing_mm: tuple[float, ...] | None
    distance_mm: float | None
    frame_time_ms: float | None
    frame_of_reference: str
    rows: int
    columns: int
    samples: int
    palette: bool
    low_is_bright: bool
    bits_allocated: int
    bits_stored: int
    signed: bool
    floating: bool
    slope: float
    intercept: float
    identity: tuple[tuple[str, str], ...]


def read_frames(files: list[Path]) -> list[Frame]:
    """The frames of all files of a series, in the order of the files.

    Raises:
        Refused: a file is no readable DICOM image, or belongs to another series.
    """
    if not files:
        raise Refused("there is no file")
    frames: list[Frame] = []
    series = None
    for file in files:
        try:
            ds = pydicom.dcmread(file, stop_before_pixels=True)
            if ds.get("SeriesInstanceUID") != (series or ds.get("SeriesInstanceUID")):
                raise Refused(f"{file.name} is of another series, {ds.get('SeriesInstanceUID')}")
            series = ds.get("SeriesInstanceUID")
            frames.extend(_frames_of(ds, file))
        except InvalidDicomError as exc:
            raise Refused(f"{file.name} is not a DICOM file") from exc
        except (
            AttributeError,
            ValueError,
            TypeError,
            KeyError,
            IndexError,
            EOFError,
            struct.error,
            OSError,
            NotImplementedError,
        ) as exc:
            raise Refused(f"{file.name} cannot be read: {type(exc).__name__}: {exc}") from exc
    return frames


def _frames_of(ds: Dataset, file: Path) -> Iterator[Frame]:
    sop_class = ds.get("SOPClassUID", "")
    if sop_class in SEGMENTATIONS:
        raise Refused(f"{file.name} is a segmentation, whose frames overlap by segment, and no image")
    if "Rows" not in ds or "BitsAllocated" not in ds:
        raise Refused(f"{file.name} has no pixels; it is {getattr(sop_class, 'name', sop_class) or 'of no SOP class'}")
    if ds.get("SamplesPerPixel", 1) not in (1, 3):
        raise Refused(f"{file.name} has {ds.SamplesPerPixel} samples per pixel, not 1 or 3")
    if "ModalityLUTSequence" in ds:
        raise Refused(f"{file.name} has a modality lookup table, which is not supported")
    count = int(ds.get("NumberOfFrames") or 1)
    enhanced = "PerFrameFunctionalGroupsSequence" in ds
    if enhanced and len(ds.PerFrameFunctionalGroupsSequence) != count:
        raise Refused(
            f"{file.name} has {count} frames and {len(ds.PerFrameFunctionalGroupsSequence)} functional groups"
        )
    if (
        count > 1
        and not enhanced
        and sop_class != RT_DOSE
        and ("ImagePositionPatient" in ds or sop_class == NUCLEAR_MEDICINE)
    ):
        raise Refused(f"{file.name} has {count} frames and does not say where each of them is")
    for index in range(count):
        yield _frame(ds, file, index, several=count > 1)


def _frame(ds: Dataset, file: Path, index: int, *, several: bool) -> Frame:
    measures = _group(ds, index, "PixelMeasuresSequence")
    values = _group(ds, index, "PixelValueTransformationSequence")
    dose = ds.get("SOPClassUID") == RT_DOSE
    slope = ds.get("DoseGridScaling") if dose else values.get("RescaleSlope")
    intercept = values.get("RescaleIntercept")
    orientation = _numbers(_group(ds, index, "PlaneOrientationSequence").get("ImageOrientationPatient"), 6)
    position = _numbers(_group(ds, index, "PlanePositionSequence").get("ImagePositionPatient"), 3)
    if dose and several and position and orientation:
        position = _dose_position(ds, index, position, orientation)
    return Frame(
        file=file,
        index=index,
        number=(int(ds.get("InstanceNumber") or 0), index),
        position=position,
        orientation=orientation,
        spacing_mm=next((found for name in SPACINGS if (found := _numbers(measures.get(name), 2))), None),
        distance_mm=_distance(measures),
        frame_time_ms=_number(ds.get("FrameTime")),
        frame_of_reference=str(ds.get("FrameOfReferenceUID") or ""),
        rows=int(ds.Rows),
        columns=int(ds.Columns),
        samples=3 if ds.get("PhotometricInterpretation") == "PALETTE COLOR" else int(ds.get("SamplesPerPixel") or 1),
        low_is_bright=ds.get("PhotometricInterpretation") == "MONOCHROME1",
        palette=ds.get("PhotometricInterpretation") == "PALETTE COLOR",
        bits_allocated=int(ds.BitsAllocated),
        bits_stored=int(ds.get("BitsStored") or ds.BitsAllocated),
        signed=ds.get("PixelRepresentation") == 1,
        floating="PixelRepresentation" not in ds and int(ds.BitsAllocated) >= 32,
        slope=1.0 if slope is None else float(slope),
        intercept=0.0 if intercept is None else float(intercept),
        identity=tuple(_identity(ds, index)),
    )


def _group(ds: Dataset, index: int, name: str) -> Dataset:
    """The frame's own group, else the shared one; of a classic object, the object itself."""
    if "PerFrameFunctionalGroupsSequence" not in ds:
        return ds
    shared = ds.get("SharedFunctionalGroupsSequence") or [Dataset()]
    for groups in (ds.PerFrameFunctionalGroupsSequence[index], shared[0]):
        if groups.get(name):
            return groups[name].value[0]
    return Dataset()


def _identity(ds: Dataset, index: int) -> Iterator[tuple[str, str]]:
    for sequence, keywords in IDENTITY:
        source = _group(ds, index, sequence) if sequence else ds
        if sequence and source is ds:
            continue
        for keyword in keywords:
            value = source.get(keyword)
            if value is not None and value != "":
                yield keyword, str(value)


def _dose_position(
    ds: Dataset, index: int, first: tuple[float, ...], orientation: tuple[float, ...]
) -> tuple[float, ...]:
    offsets = [float(offset) for offset in ds.get("GridFrameOffsetVector") or []]
    if len(offsets) != int(ds.NumberOfFrames) or offsets[0] != 0:
        raise Refused(f"{Path(ds.filename).name} has dose planes whose offsets do not begin with 0 or are incomplete")
    a, b = orientation[:3], orientation[3:]
    normal = (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])
    return tuple(start + offsets[index] * part for start, part in zip(first, normal, strict=True))


def _distance(measures: Dataset) -> float | None:
    for name in ("SpacingBetweenSlices", "SliceThickness"):
        value = _number(measures.get(name))
        if value:
            return abs(value)
    return None


def _number(value: object) -> float | None:
    return None if value is None or value == "" else float(str(value))


def _numbers(value: object, count: int) -> tuple[float, ...] | None:
    if not value:
        return None
    numbers = tuple(float(each) for each in value)  # type: ignore[attr-defined]
    if len(numbers) != count:
        raise ValueError(f"{len(numbers)} numbers where {count} belong")
    return numbers
