"""Checks that the instances of one series fit together: no duplicates, gaps or mixed attributes.

Findings are for people and asset checks; nothing is refused here. Geometry is checked only for
single-frame objects with a position in the patient: SR, SEG, PDF, projections and multi-frame objects
have none, or keep it elsewhere. The slices of localizers (by ImageType or series description)
intersect on purpose, so they are not checked for gaps.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from kaapana_assets.dicom.headers import PYDICOM_ERRORS, captured_pydicom_warnings

SAME_POSITION_MM = 0.01
SPACING_TOLERANCE = 0.1
ORIENTATION_TOLERANCE = 1e-3

# Attributes that distinguish two images at the same position (PS3.3 C.7.6.16.2, C.8.3.1, C.8.13).
_DISTINGUISHING_KEYWORDS = (
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "EchoTime",
    "EchoNumbers",
    "AcquisitionNumber",
    "TriggerTime",
    "InversionTime",
    "FlipAngle",
    "RepetitionTime",
    "NominalPercentageOfCardiacPhase",
    "FrameReferenceTime",
    "DiffusionBValue",
    "DiffusionGradientOrientation",
    "ComplexImageComponent",
    "ImageType",
    "EnergyWindowNumber",
    "StackID",
    "ConvolutionKernel",
    "SliceThickness",
)
_TIME_KEYWORDS = ("AcquisitionTime", "ContentTime", "InstanceNumber")
_LOCALIZER_NAME = re.compile(r"\b(locali[sz]er|scout|topogram|surview|survey|3[ -]?(pl|plane)( loc)?)\b", re.IGNORECASE)

FloatArray = npt.NDArray[np.float64]


class FindingKind(str, Enum):
    """The kind of inconsistency."""

    DUPLICATE_INSTANCE = "duplicate_instance"
    SLICE_GAP = "slice_gap"
    MIXED_SIZE = "mixed_size"
    MIXED_ORIENTATION = "mixed_orientation"
    MIXED_FRAME_OF_REFERENCE = "mixed_frame_of_reference"
    MIXED_PATIENT = "mixed_patient"
    MIXED_STUDY = "mixed_study"


@dataclass(frozen=True)
class SeriesFinding:
    """One inconsistency of a series; the message holds no patient data."""

    kind: FindingKind
    message: str
    sop_instance_uids: tuple[str, ...]


@dataclass(frozen=True)
class _Slice:
    sop_instance_uid: str
    position: FloatArray  # ImagePositionPatient, mm
    orientation: FloatArray  # ImageOrientationPatient, row then column cosines
    header: Dataset


def check_series(headers: Sequence[Dataset]) -> list[SeriesFinding]:
    """The inconsistencies of a series; empty if there are none.

    Two positions are the same within 0.01 mm. There is a gap between two neighbouring slices if the
    vector between them differs from the median one by more than a tenth of its length and by more than
    0.01 mm. A constant shift from slice to slice, as with a tilted gantry, is not a gap. Orientations
    are the same if all direction cosines agree within 0.001.

    Images at the same position are not duplicates if an attribute distinguishes them (echo, time point,
    b-value, image type, ...). Nor are they if every position has the same number of images (the last
    volume may be incomplete) with different times or instance numbers.

    References:
        PS3.3 C.7.6.2.1.1 (image position and orientation), C.7.4.1 (frame of reference).
    """
    with captured_pydicom_warnings():
        findings = _repeated_uids(headers)
        findings += _mixed(headers, "PatientID", FindingKind.MIXED_PATIENT, show=False)
        findings += _mixed(headers, "StudyInstanceUID", FindingKind.MIXED_STUDY, show=True)
        slices = _slices(headers)
        findings += _mixed_size(slices)
        images = [item.header for item in slices]
        findings += _mixed(images, "FrameOfReferenceUID", FindingKind.MIXED_FRAME_OF_REFERENCE, show=True)
        groups = _by_orientation(slices)
        if len(groups) > 1:
            if not any(_LOCALIZER_NAME.search(str(_value(item.header, "SeriesDescription"))) for item in slices):
                findings.append(_mixed_orientation(groups))
            return findings
        for group in groups:
            findings += _duplicates_and_gaps(group)
        return findings


def _slices(headers: Iterable[Dataset]) -> list[_Slice]:
    slices = []
    seen = set()
    for header in headers:
        uid = str(_value(header, "SOPInstanceUID"))
        position, orientation = (
            _numbers(header, "ImagePositionPatient", 3),
            _numbers(header, "ImageOrientationPatient", 6),
        )
        if uid in seen or position is None or orientation is None:
            continue
        if (_value(header, "NumberOfFrames") or 1) != 1 or "LOCALIZER" in str(_value(header, "ImageType")).upper():
            continue
        seen.add(uid)
        slices.append(_Slice(uid, position, orientation, header))
    return slices


def _repeated_uids(headers: Iterable[Dataset]) -> list[SeriesFinding]:
    counts = Counter(str(_value(header, "SOPInstanceUID")) for header in headers)
    repeated = tuple(sorted(uid for uid, count in counts.items() if count > 1))
    if not repeated:
        return []
    return [
        SeriesFinding(FindingKind.DUPLICATE_INSTANCE, f"{len(repeated)} SOPInstanceUIDs occur more than once", repeated)
    ]


def _mixed(headers: Sequence[Dataset], keyword: str, kind: FindingKind, *, show: bool) -> list[SeriesFinding]:
    """A finding if instances differ in an attribute that must be the same; ``show`` puts its values in."""
    groups: dict[str, list[str]] = defaultdict(list)
    for header in headers:
        value = _value(header, keyword)
        if value not in (None, ""):
            groups[str(value)].append(str(_value(header, "SOPInstanceUID")))
    if len(groups) < 2:
        return []
    shown = ": " + ", ".join(f"{value} ({len(uids)})" for value, uids in sorted(groups.items())[:5]) if show else ""
    return [SeriesFinding(kind, f"{len(groups)} different {keyword} in one series{shown}", _minority(groups))]


def _mixed_size(slices: Sequence[_Slice]) -> list[SeriesFinding]:
    groups: dict[str, list[str]] = defaultdict(list)
    for item in slices:
        rows, columns = _value(item.header, "Rows"), _value(item.header, "Columns")
        groups[f"{rows} x {columns}"].append(item.sop_instance_uid)
    if len(groups) < 2:
        return []
    shown = ", ".join(f"{size} ({len(uids)})" for size, uids in sorted(groups.items())[:5])
    return [
        SeriesFinding(
            FindingKind.MIXED_SIZE, f"different sizes (rows x columns) in one series: {shown}", _minority(groups)
        )
    ]


def _minority(groups: dict[str, list[str]]) -> tuple[str, ...]:
    """The instances outside the largest group."""
    largest = max(groups, key=lambda name: len(groups[name]))
    return tuple(uid for name, uids in groups.items() if name != largest for uid in uids)


def _by_orientation(slices: Iterable[_Slice]) -> list[list[_Slice]]:
    groups: list[list[_Slice]] = []
    for item in slices:
        for group in groups:
            if np.allclose(group[0].orientation, item.orientation, rtol=0, atol=ORIENTATION_TOLERANCE):
                group.append(item)
                break
        else:
            groups.append([item])
    return groups


def _mixed_orientation(groups: Sequence[Sequence[_Slice]]) -> SeriesFinding:
    ordered = sorted(groups, key=len, reverse=True)
    shown = ", ".join(f"{np.round(group[0].orientation, 3).tolist()} ({len(group)})" for group in ordered[:5])
    rest = tuple(item.sop_instance_uid for group in ordered[1:] for item in group)
    return SeriesFinding(
        FindingKind.MIXED_ORIENTATION, f"{len(groups)} ImageOrientationPatient in one series: {shown}", rest
    )


def _duplicates_and_gaps(group: Sequence[_Slice]) -> list[SeriesFinding]:
    """The duplicates and gaps among slices of one orientation."""
    row, column = group[0].orientation[:3], group[0].orientation[3:]
    normal = np.cross(row, column)
    ordered = sorted(group, key=lambda item: float(item.position @ normal))
    stacks = [[ordered[0]]]
    for item in ordered[1:]:
        # Compare with the first slice at that position: steps below the tolerance must not add up.
        if np.linalg.norm(item.position - stacks[-1][0].position) <= SAME_POSITION_MM:
            stacks[-1].append(item)
        else:
            stacks.append([item])
    return _duplicates(stacks) + _gaps(stacks)


def _duplicates(stacks: Sequence[Sequence[_Slice]]) -> list[SeriesFinding]:
    counts = [len(stack) for stack in stacks]
    most = max(counts)
    # One volume for each time point; the last one may be incomplete.
    repeated_volumes = min(counts) == most or (most > 2 and min(counts) >= most - 1)
    keywords = _DISTINGUISHING_KEYWORDS + (_TIME_KEYWORDS if repeated_volumes else ())
    duplicates: list[str] = []
    for stack in stacks:
        seen: set[Hashable] = set()
        for item in stack:
            identity = tuple(str(_value(item.header, keyword)) for keyword in keywords) if len(stack) > 1 else ()
            if identity in seen:
                duplicates.append(item.sop_instance_uid)
            seen.add(identity)
    if not duplicates:
        return []
    message = f"{len(duplicates)} instances have the same position as another one, and no attribute distinguishes them"
    return [SeriesFinding(FindingKind.DUPLICATE_INSTANCE, message, tuple(duplicates))]


def _gaps(stacks: Sequence[Sequence[_Slice]]) -> list[SeriesFinding]:
    if len(stacks) < 3:
        return []
    steps = np.diff(np.stack([stack[0].position for stack in stacks]), axis=0)
    usual = np.median(steps, axis=0)
    usual_mm = float(np.linalg.norm(usual))
    tolerance_mm = max(SAME_POSITION_MM, SPACING_TOLERANCE * usual_mm)
    odd = np.flatnonzero(np.linalg.norm(steps - usual, axis=1) > tolerance_mm)
    if not len(odd):
        return []
    shown = ", ".join(f"{np.linalg.norm(steps[i]):.3f}" for i in odd[:5]) + (", ..." if len(odd) > 5 else "")
    uids = tuple(
        dict.fromkeys(uid for i in odd for uid in (_first_uid(stacks[int(i)]), _first_uid(stacks[int(i) + 1])))
    )
    message = (
        f"{len(odd)} of {len(steps)} distances between neighbouring slices differ from the median {usual_mm:.3f} mm "
        f"(tolerance {tolerance_mm:.3f} mm): {shown} mm"
    )
    return [SeriesFinding(FindingKind.SLICE_GAP, message, uids)]


def _first_uid(stack: Sequence[_Slice]) -> str:
    return stack[0].sop_instance_uid


def _value(header: Dataset, keyword: str) -> object:
    try:
        value: object = header.get(keyword)
    except PYDICOM_ERRORS:
        return None
    return value


def _numbers(header: Dataset, keyword: str, count: int) -> FloatArray | None:
    value = _value(header, keyword)
    if not isinstance(value, Sequence | np.ndarray) or isinstance(value, str) or len(value) != count:
        return None
    try:
        numbers = np.array([float(part) for part in value])
    except (TypeError, ValueError):
        return None
    return numbers if np.isfinite(numbers).all() else None
