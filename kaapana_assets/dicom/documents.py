"""One document per series: what the metadata index holds.

A document is a JSON object. Beside the attributes of the first instance (lowest InstanceNumber, then
SOPInstanceUID) it has what is made here:

- ``InstanceCount``, ``ArrivalTime`` (UTC), ``TransferSyntaxUID``;
- ``<Keyword>_range`` with ``min`` and ``max`` over all instances, for ``RANGE_KEYWORDS`` and for
  ``SlicePosition`` (mm along the slice normal, from ImagePositionPatient);
- ``<Keyword>_values``, the different values over all instances, for ``VALUES_KEYWORDS``;
- ``VaryingKeywords``: other attributes that are not the same in all instances;
- ``TruncatedKeywords`` and ``UnreadableKeywords``: what could not be taken over whole or at all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timezone

import numpy as np
from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from kaapana_assets.dicom.attributes import JSON, VALUES_LIMIT, Document, Notes, attribute_json, dataset_json
from kaapana_assets.dicom.headers import PYDICOM_ERRORS, pydicom_quiet
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

_SUMMARY_TAGS = {BaseTag(tag_for_keyword(keyword) or 0): keyword for keyword in (*RANGE_KEYWORDS, *VALUES_KEYWORDS)}


def series_document(
    headers: Iterable[Dataset], *, arrival_time: datetime, instance_count: int | None = None
) -> Document:
    """The document of a series from the headers of its instances, read one after the other.

    Types: dates are ``YYYY-MM-DD``, times ``HH:MM:SS.ffffff``, date-times ISO 8601 with an offset
    only where the file has one, DS/FL/FD floats, IS and binary integers integers, ages (AS) years
    as a float with the text in ``<Keyword>_text``, person names all component groups joined by "=".
    A malformed value is text in ``<Keyword>_text``; see ``attributes`` for limits and names.

    Args:
        headers: of one series, as ``headers.read_header`` gives them; at least one.
        arrival_time: when the series was complete; needs a time zone.
        instance_count: if other than the number of headers.

    Raises:
        InputError: no header, or an arrival time without time zone.
    """
    if arrival_time.tzinfo is None:
        raise InputError("arrival_time has no time zone")
    with pydicom_quiet():
        summary = _Summary()
        for header in headers:
            summary.add(header)
        if summary.first is None:
            raise InputError("a series without instances has no document")
        notes = Notes()
        document = dataset_json(summary.first, notes)
        document.update(summary.as_json())
    document["InstanceCount"] = summary.count if instance_count is None else instance_count
    document["ArrivalTime"] = arrival_time.astimezone(timezone.utc).isoformat(timespec="microseconds")[:-6] + "Z"
    for name, paths in (("TruncatedKeywords", notes.truncated), ("UnreadableKeywords", notes.unreadable)):
        if paths:
            document[name] = list[JSON](sorted(paths))
    return document


@dataclass
class _Summary:
    """What is known of the instances seen so far; holds two headers at most."""

    count: int = 0
    first: Dataset | None = None
    _first_key: tuple[float, str] = (0.0, "")
    _reference: Dataset | None = None
    _varying: set[BaseTag] = field(default_factory=set)
    _values: dict[str, set[str | int | float]] = field(default_factory=dict)
    _ranges: dict[str, tuple[JSON, JSON]] = field(default_factory=dict)

    def add(self, header: Dataset) -> None:
        self.count += 1
        key = _order_key(header)
        if self.first is None or key < self._first_key:
            self.first, self._first_key = header, key
        if self._reference is None:
            self._reference = header
        else:
            self._compare(self._reference, header)
        for tag, keyword in _SUMMARY_TAGS.items():
            if tag in header:
                self._add_values(keyword, _scalars(header, tag, keyword))
        transfer_syntax = getattr(header, "file_meta", Dataset()).get("TransferSyntaxUID")
        if transfer_syntax:
            self._add_values("TransferSyntaxUID", [str(transfer_syntax)])
        self._add_values("SlicePosition", _slice_position(header))

    def as_json(self) -> Document:
        document: Document = {}
        for keyword, (low, high) in self._ranges.items():
            document[f"{keyword}_range"] = {"min": low, "max": high}
        for keyword, values in self._values.items():
            document[f"{keyword}_values"] = list[JSON](sorted(values, key=lambda value: (str(type(value)), value)))
        if self.first is not None and "TransferSyntaxUID_values" in document:
            meta = getattr(self.first, "file_meta", Dataset())
            if meta.get("TransferSyntaxUID"):
                document["TransferSyntaxUID"] = str(meta.TransferSyntaxUID)
        varying = {tag for tag in self._varying if tag not in _SUMMARY_TAGS}
        if varying:
            names = (keyword_for_tag(tag) if not tag.is_private else "" for tag in varying)
            document["VaryingKeywords"] = list[JSON](
                sorted(name or f"{tag:08X}" for name, tag in zip(names, varying, strict=True))
            )
        return document

    def _compare(self, reference: Dataset, header: Dataset) -> None:
        for tag in header.keys() | reference.keys():
            if tag not in self._varying and tag.element != 0 and not _same(reference, header, tag):
                self._varying.add(tag)

    def _add_values(self, keyword: str, values: Iterable[str | int | float]) -> None:
        for value in values:
            if keyword in VALUES_KEYWORDS:
                seen = self._values.setdefault(keyword, set())
                if len(seen) < VALUES_LIMIT:
                    seen.add(value)
                continue
            low, high = self._ranges.get(keyword, (value, value))
            if type(low) is type(value):
                # mypy does not know that both are of one type that can be compared
                self._ranges[keyword] = (min(low, value), max(high, value))  # type: ignore[type-var]


def _same(one: Dataset, other: Dataset, tag: BaseTag) -> bool:
    """Whether an attribute is equal in two headers; bytes are compared where nothing was decoded."""
    if tag not in one or tag not in other:
        return False
    a, b = one.get_item(tag), other.get_item(tag)
    if isinstance(a, RawDataElement) and isinstance(b, RawDataElement) and a[1] == b[1]:
        return bool(a.value == b.value)
    notes = Notes()
    return attribute_json(one, tag, notes, name="a", path="") == attribute_json(other, tag, notes, name="a", path="")


def _order_key(header: Dataset) -> tuple[float, str]:
    number = next(iter(_scalars(header, BaseTag(0x00200013), "InstanceNumber")), None)
    try:
        uid = str(header.get("SOPInstanceUID", ""))
    except PYDICOM_ERRORS:
        uid = ""
    return (float(number) if isinstance(number, int) else float("inf"), uid)


def _scalars(header: Dataset, tag: BaseTag, keyword: str) -> list[str | int | float]:
    """The well-formed values of an attribute."""
    if tag not in header:
        return []
    value = attribute_json(header, tag, Notes(), name=keyword, path="").get(keyword)
    values = value if isinstance(value, list) else [value]
    return [part for part in values if isinstance(part, str | int | float)]


def _slice_position(header: Dataset) -> list[float]:
    """Distance of the slice from the origin along its normal, in mm (PS3.3 C.7.6.2.1.1)."""
    position = _scalars(header, BaseTag(0x00200032), "ImagePositionPatient")
    orientation = _scalars(header, BaseTag(0x00200037), "ImageOrientationPatient")
    if len(position) != 3 or len(orientation) != 6:
        return []
    row, column = np.array(orientation[:3], dtype=float), np.array(orientation[3:], dtype=float)
    return [round(float(np.cross(row, column) @ np.array(position, dtype=float)), 4)]
