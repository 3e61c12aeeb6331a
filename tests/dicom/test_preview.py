"""Previews: a small PNG of whatever has pixels."""

import io
import struct
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import RLELossless

from kaapana_assets.dicom.limits import ReadingLimits
from kaapana_assets.dicom.preview import preview_png
from kaapana_assets.errors import OverLimit, UnreadableDicom


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
        ("SC_rgb_jpeg_gdcm.dcm", "RGB"),
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


def image(dataset, *, side=8, frames=1):
    ds = dataset(Rows=side, Columns=side, BitsAllocated=16, BitsStored=16, HighBit=15, SamplesPerPixel=1)
    ds.PixelRepresentation, ds.PhotometricInterpretation = 0, "MONOCHROME2"
    if frames > 1:
        ds.NumberOfFrames = frames
    ds.PixelData = np.arange(side * side * frames, dtype="<u2").tobytes()
    ds["PixelData"].VR = "OW"
    return ds


LIMITS = ReadingLimits(preview_bytes=128)


def test_frame_above_the_limit_is_not_decoded(tmp_path, dataset, save):
    path = save(image(dataset, side=9), tmp_path / "a.dcm")
    with pytest.raises(OverLimit, match="a frame of 162 bytes, KAAPANA_PREVIEW_BYTES is 128"):
        preview_png(path, limits=LIMITS)


def test_one_frame_counts_of_many(tmp_path, dataset, save):
    path = save(image(dataset, frames=100), tmp_path / "a.dcm")
    assert picture(path, limits=LIMITS).size == (8, 8)


def measured(code, path):
    """Peak memory in MiB, beside what the imports take, of a process that makes a preview."""
    script = (
        "import resource, sys, pathlib, numpy, PIL.Image\n"
        "from kaapana_assets.dicom.preview import preview_png\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"{code}\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    return int(done.stdout)


TRY = """
try:
    preview_png(pathlib.Path(sys.argv[1]))
except Exception as exc:
    assert type(exc).__name__ == "OverLimit", exc
else:
    raise SystemExit("a preview was made")
"""


def rle(tmp_path, dataset, save, *, said):
    """Half a megabyte of runs that decode to 32 MB for each of two segments; the header says what it likes."""
    runs = bytes([129, 0]) * (256 * 1024 * 2)
    ds = image(dataset, side=8)
    ds.Rows = ds.Columns = said
    header = struct.pack("<16L", 2, 64, 64 + len(runs), *[0] * 13)
    ds.PixelData = encapsulate([header + runs + runs])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    return save(ds, tmp_path / "a.dcm", transfer_syntax=RLELossless)


@pytest.mark.parametrize("said", [12000, 8], ids=["as the header says", "while the header says it is small"])
def test_bomb_of_runs_is_not_decoded(tmp_path, dataset, save, said):
    assert measured(TRY, rle(tmp_path, dataset, save, said=said)) < 60


SIZES = {
    "JPEG": ("SC_rgb_jpeg_gdcm.dcm", b"\xff\xc3", 5, ">H"),
    "JPEG baseline": ("SC_rgb_jpeg_dcmtk.dcm", b"\xff\xc0", 5, ">H"),
    "JPEG-LS": ("MR_small_jpeg_ls_lossless.dcm", b"\xff\xf7", 5, ">H"),
    "JPEG 2000": ("JPEG2000.dcm", b"\xff\x4f\xff\x51", 8, ">L"),
}


@pytest.mark.parametrize(("name", "marker", "place", "kind"), SIZES.values(), ids=SIZES)
def test_frame_that_says_another_size_than_the_header_is_not_decoded(
    tmp_path, pydicom_files, name, marker, place, kind
):
    path = pydicom_files / "test_files" / name
    assert preview_png(path) is not None
    content = bytearray(path.read_bytes())
    at = content.index(marker, content.index(b"\xe0\x7f\x10\x00")) + place
    # Both are as large as they can be: rows and columns, or the far edges of the canvas.
    struct.pack_into(kind, content, at, 60000)
    struct.pack_into(kind, content, at + struct.calcsize(kind), 60000)
    lying = tmp_path / "a.dcm"
    lying.write_bytes(content)
    assert measured(TRY, lying) < 60


def test_frame_without_delimiter_has_a_preview_and_no_warning(tmp_path, pydicom_files, capfd):
    whole = (pydicom_files / "test_files" / "MR_small_RLE.dcm").read_bytes()
    end = whole.rindex(b"\xfe\xff\xdd\xe0\0\0\0\0")
    path = tmp_path / "a.dcm"
    path.write_bytes(whole[:end])
    assert preview_png(path) == preview_png(pydicom_files / "test_files" / "MR_small_RLE.dcm")
    assert capfd.readouterr() == ("", "")
