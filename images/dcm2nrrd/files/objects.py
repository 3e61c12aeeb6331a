"""DICOM objects of files: headers without pixels, and pixels where a file's end is damaged.

No meaning of attributes belongs here.
"""

import logging
import struct
import warnings
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from refusal import Refused

PIXELS = {0x7FE00010: "PixelData", 0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData"}
ITEM, DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"
UNDEFINED = 0xFFFFFFFF
# Of pydicom, when a file or a value in it is damaged.
UNREADABLE = (
    AttributeError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    struct.error,
    OSError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    BytesLengthException,
)


@dataclass(frozen=True)
class Header:
    """A file's dataset up to its pixels, and the keyword of the element that holds these, if any."""

    file: Path
    ds: Dataset
    pixels: str | None


def silence_warnings() -> None:
    """Let the converter's own words be all that is printed; what matters is checked by itself."""
    warnings.simplefilter("ignore")
    for name in ("pydicom", "pylibjpeg", "openjpeg", "libjpeg"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def read_header(file: Path) -> Header:
    """A file's header. A file may begin without file meta information, as a bare dataset.

    Raises:
        Refused: it is no DICOM file, or damaged.
    """
    met: list[int] = []

    def at_pixels(tag: int, *_: object) -> bool:
        met.extend([int(tag)] if int(tag) in PIXELS else [])
        return int(tag) in PIXELS

    try:
        with file.open("rb") as stream:
            bare = _is_bare(stream.read(132))
            stream.seek(0)
            ds = read_partial(stream, at_pixels, force=bare)
        known = UID(str(ds.get("SOPClassUID", ""))).is_valid
    except InvalidDicomError as exc:
        raise Refused(f"{file.name} is not a DICOM file") from exc
    except UNREADABLE as exc:
        raise Refused(f"{file.name} cannot be read: {type(exc).__name__}: {exc}") from exc
    if bare and not known:
        raise Refused(f"{file.name} is not a DICOM file")
    return Header(file, ds, PIXELS[met[0]] if met else None)


def read_pixels(file: Path) -> Dataset:
    """A file's whole dataset, with the transfer syntax named.

    Raises:
        Refused: it ends within its pixels.
    """
    with file.open("rb") as stream:
        bare = _is_bare(stream.read(132))
    ds = pydicom.dcmread(file, force=bare)
    syntax = ds.file_meta.get("TransferSyntaxUID")
    if not any(keyword in ds for keyword in PIXELS.values()) and syntax != DeflatedExplicitVRLittleEndian:
        ds = _undelimited(file, bare)
    if syntax is None:
        implicit = ds.original_encoding[0]
        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    return ds


def _is_bare(begin: bytes) -> bool:
    """Whether it can only be a dataset without preamble: groups 2 and 8 come first."""
    return begin[128:132] != b"DICM" and begin[:2] in (b"\x02\x00", b"\x08\x00")


def _undelimited(file: Path, bare: bool) -> Dataset:
    """The dataset with encapsulated pixels whose last item ends with the file, without the delimiter."""
    with file.open("rb") as stream:
        ds = read_partial(stream, lambda tag, *_: int(tag) in PIXELS, force=bare)
        element, items = stream.read(12), stream.read()
    if element[:4] != struct.pack("<HH", 0x7FE0, 0x0010) or element[8:12] != struct.pack("<L", UNDEFINED):
        raise Refused(f"{file.name} ends within its pixels")
    stream = BytesIO(items)
    while head := stream.read(8):
        length = struct.unpack("<L", head[4:])[0] if head[:4] == ITEM and len(head) == 8 else UNDEFINED
        if length > len(items) - stream.tell():
            raise Refused(f"{file.name} ends within its pixels")
        stream.seek(length, 1)
    ds.PixelData = items + DELIMITER
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    return ds
