"""Reads DICOM headers and their identifiers; tolerates odd files and reports broken ones clearly.

A broken file raises ``UnreadableDicom``, whatever is broken; pydicom's own errors and warnings never
leave this module. ``documents`` and ``consistency`` interpret the values.
"""

from __future__ import annotations

import logging
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import pydicom
from pydicom import config
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from kaapana_assets.dicom.deflated import check_inflated_size
from kaapana_assets.dicom.identifiers import checked_uid
from kaapana_assets.dicom.limits import DEFAULT_LIMITS, ReadingLimits
from kaapana_assets.dicom.truncation import check_not_truncated
from kaapana_assets.errors import InvalidIdentifier, UnreadableDicom

HEADER_VALUE_LIMIT_BYTES = 64 * 1024

# Real archives hold values that break the rules of their VR. ``documents`` keeps them as text.
# pydicom would log a warning for each, and the value in it would put patient data into logs.
config.settings.reading_validation_mode = config.IGNORE
logging.getLogger("pydicom").setLevel(logging.CRITICAL)

PYDICOM_ERRORS = (
    InvalidDicomError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    BytesLengthException,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""The exceptions of pydicom 3 on damaged bytes; a fuzz test in tests/dicom checks this list."""

_QUOTED = re.compile(r"""b?(['"]).*?(\1|$)""", re.DOTALL)
_IDENTITY_TAGS = [0x00020010, 0x00080016, 0x00080018, 0x0020000D, 0x0020000E]
_LAST_IDENTITY_TAG = 0x0020000E
_BINARY_VRS = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "UN"))
_quiet_lock = threading.RLock()


@dataclass(frozen=True)
class InstanceIdentity:
    """The identifiers of one DICOM object, each checked to be a UID.

    ``transfer_syntax_uid`` comes from the file meta information; without it, it is the transfer
    syntax in which the dataset was read.
    """

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str


@contextmanager
def captured_pydicom_warnings() -> Iterator[list[warnings.WarningMessage]]:
    """Collect pydicom's warnings in a list instead of emitting them.

    Python's warning filters are global to the process, so only one thread at a time can be inside.
    """
    with _quiet_lock, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught


def read_header(path: Path, *, limits: ReadingLimits = DEFAULT_LIMITS) -> Dataset:
    """All attributes before the pixel data, with the file meta information.

    Text and numeric values are truncated to 64 KiB, binary values over 64 KiB are left out, and
    sequences are complete. Pixel data is not read, but its length is checked to detect a file that
    is cut short.

    A file without preamble or file meta information is read if it has all identifiers.

    Raises:
        UnreadableDicom: not DICOM, empty, cut short or damaged; names the path and the reason.
        OverLimit: the dataset is deflated and exceeds ``limits``.

    References:
        PS3.10 7.1 (file meta information), PS3.5 7.1 (data elements).
    """
    with open_dicom(path, limits=limits) as file:
        forced = _is_bare_dataset(file, path)
        with captured_pydicom_warnings() as caught:
            header = pydicom.dcmread(file, defer_size=HEADER_VALUE_LIMIT_BYTES, stop_before_pixels=True, force=forced)
        # pydicom ends the dataset at this point and only warns.
        if any("End of input reached" in str(warning.message) for warning in caught):
            raise UnreadableDicom(f"{path}: cut short in a value of undefined length")
        source = file if header.buffer is None else cast("BinaryIO", header.buffer)  # pydicom inflates into a buffer
        check_not_truncated(header, source, path=path)
        _load_long_values(header, source)
        header.buffer = None
    if forced:
        _require_identity(header, path)
    return header


def read_identity(path: Path, *, limits: ReadingLimits = DEFAULT_LIMITS) -> InstanceIdentity:
    """The identifiers of a file; reading stops after SeriesInstanceUID.

    Raises:
        UnreadableDicom: not DICOM, damaged before (0020,000E), or an identifier is missing.
        OverLimit: the dataset is deflated and exceeds ``limits``.
        InvalidIdentifier: an identifier is not a UID.
    """
    with open_dicom(path, limits=limits) as file:
        forced = _is_bare_dataset(file, path)
        with captured_pydicom_warnings():
            header = read_partial(
                file,
                stop_when=_after_identity,
                force=forced,
                specific_tags=[BaseTag(tag) for tag in _IDENTITY_TAGS],
            )
        missing = [tag for tag in _IDENTITY_TAGS[1:] if tag not in header]
        if missing:
            _check_order(file, path, missing[0], forced=forced)
    if forced:
        return _require_identity(header, path)
    return identity_of(header)


def out_of_order_message(keyword: str, tag: int, *, after: int) -> str:
    """The reason for not finding an element that stands further in the dataset than it may."""
    return (
        f"elements are not in ascending order (PS3.5 7.1): {keyword} {BaseTag(tag)} stands after {BaseTag(after)}, "
        "so readers do not find it"
    )


def _check_order(file: BinaryIO, path: Path, tag: int, *, forced: bool) -> None:
    """Check that a missing element does not stand out of order further in the dataset.

    Raises:
        UnreadableDicom: it stands out of order.
    """
    file.seek(0)
    with captured_pydicom_warnings():
        header = pydicom.dcmread(file, defer_size=HEADER_VALUE_LIMIT_BYTES, stop_before_pixels=True, force=forced)
    found = [int(each) for each in header.keys()]  # noqa: SIM118 - in the order of the file
    if tag in found and found.index(tag) > 0 and (after := max(found[: found.index(tag)])) > tag:
        raise UnreadableDicom(f"{path}: {out_of_order_message(keyword_for_tag(tag), tag, after=after)}")


def has_compressed_pixels(path: Path) -> bool:
    """Whether a file that names no transfer syntax has encapsulated pixel data (PS3.5 A.4).

    Raises:
        UnreadableDicom: the file cannot be read.
    """
    with open_dicom(path, limits=DEFAULT_LIMITS) as file:
        with captured_pydicom_warnings():
            header = pydicom.dcmread(file, defer_size=HEADER_VALUE_LIMIT_BYTES, stop_before_pixels=True, force=True)
        is_implicit, is_little_endian = header.original_encoding
        head = file.read(12)
        length = head[4:8] if is_implicit else head[8:12]
        return len(length) == 4 and struct.unpack("<L" if is_little_endian else ">L", length)[0] == 0xFFFFFFFF


def identity_of(header: Dataset) -> InstanceIdentity:
    """The identifiers of a header.

    Raises:
        UnreadableDicom: an identifier is missing; names its keyword and the file, if known.
        InvalidIdentifier: an identifier is not a UID.
    """
    with captured_pydicom_warnings():
        return InstanceIdentity(
            study_instance_uid=_uid(header, "StudyInstanceUID"),
            series_instance_uid=_uid(header, "SeriesInstanceUID"),
            sop_instance_uid=_uid(header, "SOPInstanceUID"),
            sop_class_uid=_uid(header, "SOPClassUID"),
            transfer_syntax_uid=_transfer_syntax(header),
        )


def _after_identity(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return int(tag) > _LAST_IDENTITY_TAG


def _uid(header: Dataset, keyword: str) -> str:
    try:
        value = header.get(keyword)
    except PYDICOM_ERRORS as exc:
        raise UnreadableDicom(f"{_name(header)}: {keyword} cannot be read ({_reason(exc)})") from exc
    if value is None or str(value).rstrip("\0 ") == "":
        if "DirectoryRecordSequence" in header:
            raise UnreadableDicom(f"{_name(header)}: a media directory (DICOMDIR), which belongs to no series")
        raise UnreadableDicom(f"{_name(header)}: {keyword} is missing")
    return checked_uid(str(value), keyword=keyword)


def _transfer_syntax(header: Dataset) -> str:
    file_meta = getattr(header, "file_meta", None)
    if file_meta is not None and file_meta.get("TransferSyntaxUID"):
        return _uid(file_meta, "TransferSyntaxUID")
    is_implicit, is_little_endian = header.original_encoding
    if is_implicit is None:
        raise UnreadableDicom(f"{_name(header)}: TransferSyntaxUID is missing")
    if is_implicit:
        return str(ImplicitVRLittleEndian)
    return str(ExplicitVRLittleEndian if is_little_endian else ExplicitVRBigEndian)


def _require_identity(header: Dataset, path: Path) -> InstanceIdentity:
    try:
        return identity_of(header)
    except (UnreadableDicom, InvalidIdentifier) as exc:
        raise UnreadableDicom(f"{path}: not a DICOM file (no DICM prefix, and no identifiers without it)") from exc


@contextmanager
def open_dicom(path: Path, *, limits: ReadingLimits) -> Iterator[BinaryIO]:
    """Open a file for pydicom and translate the errors that pydicom raises inside the context.

    Raises:
        UnreadableDicom: the file cannot be opened, or is damaged.
        OverLimit: the dataset is deflated and exceeds ``limits``.
    """
    try:
        file = path.open("rb")
    except (OSError, ValueError) as exc:
        raise UnreadableDicom(f"{path}: cannot be opened ({_reason(exc)})") from exc
    with file:
        try:
            with captured_pydicom_warnings():
                check_inflated_size(file, path=path, limit_bytes=limits.inflated_bytes)
            yield file
        except UnreadableDicom:
            raise
        except PYDICOM_ERRORS as exc:
            raise UnreadableDicom(f"{path}: damaged ({_reason(exc)})") from exc


def _is_bare_dataset(file: BinaryIO, path: Path) -> bool:
    """Whether the dataset starts at the first byte, without the 128-byte preamble and "DICM"."""
    start = file.read(132)
    file.seek(0)
    if not start:
        raise UnreadableDicom(f"{path}: empty file")
    if start[128:] == b"DICM":
        return False
    if start[:4] == b"DICM" or start[:2] in (b"\x02\x00", b"\x08\x00", b"\x00\x08"):
        return True
    raise UnreadableDicom(f"{path}: not a DICOM file (no DICM prefix)")


def _load_long_values(header: Dataset, source: BinaryIO) -> None:
    """Load the deferred values, truncated, or drop them, so that the file can be closed."""
    for element in list(header.values()):
        if not isinstance(element, RawDataElement) or element.value is not None or element.length == 0:
            continue
        vr = _vr(element)
        if vr in _BINARY_VRS:
            del header[element.tag]
            continue
        kept = element.length if vr == "SQ" else HEADER_VALUE_LIMIT_BYTES
        source.seek(element.value_tell)
        header[element.tag] = element._replace(value=source.read(kept), length=kept)


def _vr(element: RawDataElement) -> str:
    if element.VR and element.VR != "UN":
        return element.VR
    try:
        return str(dictionary_VR(element.tag))
    except KeyError:
        return "UN"


def _name(header: Dataset) -> str:
    return str(getattr(header, "filename", None) or "DICOM object")


def _reason(exc: BaseException) -> str:
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror
    # Without quoted text, which is a value of the header.
    return f"{type(exc).__name__}: {_QUOTED.sub('…', str(exc))}"[:200]
