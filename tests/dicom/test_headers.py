"""Reading headers: whole ones come back, broken ones have one clear outcome."""

import subprocess
import sys

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from kaapana_assets.dicom.headers import HEADER_VALUE_LIMIT_BYTES, identity_of, read_header, read_identity
from kaapana_assets.dicom.limits import ReadingLimits
from kaapana_assets.errors import InvalidIdentifier, OverLimit, UnreadableDicom

SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]


def with_pixels(ds):
    ds.Rows, ds.Columns, ds.BitsAllocated, ds.SamplesPerPixel = 4, 4, 16, 1
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation, ds.PhotometricInterpretation = 16, 15, 0, "MONOCHROME2"
    ds.PixelData = bytes(32)
    ds["PixelData"].VR = "OW"
    return ds


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.keyword)
def test_header_and_identity_agree_in_every_encoding(tmp_path, dataset, save, syntax):
    path = save(with_pixels(dataset(PatientID="P1")), tmp_path / "a.dcm", transfer_syntax=syntax)
    header = read_header(path)
    assert (header.PatientID, header.Rows, "PixelData" in header) == ("P1", 4, False)
    identity = identity_of(header)
    assert read_identity(path) == identity
    assert identity.transfer_syntax_uid == syntax
    assert (identity.study_instance_uid, identity.series_instance_uid) == ("1.2.3", "1.2.3.4")


def test_header_of_every_file_is_read_or_refused_with_path(pydicom_files):
    read = 0
    for path in sorted(pydicom_files.rglob("*")):
        if not path.is_file():
            continue
        try:
            header = read_header(path)
            assert read_identity(path) == identity_of(header)
            read += 1
        except UnreadableDicom as exc:
            assert str(path) in str(exc)
        except InvalidIdentifier as exc:
            assert "StudyInstanceUID" in str(exc)
    assert read > 100


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"])
def test_missing_identifier_is_named(tmp_path, dataset, save, keyword):
    ds = dataset()
    delattr(ds, keyword)
    path = save(ds, tmp_path / "a.dcm")
    with pytest.raises(UnreadableDicom, match=keyword):
        read_identity(path)


@pytest.mark.parametrize("uid", ["../../x", "1..2", "1.2\\1.3", "1" * 65, "ü", "1.2/3"])
def test_hostile_uid_is_refused(tmp_path, dataset, save, uid):
    path = save(dataset(), tmp_path / "a.dcm")
    content = path.read_bytes()
    at = content.index(b"\x20\x00\x0e\x00UI")
    value = uid.encode("latin-1")
    value += b" " * (len(value) % 2)
    old = int.from_bytes(content[at + 6 : at + 8], "little")
    path.write_bytes(content[: at + 6] + len(value).to_bytes(2, "little") + value + content[at + 8 + old :])
    with pytest.raises(InvalidIdentifier, match="SeriesInstanceUID"):
        read_identity(path)
    with pytest.raises(InvalidIdentifier, match="SeriesInstanceUID"):
        identity_of(read_header(path))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"just a text, long enough" * 20, "not a DICOM file"),
        (bytes(500), "not a DICOM file"),
        (b"\x08\x00" + b"\xff" * 300, "not a DICOM file|damaged|cut short|pixel data has"),
        (bytes(128) + b"DICM", "missing"),
    ],
    ids=["empty", "text", "zeros", "like-a-bare-dataset", "prefix-only"],
)
def test_file_that_is_not_dicom_is_refused(tmp_path, content, reason):
    path = tmp_path / "a.dcm"
    path.write_bytes(content)
    for read in (read_identity, lambda path: identity_of(read_header(path))):
        with pytest.raises(UnreadableDicom, match=reason) as caught:
            read(path)
        assert str(path) in str(caught.value)


def test_missing_file_and_folder_are_unreadable(tmp_path):
    for path in (tmp_path / "absent.dcm", tmp_path):
        with pytest.raises(UnreadableDicom, match="cannot be opened"):
            read_header(path)


def test_bare_dataset_with_identifiers_is_read(tmp_path, dataset):
    path = tmp_path / "bare.dcm"
    pydicom.dcmwrite(path, dataset(PatientID="P1"), implicit_vr=True, little_endian=True)
    assert read_header(path).PatientID == "P1"
    assert read_identity(path).transfer_syntax_uid == ImplicitVRLittleEndian


