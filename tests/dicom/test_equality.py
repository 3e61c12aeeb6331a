"""The same object in another encoding is the same; whatever differs in one value is not."""

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from kaapana_assets.dicom.digests import content_digest
from kaapana_assets.dicom.equality import same_object
from kaapana_assets.dicom.limits import ReadingLimits

SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]


def make(dataset, syntax, **changed):
    """One object with values of every kind, encoded for a transfer syntax."""
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    item, inner = Dataset(), Dataset()
    inner.CodeValue, inner.ReferencedFrameNumber = "T-1", [1, 2]
    item.ReferencedSOPInstanceUID, item.PurposeOfReferenceCodeSequence = "1.2.33", [inner]
    ds = dataset(
        PatientName="Odd^N", ReferencedImageSequence=[item], EchoTime="30.50", InstanceNumber="7",
        FrameIncrementPointer=[0x00181063], FrameReferenceTime=1.5, RecommendedDisplayFrameRateInFloat=1.25,
        Rows=2, Columns=3, BitsAllocated=16, BitsStored=16, HighBit=15, SamplesPerPixel=1, PixelRepresentation=1,
        PhotometricInterpretation="MONOCHROME2", SmallestImagePixelValue=-5,
    )  # fmt: skip
    block = ds.private_block(0x0029, "MADE UP", create=True)
    block.add_new(0x01, "LO", "private text")
    block.add_new(0x02, "FD", 0.1)
    block.add_new(0x03, "SQ", [inner])
    block.add_new(0x04, "OB", b"\1\2\3\4")
    values = np.array([-5, 1, 2, 300, 4, 5], dtype=f"{order}i2")
    ds.PixelData = values.tobytes()
    ds["PixelData"].VR = "OW"
    for keyword, value in changed.items():
        setattr(ds, keyword, value)
    return ds


@pytest.fixture
def write(tmp_path, dataset, save):
    def write(name, syntax, **changed):
        return save(make(dataset, syntax, **changed), tmp_path / name, transfer_syntax=syntax)

    return write


@pytest.mark.parametrize("other", SYNTAXES, ids=lambda uid: uid.keyword)
@pytest.mark.parametrize("one", SYNTAXES, ids=lambda uid: uid.keyword)
def test_object_is_the_same_in_every_encoding(write, one, other):
    first, second = write("1", one), write("2", other)
    assert (content_digest(first) == content_digest(second)) is (one == other)
    assert same_object(first, second)


CHANGES = {
    "text": {"PatientName": "Even^N"},
    "number": {"EchoTime": "30.51"},
    "one more": {"ImageComments": "x"},
    "binary number": {"SmallestImagePixelValue": -6},
    "UID": {"StudyInstanceUID": "1.2.3.0"},
}


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.keyword)
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_one_other_value_is_another_object(write, change, syntax):
    assert not same_object(write("1", ExplicitVRLittleEndian), write("2", syntax, **change))


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.keyword)
def test_one_other_pixel_and_swapped_pixels_are_another_object(write, tmp_path, dataset, save, syntax):
    first = write("1", ExplicitVRLittleEndian)
    ds = make(dataset, syntax)
    swapped = np.frombuffer(ds.PixelData, "<i2").byteswap().tobytes()
    for number, pixels in enumerate((ds.PixelData[:-1] + b"\x7f", swapped)):
        ds.PixelData = pixels
        assert not same_object(first, save(ds, tmp_path / f"changed-{number}", transfer_syntax=syntax))


def test_one_value_deep_in_a_private_sequence_is_another_object(write, tmp_path, dataset, save):
    ds = make(dataset, ImplicitVRLittleEndian)
    ds.private_block(0x0029, "MADE UP")[0x03].value[0].CodeValue = "T-2"
    other = save(ds, tmp_path / "2", transfer_syntax=ImplicitVRLittleEndian)
    assert not same_object(write("1", ExplicitVRLittleEndian), other)


def test_another_compression_is_another_object(tmp_path, pydicom_files):
    one = pydicom_files / "test_files" / "MR_small.dcm"
    ds = pydicom.dcmread(one)
    ds.compress(RLELossless, generate_instance_uid=False)
    ds.save_as(tmp_path / "2.dcm")
    assert not same_object(one, tmp_path / "2.dcm")
    assert same_object(tmp_path / "2.dcm", tmp_path / "2.dcm")


@pytest.mark.parametrize("other", SYNTAXES[:3], ids=lambda uid: uid.keyword)
def test_object_without_file_meta_is_the_same(write, tmp_path, other):
    whole = write("1", other).read_bytes()
    (tmp_path / "bare").write_bytes(whole[144 + int.from_bytes(whole[140:144], "little") :])
    assert same_object(write("2", ExplicitVRLittleEndian), tmp_path / "bare")


def test_of_larger_files_nothing_is_claimed(write):
    first, second = write("1", ImplicitVRLittleEndian), write("2", ExplicitVRLittleEndian)
    assert not same_object(first, second, limits=ReadingLimits(inflated_bytes=100))


def test_files_that_cannot_be_read_are_not_the_same(tmp_path):
    (tmp_path / "1").write_bytes(b"x")
    assert not same_object(tmp_path / "1", tmp_path / "1")
    assert not same_object(tmp_path / "1", tmp_path / "absent")
