"""Builds the document of a series, which the metadata index holds.

A document is a JSON object. It holds the attributes of the first instance (lowest InstanceNumber, then
SOPInstanceUID) and these summaries:

- ``InstanceCount``, ``ArrivalTime`` (UTC), ``TransferSyntaxUID``;
- ``<Keyword>_range`` with ``min`` and ``max`` over all instances, for ``RANGE_KEYWORDS`` and for
  ``SlicePosition`` (mm along the slice normal, from ImagePositionPatient);
- ``<Keyword>_values``, the distinct values over all instances, for ``VALUES_KEYWORDS``;
- ``VaryingKeywords``, other attributes that differ between instances;
- ``TruncatedKeywords`` and ``UnreadableKeywords``, attributes that were truncated or left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TypeAlias

from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from kaapana_assets.dicom.attributes import JSON, VALUES_LIMIT, Document, Losses, attribute_json, dataset_json
from kaapana_assets.dicom.headers import PYDICOM_ERRORS, captured_pydicom_warnings
from kaapana_assets.errors import InputError

RANGE_KEYWORDS = (
    "AcquisitionDate",
    "AcquisitionDateTime",
    "AcquisitionNumber",
    "AcquisitionTime",
    "ContentDate",
    "ContentTime",
    "EchoTime",
    "Exposure",
    "InstanceCreationTime",
    "InstanceNumber",
    "InversionTime",
    "RepetitionTime",
    "SliceLocation",
    "SliceThickness",
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "TriggerTime",
    "XRayTubeCurrent",
)
VALUES_KEYWORDS = (
    "Columns",
    "ConvolutionKernel",
    "DiffusionBValue",
    "EchoNumbers",
    "FlipAngle",
    "FrameOfReferenceUID",
    "ImageType",
    "Modality",
    "PatientID",
    "Rows",
    "SOPClassUID",
    "StudyInstanceUID",
    "TransferSyntaxUID",
)

_SUMMARY_TAGS = {tag_for_keyword(keyword) or 0: keyword for keyword in (*RANGE_KEYWORDS, *VALUES_KEYWORDS)}
_INSTANCE_NUMBER, _POSITION, _ORIENTATION = 0x00200013, 0x00200032, 0x00200037

Elements: TypeAlias = dict[int, RawDataElement | DataElement]
Scalars: TypeAlias = list[str | int | float]


def series_document(
    headers: Iterable[Dataset], *, arrival_time: datetime, instance_count: int | None = None
) -> Document:
    """The document of a series, from the headers of its instances.

    Types: dates are ``YYYY-MM-DD``, times ``HH:MM:SS.ffffff``, date-times ISO 8601 with an offset
    only if the file has one. DS, FL and FD are floats; IS and binary integers are integers, an IS
    value with a fraction is a float. An age (AS) is a float in years, with the original text in
    ``<Keyword>_text``. A person name holds all component groups, joined by "=". A malformed value is
    kept as text in ``<Keyword>_text``. See ``attributes`` for limits and names.

    Args:
        headers: of one series, from ``headers.read_header``; at least one. They are consumed one at a
            time.
        arrival_time: when the series was complete; needs a time zone.
        instance_count: if it is not the number of headers.

    Raises:
        InputError: there is no header, or the arrival time has no time zone.
    """
    if arrival_time.tzinfo is None:
        raise InputError("arrival_time has no time zone")
    with captured_pydicom_warnings():
        summary = _Summary()
        for header in headers:
            summary.add(header)
        if summary.first is None:
            raise InputError("a series without instances has no document")
        losses = Losses()
        document = dataset_json(summary.first, losses)
        document.update(summary.as_json())
    document["InstanceCount"] = summary.count if instance_count is None else instance_count
    document["ArrivalTime"] = arrival_time.astimezone(timezone.utc).isoformat(timespec="microseconds")[:-6] + "Z"
    for name, paths in (("TruncatedKeywords", losses.truncated), ("UnreadableKeywords", losses.unreadable)):
        if paths:
            document[name] = list[JSON](sorted(paths))
    return document


@dataclass
class _Summary:
    """Summarizes the instances added so far; holds at most two headers."""

    count: int = 0
    first: Dataset | None = None
    _first_key: tuple[float, str] = (0.0, "")
    _reference: tuple[Dataset, Elements] | None = None
    _varying: set[int] = field(default_factory=set)
    _values: dict[str, set[str | int | float]] = field(default_factory=dict)
    _ranges: dict[str, tuple[JSON, JSON]] = field(default_factory=dict)
    _known_scalars: dict[tuple[object, ...], Scalars] = field(default_factory=dict)

    def add(self, header: Dataset) -> None:
        # Collected before anything is decoded: comparing bytes is much faster than comparing values.
        # The keys are plain integers because comparing pydicom's tags is slow.
        elements: Elements = {int(tag): element for tag, element in header.items()}
        self.count += 1
        number = next(iter(self._scalars(header, elements, _INSTANCE_NUMBER)), None)
        key = (float(number) if isinstance(number, int | float) else float("inf"), _sop_instance_uid(header))
        if self.first is None or key < self._first_key:
            self.first, self._first_key = header, key
        if self._reference is None:
            self._reference = (header, elements)
        else:
            self._compare(self._reference, (header, elements))
        for tag, keyword in _SUMMARY_TAGS.items():
            if tag in elements:
                self._add_values(keyword, self._scalars(header, elements, tag))
        transfer_syntax = getattr(header, "file_meta", Dataset()).get("TransferSyntaxUID")
        if transfer_syntax:
            self._add_values("TransferSyntaxUID", [str(transfer_syntax)])
        position = self._scalars(header, elements, _POSITION)
        self._add_values("SlicePosition", _slice_position(position, self._scalars(header, elements, _ORIENTATION)))

    def as_json(self) -> Document:
        document: Document = {}
        for keyword, (low, high) in self._ranges.items():
            document[f"{keyword}_range"] = {"min": low, "max": high}
        for keyword, values in self._values.items():
            ordered = sorted(values, key=lambda value: (isinstance(value, str), value))
            document[f"{keyword}_values"] = list[JSON](ordered)
        if self.first is not None and "TransferSyntaxUID_values" in document:
            meta = getattr(self.first, "file_meta", Dataset())
            if meta.get("TransferSyntaxUID"):
                document["TransferSyntaxUID"] = str(meta.TransferSyntaxUID)
        varying = [tag for tag in self._varying if tag not in _SUMMARY_TAGS and tag & 0xFFFF != 0]
        if varying:
            document["VaryingKeywords"] = list[JSON](sorted(keyword_for_tag(tag) or f"{tag:08X}" for tag in varying))
        return document

    def _compare(self, one: tuple[Dataset, Elements], other: tuple[Dataset, Elements]) -> None:
        known, elements = one[1], other[1]
        self._varying.update(known.keys() ^ elements.keys())
        for tag, b in elements.items():
            if tag in self._varying or tag & 0xFFFF == 0:
                continue
            a = known[tag]
            if isinstance(a, RawDataElement) and isinstance(b, RawDataElement) and a[1] == b[1]:
                same = a[3] == b[3]
            else:
                same = _decoded(one[0], tag) == _decoded(other[0], tag)
            if not same:
                self._varying.add(tag)

    def _scalars(self, header: Dataset, elements: Elements, tag: int) -> Scalars:
        """The well-formed values of an attribute; equal bytes are decoded once."""
        element = elements.get(tag)
        if element is None:
            return []
        if not isinstance(element, RawDataElement):
            return _decoded_scalars(header, tag)
        key = (tag, element.VR, element.value, element.is_little_endian)
        known = self._known_scalars.get(key)
        if known is None:
            known = self._known_scalars[key] = _decoded_scalars(header, tag)
        return known

    def _add_values(self, keyword: str, values: Iterable[str | int | float]) -> None:
        for value in values:
            if keyword in VALUES_KEYWORDS:
                seen = self._values.setdefault(keyword, set())
                if len(seen) < VALUES_LIMIT:
                    seen.add(value)
                continue
            low, high = self._ranges.get(keyword, (value, value))
            if isinstance(low, str) is isinstance(value, str):
                # mypy does not see that both are numbers or both are text
                self._ranges[keyword] = (min(low, value), max(high, value))  # type: ignore[type-var]


def _decoded(header: Dataset, tag: int) -> Document:
    return attribute_json(header, BaseTag(tag), Losses(), name="value", path="")


def _decoded_scalars(header: Dataset, tag: int) -> Scalars:
    value = _decoded(header, tag).get("value")
    values = value if isinstance(value, list) else [value]
    return [part for part in values if isinstance(part, str | int | float)]


def _sop_instance_uid(header: Dataset) -> str:
    try:
        return str(header.get("SOPInstanceUID", ""))
    except PYDICOM_ERRORS:
        return ""


def _slice_position(position: Scalars, orientation: Scalars) -> list[float]:
    """Distance of the slice from the origin along its normal, in mm (PS3.3 C.7.6.2.1.1); empty if unknown."""
    if len(position) != 3 or len(orientation) != 6:
        return []
    x, y, z, a, b, c, d, e, f = (float(part) for part in (*position, *orientation))
    return [round((b * f - c * e) * x + (c * d - a * f) * y + (a * e - b * d) * z, 4)]
