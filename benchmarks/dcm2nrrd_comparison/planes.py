"""Every plane of pixels of a series as pydicom decodes it, with its place by the standard.

Written apart from the converter, so that one does not inherit the mistakes of the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.pixels import apply_color_lut, apply_modality_lut

from dcm2nrrd_comparison.tiles import Tiles, tiles_of

RT_DOSE = "1.2.840.10008.5.1.4.1.1.481.2"
SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
# What makes an image another kind of image than its neighbour in space (keyword, functional group).
CONTRASTS = (
    ("EchoTime", ""),
    ("EchoNumbers", ""),
    ("EffectiveEchoTime", "MREchoSequence"),
    ("FlipAngle", ""),
    ("InversionTime", ""),
    ("RepetitionTime", ""),
    ("DiffusionBValue", ""),
    ("DiffusionBValue", "MRDiffusionSequence"),
    ("TemporalPositionIdentifier", ""),
    ("TemporalPositionIndex", "FrameContentSequence"),
    ("ImageType", ""),
    ("FrameType", "MRImageFrameTypeSequence"),
    ("FrameType", "CTImageFrameTypeSequence"),
    ("ConvolutionKernel", ""),
    ("KVP", ""),
    ("ContrastBolusAgent", ""),
)
# What may also name volumes of one kind; slices of one volume may differ in it.
MOMENTS = (
    ("AcquisitionNumber", ""),
    ("AcquisitionTime", ""),
    ("ContentTime", ""),
    ("TriggerTime", ""),
    ("NominalCardiacTriggerDelayTime", "CardiacSynchronizationSequence"),
    ("FrameReferenceTime", ""),
    ("InstanceNumber", ""),
    ("StackID", "FrameContentSequence"),
    ("DiffusionGradientOrientation", ""),
    ("DiffusionDirectionality", "MRDiffusionSequence"),
)


@dataclass(frozen=True, kw_only=True)
class Plane:
    """One plane of pixels.

    Attributes:
        file, number: the file, and the count of the plane in it from 0.
        position: of the centre of the first pixel, mm, LPS; None if the object does not say it.
        in_patient: False where the position is in a space of the object's own.
        orientation: direction cosines along a row, then down a column.
        spacing_mm: between rows, between columns.
        stored: the pixels as stored: rows x columns (x samples).
        lowest: the same, from the lowest BitsStored bits whatever HighBit says.
        values: after the modality transform, float64 where one applies.
        contrast: keyword and value of what tells kinds of images apart.
        moment: keyword and value of what else may name a volume.
        lossy: whether decoders may differ.
        dose: of an RT Dose.
        timed: the object says what time lies between its frames.
        tile: cut out of a larger picture.
    """

    file: Path
    number: int
    position: np.ndarray | None
    orientation: np.ndarray | None
    spacing_mm: tuple[float, float] | None
    stored: np.ndarray
    lowest: np.ndarray
    values: np.ndarray
    contrast: dict[str, str]
    moment: dict[str, str]
    lossy: bool
    photometric: str
    bits_stored: int
    dose: bool
    timed: bool
    in_patient: bool = True
    tile: bool = False

    @property
    def name(self) -> str:
        return f"{self.file.name}[{self.number}]" if self.number else self.file.name


def read_planes(files: dict[str, Path]) -> tuple[list[Plane], list[str]]:
    """All planes, and a sentence for each file that gives none."""
    planes, failed = [], []
    for path in files.values():
        try:
            planes += list(_planes(path))
        except Exception as exc:  # noqa: BLE001  (files are broken in any way; what is broken is reported)
            failed.append(f"{path.name}: {type(exc).__name__}: {exc}")
    return planes, failed


def _planes(path: Path) -> Iterator[Plane]:
    ds = pydicom.dcmread(path, force=True)
    if "Rows" not in ds:
        raise ValueError("no pixels")
    if not getattr(ds, "file_meta", None) or "TransferSyntaxUID" not in ds.file_meta:
        ds.ensure_file_meta()
        ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2" if ds.original_encoding[0] else "1.2.840.10008.1.2.1"
    count = int(ds.get("NumberOfFrames") or 1)
    colour = ds.get("PhotometricInterpretation") == "PALETTE COLOR" or int(ds.get("SamplesPerPixel") or 1) > 1
    shape = (count, int(ds.Rows), int(ds.Columns), *((-1,) if colour else ()))
    pixels, lowest = (each.reshape(shape) for each in _stored(ds))
    tiles = None if colour else tiles_of(ds)
    if tiles is not None:
        yield from _unpacked(ds, path, pixels[0], tiles)
        return
    for number in range(count):
        spacing = _first(ds, number, "PixelMeasuresSequence", SPACINGS)
        own = (ds.get("PerFrameFunctionalGroupsSequence") or [Dataset()] * count)[number]
        yield Plane(
            file=path,
            number=number,
            position=_position(ds, number),
            orientation=_orientation(ds, number),
            spacing_mm=(float(spacing[0]), float(spacing[1])) if spacing else None,
            stored=pixels[number],
            lowest=lowest[number],
            values=pixels[number] if colour else _transformed(ds, number, pixels[number]),
            contrast=_attributes(ds, number, CONTRASTS),
            moment=_attributes(ds, number, MOMENTS),
            lossy=str(ds.get("LossyImageCompression") or "") == "01" or _lossy(ds),
            photometric=str(ds.get("PhotometricInterpretation") or ""),
            bits_stored=int(ds.get("BitsStored") or 0),
            dose=ds.get("SOPClassUID") == RT_DOSE,
            timed="FrameTime" in ds or "FrameTimeVector" in ds,
            in_patient="PlanePositionSequence" in own or "PlanePositionVolumeSequence" not in own,
        )


def _lossy(ds: Dataset) -> bool:
    # Baseline, extended, near-lossless JPEG-LS and JPEG 2000 that need not be lossless (PS3.5 A.4).
    return ds.file_meta.TransferSyntaxUID in {f"1.2.840.10008.1.2.4.{end}" for end in (50, 51, 81, 91, 93, 203)}


def _stored(ds: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """The pixels by HighBit, and as if it were BitsStored - 1, which is what pydicom takes."""
    pixels = ds.pixel_array
    if ds.get("PhotometricInterpretation") == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, ds)
        return pixels, pixels
    if pixels.dtype.kind == "f" or ds.file_meta.TransferSyntaxUID.is_encapsulated:
        return pixels, pixels
    allocated, stored = int(ds.BitsAllocated), int(ds.get("BitsStored") or ds.BitsAllocated)
    high = int(ds.get("HighBit", stored - 1))
    if allocated not in {8, 16, 32} or high == stored - 1:
        return pixels, pixels
    # The pixel is BitsStored bits from HighBit down (PS3.5 8.1.1).
    end = "<" if ds.original_encoding[1] else ">"
    raw = np.frombuffer(ds.PixelData, f"{end}{pixels.dtype.kind}{allocated // 8}", pixels.size).reshape(pixels.shape)
    return (raw << (allocated - 1 - high)) >> (allocated - stored), pixels


def _transformed(ds: Dataset, number: int, pixels: np.ndarray) -> np.ndarray:
    if ds.get("SOPClassUID") == RT_DOSE:
        return pixels * float(ds.DoseGridScaling)
    group = _group(ds, number, "PixelValueTransformationSequence")
    if "RescaleSlope" in group:
        return pixels * float(group.RescaleSlope) + float(group.get("RescaleIntercept") or 0)
    return apply_modality_lut(pixels, ds)


def _group(ds: Dataset, number: int, sequence: str) -> Dataset:
    own = ds.get("PerFrameFunctionalGroupsSequence") or []
    shared = ds.get("SharedFunctionalGroupsSequence") or []
    for groups in (*own[number : number + 1], *shared[:1]):
        if groups.get(sequence):
            return groups[sequence].value[0]
    return Dataset()


def _first(ds: Dataset, number: int, sequence: str, keywords: tuple[str, ...]) -> list[float] | None:
    """The first of the keywords that the frame's group has or, failing that, the object itself."""
    for source in (_group(ds, number, sequence), ds):
        for keyword in keywords:
            value = source.get(keyword)
            if value is not None and value != "" and len(value):
                return [float(each) for each in value]
    return None


