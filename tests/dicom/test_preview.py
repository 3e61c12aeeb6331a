"""Previews: a small PNG of whatever has pixels."""

import io

import numpy as np
import pytest
from PIL import Image

from kaapana_assets.dicom.preview import preview_png
from kaapana_assets.errors import UnreadableDicom


def picture(path, **arguments):
    content = preview_png(path, **arguments)
    assert content is not None
    return Image.open(io.BytesIO(content))


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("CT_small.dcm", "L"),
        ("MR_small_bigendian.dcm", "L"),
        ("image_dfl.dcm", "L"),
        ("JPEG2000.dcm", "L"),
        ("MR_small_RLE.dcm", "L"),
        ("MR_small_jpeg_ls_lossless.dcm", "L"),
        ("JPGExtended.dcm", "L"),
        ("examples_ybr_color.dcm", "RGB"),
        ("examples_palette.dcm", "RGB"),
    ],
)
def test_preview_of_every_kind_of_pixels(pydicom_files, name, mode):
    path = pydicom_files / "test_files" / name
    made = picture(path)
    assert made.mode == mode
    assert max(made.size) <= 128
    assert np.asarray(made).std() > 0


@pytest.mark.parametrize(("interpretation", "first"), [("MONOCHROME2", 0), ("MONOCHROME1", 255)])
def test_window_is_used_and_monochrome1_is_inverted(tmp_path, dataset, save, interpretation, first):
    ds = dataset(Rows=1, Columns=4, BitsAllocated=16, BitsStored=16, HighBit=15, SamplesPerPixel=1)
    ds.PixelRepresentation, ds.PhotometricInterpretation = 0, interpretation
    ds.WindowCenter, ds.WindowWidth = 100, 100
    ds.PixelData = np.array([0, 50, 150, 4000], dtype="<u2").tobytes()
    ds["PixelData"].VR = "OW"
    values = np.asarray(picture(save(ds, tmp_path / "a.dcm"))).ravel()
    assert values.tolist() == [first, first, 255 - first, 255 - first]


def test_longest_side_is_the_size_asked_for(pydicom_files):
    assert max(picture(pydicom_files / "test_files" / "CT_small.dcm", size=32).size) == 32


def test_object_without_pixels_has_no_preview(pydicom_files):
    assert preview_png(pydicom_files / "test_files" / "rtplan.dcm") is None


def test_pixels_that_cannot_be_decoded_are_unreadable(tmp_path, pydicom_files):
    content = bytearray((pydicom_files / "test_files" / "JPEG2000.dcm").read_bytes())
    at = content.index(b"\xff\x4f\xff\x51")
    content[at : at + 200] = bytes(200)
    path = tmp_path / "a.dcm"
    path.write_bytes(content)
    with pytest.raises(UnreadableDicom, match="no preview"):
        preview_png(path)


def test_file_that_is_not_there_is_unreadable(tmp_path):
    with pytest.raises(UnreadableDicom):
        preview_png(tmp_path / "absent.dcm")