def test_bare_dataset_without_identifiers_is_not_dicom(tmp_path, dataset):
    ds = dataset()
    del ds.StudyInstanceUID
    path = tmp_path / "bare.dcm"
    pydicom.dcmwrite(path, ds, implicit_vr=True, little_endian=True)
    for read in (read_header, read_identity):
        with pytest.raises(UnreadableDicom, match="not a DICOM file"):
            read(path)


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian], ids=lambda uid: uid.keyword
)
def test_file_cut_short_is_refused(tmp_path, dataset, save, syntax):
    content = save(with_pixels(dataset()), tmp_path / "a.dcm", transfer_syntax=syntax).read_bytes()
    cut = tmp_path / "cut.dcm"
    cut.write_bytes(content[:-1])
    with pytest.raises(UnreadableDicom, match="cut short in the pixel data: 1 of 32"):
        read_header(cut)


def test_compressed_file_cut_short_is_refused(tmp_path, pydicom_files):
    whole = pydicom_files / "test_files" / "JPEG2000.dcm"
    assert read_header(whole).file_meta.TransferSyntaxUID == JPEG2000
    cut = tmp_path / "cut.dcm"
    cut.write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(UnreadableDicom, match="cut short in the pixel data"):
        read_header(cut)


def test_long_values_are_cut_and_sequences_stay_whole(tmp_path, dataset, save):
    item = dataset(SeriesDescription="x" * 60)
    ds = dataset(ImageComments="c" * 1_000_000, ReferencedImageSequence=[item] * 1500)
    ds.EncapsulatedDocument = bytes(1_000_000)
    path = save(ds, tmp_path / "a.dcm", transfer_syntax=ImplicitVRLittleEndian)
    header = read_header(path)
    path.unlink()
    assert header.ImageComments == "c" * HEADER_VALUE_LIMIT_BYTES
    assert "EncapsulatedDocument" not in header
    assert len(header.ReferencedImageSequence) == 1500


def deflated(path, dataset, save, size_bytes):
    ds = dataset(EncapsulatedDocument=bytes(size_bytes))
    return save(ds, path, transfer_syntax=DeflatedExplicitVRLittleEndian)


@pytest.mark.parametrize("head", [slice(None), slice(132, None)], ids=["with preamble", "without preamble"])
def test_deflated_object_above_the_limit_is_refused_before_it_is_inflated(tmp_path, dataset, save, head):
    path = deflated(tmp_path / "a.dcm", dataset, save, 3_000_000)
    path.write_bytes(path.read_bytes()[head])
    small, large = ReadingLimits(inflated_bytes=2_000_000), ReadingLimits(inflated_bytes=4_000_000)
    for read in (read_header, read_identity):
        with pytest.raises(OverLimit, match=r"KAAPANA_INFLATED_BYTES \(2000000\)") as caught:
            read(path, limits=small)
        assert str(path) in str(caught.value)
    if head.start is None:
        assert read_identity(path, limits=large) == identity_of(read_header(path, limits=large))


def test_deflated_bomb_takes_no_memory(tmp_path, dataset, save):
    path = deflated(tmp_path / "a.dcm", dataset, save, 400_000_000)
    script = (
        "import resource, sys, pathlib\n"
        "from kaapana_assets.dicom.headers import read_header, read_identity\n"
        "from kaapana_assets.dicom.preview import preview_png\n"
        "from kaapana_assets.dicom.equality import same_object\n"
        "from kaapana_assets.errors import OverLimit\n"
        "from kaapana_assets.stores.pacs.candidates import read_candidate\n"
        "import PIL.Image\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for read in (read_header, read_identity, preview_png):\n"
        "    try:\n"
        "        read(path)\n"
        "    except OverLimit:\n"
        "        continue\n"
        "    raise SystemExit(f'{read} read it')\n"
        "assert read_candidate(path).is_over_limit\n"
        "assert not same_object(path, path)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 60


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=6)), min_size=1, max_size=4),
    cut=st.floats(0.05, 1),
)
@pytest.mark.parametrize("name", ["CT_small.dcm", "rtplan.dcm", "image_dfl.dcm", "nested_priv_SQ.dcm", "JPEG2000.dcm"])
def test_damaged_copy_is_read_or_refused(tmp_path, pydicom_files, name, changes, cut):
    content = bytearray((pydicom_files / "test_files" / name).read_bytes())
    for place, new in changes:
        at = int(place * min(len(content), 4000))
        content[at : at + len(new)] = new
    path = tmp_path / "damaged.dcm"
    path.write_bytes(content[: int(len(content) * cut)])
    for read in (read_identity, lambda path: identity_of(read_header(path))):
        try:
            read(path)
        except (UnreadableDicom, InvalidIdentifier):
            continue