def _position(ds: Dataset, number: int) -> np.ndarray | None:
    count = int(ds.get("NumberOfFrames") or 1)
    own = _group(ds, number, "PlanePositionSequence").get("ImagePositionPatient")
    own = own or _group(ds, number, "PlanePositionVolumeSequence").get("ImagePositionVolume")
    if own:
        return np.array([float(each) for each in own])
    top = ds.get("ImagePositionPatient")
    if not top:
        return None
    position = np.array([float(each) for each in top])
    if count == 1:
        return position
    offsets = ds.get("GridFrameOffsetVector")
    orientation = _orientation(ds, number)
    if offsets is None or orientation is None:
        return None
    return position + float(offsets[number]) * np.cross(orientation[:3], orientation[3:])


def _orientation(ds: Dataset, number: int) -> np.ndarray | None:
    found = _first(ds, number, "PlaneOrientationSequence", ("ImageOrientationPatient",))
    found = found or _first(ds, number, "PlaneOrientationVolumeSequence", ("ImageOrientationVolume",))
    return np.array(found) if found else None


def _attributes(ds: Dataset, number: int, names: tuple[tuple[str, str], ...]) -> dict[str, str]:
    found = {}
    for keyword, sequence in names:
        source = _group(ds, number, sequence) if sequence else ds
        value = source.get(keyword)
        if value is not None and value != "":
            found[keyword] = "\\".join(
                str(each).strip() for each in (value if isinstance(value, MultiValue) else [value])
            )
    return found


def _unpacked(ds: Dataset, path: Path, pixels: np.ndarray, tiles: Tiles) -> Iterator[Plane]:
    """The tiles of a picture that holds a volume, from the first."""
    orientation = _orientation(ds, 0)
    spacing = [float(each) for each in ds.PixelSpacing]
    rows, columns = pixels.shape[0] // tiles.down, pixels.shape[1] // tiles.across
    for number in range(tiles.count):
        y, x = divmod(number, tiles.across)
        part = pixels[y * rows : (y + 1) * rows, x * columns : (x + 1) * columns]
        yield Plane(
            file=path,
            number=number,
            position=tiles.positions[number],
            orientation=orientation,
            spacing_mm=(spacing[0], spacing[1]),
            stored=part,
            lowest=part,
            values=_transformed(ds, 0, part),
            contrast=_attributes(ds, 0, CONTRASTS),
            moment=_attributes(ds, 0, MOMENTS),
            lossy=False,
            photometric=str(ds.PhotometricInterpretation),
            bits_stored=int(ds.BitsStored),
            dose=False,
            timed=False,
            tile=True,
        )
