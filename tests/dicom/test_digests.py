"""Digests: the same object has the same one, anything else another one."""

import hashlib

import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from kaapana_assets.dicom.digests import content_digest, series_digest
from kaapana_assets.errors import UnreadableDicom


def test_other_file_meta_keeps_the_digest(tmp_path, dataset, save):
    one = save(dataset(), tmp_path / "1.dcm", SourceApplicationEntityTitle="A")
    other = save(
        dataset(), tmp_path / "2.dcm", SourceApplicationEntityTitle="SOMEONE_ELSE", ImplementationVersionName="X"
    )
    assert one.read_bytes() != other.read_bytes()
    assert content_digest(one) == content_digest(other)


def test_pixels_attributes_and_transfer_syntax_change_the_digest(tmp_path, dataset, save):
    def digest(name, *, syntax=ExplicitVRLittleEndian, pixels=b"\0\0", **attributes):
        ds = dataset(**attributes)
        ds.BitsAllocated = 16
        ds.PixelData = pixels
        ds["PixelData"].VR = "OW"
        return content_digest(save(ds, tmp_path / name, transfer_syntax=syntax))

    digests = [
        digest("1"), digest("2", pixels=b"\0\1"), digest("3", PatientID="P"), digest("4", syntax=ImplicitVRLittleEndian)
    ]  # fmt: skip
    assert len(set(digests)) == 4
    assert all(d.startswith("sha256:") and len(d) == 71 for d in digests)


def test_digest_is_of_transfer_syntax_and_dataset(tmp_path, dataset, save):
    path = save(dataset(), tmp_path / "1.dcm")
    content = path.read_bytes()
    encoded = content[content.index(b"\x08\x00\x16\x00") :]
    expected = hashlib.sha256(ExplicitVRLittleEndian.encode() + b"\0" + encoded).hexdigest()
    assert content_digest(path) == f"sha256:{expected}"


@pytest.mark.parametrize("name", ["no_meta.dcm", "meta_missing_tsyntax.dcm", "README.txt"])
def test_file_without_file_meta_has_the_digest_of_its_bytes(pydicom_files, name):
    path = pydicom_files / "test_files" / name
    assert content_digest(path) == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def test_wrong_group_length_does_not_matter(tmp_path, dataset, save):
    path = save(dataset(), tmp_path / "1.dcm")
    content = bytearray(path.read_bytes())
    content[140:144] = (7).to_bytes(4, "little")
    wrong = tmp_path / "2.dcm"
    wrong.write_bytes(content)
    assert pydicom.dcmread(wrong).SOPInstanceUID == "1.2.3.4.5"
    assert content_digest(wrong) == content_digest(path)


def test_absent_file_is_unreadable(tmp_path):
    with pytest.raises(UnreadableDicom, match="absent"):
        content_digest(tmp_path / "absent.dcm")


def test_series_digest_does_not_depend_on_order_but_on_every_instance():
    digests = {"1.2": "sha256:a", "1.3": "sha256:b"}
    assert series_digest(digests) == series_digest(dict(reversed(digests.items())))
    assert (
        len({series_digest(d) for d in (digests, {"1.2": "sha256:a"}, {"1.2": "sha256:b", "1.3": "sha256:a"}, {})}) == 4
    )
