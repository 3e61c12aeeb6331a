"""Identifiers are found in the raw bytes of every encoding, and damaged bytes are refused clearly."""

import io
import struct
import zlib
from pathlib import Path

import pydicom.data
import pytest
from pydicom.filewriter import dcmwrite
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from kaapana_assets.dicom.headers import read_identity
from kaapana_assets.errors import InputError, UnreadableDicom
from kaapana_assets.ingest.dataset_identifiers import part10_header, read_dataset_identifiers


def encoded(ds, syntax: str) -> bytes:
    ds.file_meta.TransferSyntaxUID = syntax
    buffer = io.BytesIO()
    dcmwrite(buffer, ds, enforce_file_format=True)
    data = buffer.getvalue()
    return data[144 + struct.unpack_from("<L", data, 140)[0] :]


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian],
    ids=["implicit", "explicit", "big endian", "deflated"],
)
def test_identifiers_are_found_in_every_encoding(instance, syntax):
    ds = instance(series="1.2.7")
    start = read_dataset_identifiers(encoded(ds, syntax), syntax)
    assert (start.sop_class_uid, start.sop_instance_uid) == (ds.SOPClassUID, ds.SOPInstanceUID)
    assert (start.study_instance_uid, start.series_instance_uid) == ("1.2.3", "1.2.7")


def test_identifiers_agree_with_pydicom_on_its_test_files():
    compared = 0
    for path in sorted((Path(pydicom.data.__file__).parent / "test_files").glob("*.dcm")):
        data = path.read_bytes()
        if data[128:132] != b"DICM" or data[132:136] != b"\2\0\0\0":
            continue
        try:
            identity = read_identity(path)
        except InputError:
            continue
        dataset = data[144 + struct.unpack_from("<L", data, 140)[0] :]
        start = read_dataset_identifiers(dataset, identity.transfer_syntax_uid)
        assert start.series_instance_uid == identity.series_instance_uid, path
        assert start.sop_instance_uid == identity.sop_instance_uid, path
        compared += 1
    assert compared > 20


def element(tag: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


DAMAGED = {
    "empty": b"",
    "random": bytes(range(7, 250)),
    "text": b"this is a text and no dataset" * 10,
    "item outside a sequence": struct.pack("<HHL", 0xFFFE, 0xE000, 4) + b"abcd",
    "sequence without end": struct.pack("<HH2sHL", 8, 0x1110, b"SQ", 0, 0xFFFFFFFF),
    "value longer than the data": struct.pack("<HH2sH", 8, 0x16, b"UI", 60) + b"1.2",
    "UID of a megabyte": struct.pack("<HHL", 8, 0x18, 1 << 20) + b"1" * (1 << 20),
    "hostile series": element(0x00080016, b"UI", b"1.2\0")
    + element(0x00080018, b"UI", b"1.2\0")
    + element(0x0020000D, b"UI", b"1.2\0")
    + element(0x0020000E, b"UI", b"../../x\0"),
    "no series": element(0x00080016, b"UI", b"1.2\0") + element(0x00080018, b"UI", b"1.2\0"),
    "not ASCII": element(0x00080016, b"UI", b"\xff\xfe"),
    "endless nesting": struct.pack("<HH2sHL", 8, 0x1110, b"SQ", 0, 0xFFFFFFFF)
    + struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF) * 300_000,
}


def moved(data: bytes, what: bytes, before: bytes) -> bytes:
    """An encoded dataset with one short element, explicit VR, put before another."""
    begin = data.index(what)
    end = begin + 8 + struct.unpack_from("<H", data, begin + 6)[0]
    element, rest = data[begin:end], data[:begin] + data[end:]
    at = rest.index(before)
    return rest[:at] + element + rest[at:]


def test_element_out_of_order_is_the_reason_and_not_that_it_is_missing(instance, tmp_path):
    data = moved(encoded(instance(), ExplicitVRLittleEndian), b"\x28\0\x10\0US", b"\x20\0\x0d\0UI")
    reason = r"not in ascending order \(PS3\.5 7\.1\): StudyInstanceUID \(0020,000D\) stands after \(0028,0010\)"
    with pytest.raises(UnreadableDicom, match=reason):
        read_dataset_identifiers(data, ExplicitVRLittleEndian)
    path = tmp_path / "x.dcm"
    meta = {"sop_class_uid": "1.2", "sop_instance_uid": "1.3", "implementation": "1.2.3"}
    path.write_bytes(part10_header(transfer_syntax_uid=ExplicitVRLittleEndian, **meta) + data)
    with pytest.raises(UnreadableDicom, match=reason) as caught:
        read_identity(path)
    assert "missing" not in str(caught.value)
    bare = tmp_path / "bare.dcm"
    bare.write_bytes(data)
    with pytest.raises(UnreadableDicom, match=reason):
        read_identity(bare)


def test_element_that_is_nowhere_is_missing(instance, tmp_path):
    ds = instance()
    del ds.StudyInstanceUID
    data = encoded(ds, ExplicitVRLittleEndian)
    with pytest.raises(UnreadableDicom, match="StudyInstanceUID is missing"):
        read_dataset_identifiers(data, ExplicitVRLittleEndian)


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED.keys())
@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
def test_damaged_bytes_are_refused_with_a_reason(data, syntax):
    with pytest.raises(InputError) as caught:
        read_dataset_identifiers(data, syntax)
    assert str(caught.value)


def test_every_truncation_is_refused_or_read_right(instance):
    ds = instance()
    data = encoded(ds, ExplicitVRLittleEndian)
    refused = 0
    for length in range(len(data)):
        try:
            start = read_dataset_identifiers(data[:length], ExplicitVRLittleEndian)
        except InputError:
            refused += 1
        else:
            assert start.series_instance_uid == ds.SeriesInstanceUID
    assert refused > 100


def test_deflated_bomb_is_not_inflated():
    compressor = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = compressor.compress(b"\0" * 50_000_000) + compressor.flush()
    with pytest.raises(UnreadableDicom):
        read_dataset_identifiers(bomb, DeflatedExplicitVRLittleEndian)


def test_part10_header_is_read_by_pydicom(instance, tmp_path):
    ds = instance()
    head = part10_header(
        sop_class_uid=ds.SOPClassUID,
        sop_instance_uid=ds.SOPInstanceUID,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        implementation="1.2.3",
    )
    path = tmp_path / "x.dcm"
    path.write_bytes(head + encoded(ds, ExplicitVRLittleEndian))
    assert read_identity(path).sop_instance_uid == ds.SOPInstanceUID
