"""dcm2nrrd on volumes in tiles of one picture: Siemens mosaics, and grids of United Imaging."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  (its own name for it)
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage
from series_made_up import Converted, converted, one

SIDE, ACROSS, SLICES = 4, 3, 7
TURNED = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0].round(6)


def csa(values: dict[str, list[str]], *, newer: bool = True) -> bytes:
    """A CSA header: elements of a name and its texts."""
    data = (b"SV10\4\3\2\1" if newer else b"") + struct.pack("<2L", len(values), 77)
    first = len(next(iter(values.values())))
    for name, texts in values.items():
        data += name.encode().ljust(64, b"\0") + struct.pack("<l4s3l", len(texts), b"FD", 0, len(texts), 77)
        for text in texts:
            value = text.encode() + b"\0"
            lengths = (len(value), len(value), 77, len(value)) if newer else (len(value) + first, 0, 0, 0)
            data += struct.pack("<4L", *lengths) + value.ljust((len(value) + 3) // 4 * 4, b"\0")
    return data


def tile(slice_number: int, time: int) -> np.ndarray:
    return np.arange(SIDE * SIDE).reshape(SIDE, SIDE) + 20 * slice_number + 200 * time + 1


def picture(time: int, *, across: int = ACROSS, down: int = ACROSS, slices: int = SLICES) -> np.ndarray:
    pixels = np.zeros((down * SIDE, across * SIDE))
    for number in range(slices):
        y, x = divmod(number, across)
        pixels[y * SIDE : (y + 1) * SIDE, x * SIDE : (x + 1) * SIDE] = tile(number, time)
    return pixels


def mosaic(
    time: int = 0,
    *,
    row: tuple[float, ...] = (1, 0, 0),
    column: tuple[float, ...] = (0, 1, 0),
    header: bytes | None = None,
    count: int | None = SLICES,
) -> Dataset:
    """Slices 5 mm apart, the first pixel of the first at (-20, 30, 40)."""
    axes = np.array(row) * 2, np.array(column) * 3
    shift = (ACROSS - 1) / 2 * SIDE * (axes[0] + axes[1])
    ds = one(time, position=tuple(np.array([-20, 30, 40]) - shift), pixels=picture(time))
    ds.SOPClassUID, ds.Modality, ds.Manufacturer = MRImageStorage, "MR", "SIEMENS"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
    ds.ImagePositionPatient = [f"{each:.6f}" for each in ds.ImagePositionPatient]
    ds.ImageOrientationPatient, ds.PixelSpacing = [*row, *column], [3, 2]
    ds.Rows, ds.Columns, ds.SpacingBetweenSlices, ds.AcquisitionNumber = ACROSS * SIDE, ACROSS * SIDE, 5, time + 1
    if count is not None:
        ds.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0A, "US", count)
    if header is not None:
        ds.private_block(0x0029, "SIEMENS CSA HEADER", create=True).add_new(0x10, "OB", header)
    return ds


def told(*normal: float, newer: bool = True, count: int = SLICES) -> bytes:
    return csa(
        {
            "EchoLinePosition": ["1"],
            "NumberOfImagesInMosaic": [str(count)],
            "SliceNormalVector": [f"{each:.8f}" for each in normal],
        },
        newer=newer,
    )


def grid(*, missing: bool = False) -> Dataset:
    """A volume of United Imaging: 2 x 2 tiles, of which 3 are slices."""
    ds = one(0, pixels=picture(0, across=2, down=2, slices=3), ImageType=["ORIGINAL", "PRIMARY", "M", "VFRAME"])
    ds.SOPClassUID, ds.Rows, ds.Columns, ds.PixelSpacing = MRImageStorage, 2 * SIDE, 2 * SIDE, [3, 2]
    block = ds.private_block(0x0065, "Image Private Header", create=True)
    block.add_new(0x50, "DS", "3")
    items = [Dataset() for _ in range(2 if missing else 3)]
    for number, item in enumerate(items):
        item.ImagePositionPatient = [-20, 30, 40 - 6 * number]
    block.add_new(0x51, "SQ", items)
    return ds


def changed(ds: Dataset, **attributes: object) -> Dataset:
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def drawn_over(ds: Dataset) -> Dataset:
    ds.PixelData = picture(0, slices=9).astype("<i2").tobytes()
    return ds


NORMAL = np.cross(TURNED[:, 0], TURNED[:, 1])
OBLIQUE = {"row": tuple(TURNED[:, 0]), "column": tuple(TURNED[:, 1])}
CASES = {
    "axial": [mosaic(header=told(0, 0, 1))],
    "against the normal": [mosaic(header=told(0, 0, -1))],
    "oblique": [mosaic(header=told(*NORMAL), **OBLIQUE)],
    "oblique, against": [mosaic(header=told(*-NORMAL), **OBLIQUE)],
    "older CSA header": [mosaic(header=told(0, 0, -1, newer=False))],
    "count in CSA only": [mosaic(header=told(0, 0, 1), count=None)],
    "in time": [mosaic(time, header=told(0, 0, 1)) for time in (2, 0, 1)],
    "no CSA header, axial": [mosaic()],
    "no CSA header, sagittal": [mosaic(row=(0, 1, 0), column=(0, 0, -1))],
    "no count": [mosaic(count=None)],
    "two counts": [mosaic(header=told(0, 0, 1, count=8))],
    "no distance": [changed(mosaic(header=told(0, 0, 1)), SpacingBetweenSlices=None)],
    "normal of another plane": [mosaic(header=told(0, 1, 0))],
    "not in whole tiles": [changed(mosaic(header=told(0, 0, 1)), Rows=11)],
    "pixels in unused tiles": [drawn_over(mosaic(header=told(0, 0, 1)))],
    "count, but no MOSAIC": [changed(mosaic(header=told(0, 0, 1)), ImageType=["ORIGINAL", "PRIMARY", "M", "ND"])],
    "damaged CSA header": [mosaic(header=told(0, 0, 1)[:200])],
    "one slice": [changed(one(), ImageType=["ORIGINAL", "PRIMARY", "M", "ND"])],
    "United Imaging": [grid()],
    "United Imaging, incomplete": [grid(missing=True)],
}


@pytest.fixture(scope="module")
def results(module_batch) -> dict[str, Converted]:
    return converted(module_batch, CASES)


DIRECTIONS = {
    "axial": (0, 0, 5),
    "against the normal": (0, 0, -5),
    "oblique": 5 * NORMAL,
    "oblique, against": -5 * NORMAL,
    "older CSA header": (0, 0, -5),
    "count in CSA only": (0, 0, 5),
    "no CSA header, axial": (0, 0, 5),
}


@pytest.mark.parametrize("name", DIRECTIONS)
def test_every_pixel_of_a_mosaic_is_where_it_was(name: str, results: dict[str, Converted]) -> None:
    image, (ds,) = results[name].image(), CASES[name]
    orientation = np.array(ds.ImageOrientationPatient, float)
    assert image.GetSize() == (SIDE, SIDE, SLICES)
    for number in range(SLICES):
        for y, x in ((0, 0), (SIDE - 1, 1)):
            at = np.array([-20, 30, 40]) + number * np.array(DIRECTIONS[name])
            at = at + x * 2 * orientation[:3] + y * 3 * orientation[3:]
            index = image.TransformPhysicalPointToIndex(at.tolist())
            np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(index), at, atol=1e-4)
            assert image[index] == tile(number, 0)[y, x]


def test_mosaics_in_time_are_in_the_order_of_their_numbers(results: dict[str, Converted]) -> None:
    voxels, head = results["in time"].read()
    np.testing.assert_array_equal(voxels, [[tile(number, time) for number in range(SLICES)] for time in range(3)])
    assert head["MultiVolume.FrameIdentifyingDICOMTagName"] == "AcquisitionNumber"
    assert head["MultiVolume.FrameLabels"] == "1,2,3"


REFUSED = {
    "no CSA header, sagittal": "has no SliceNormalVector: which way it goes is unknown",
    "no count": "is a mosaic (ImageType), and its number of slices is said as nowhere",
    "two counts": "its number of slices is said as 7 and 8",
    "no distance": "is a mosaic without SpacingBetweenSlices",
    "normal of another plane": "is not the normal of its plane",
    "not in whole tiles": "12x11 pixels are not 3x3 tiles",
    "pixels in unused tiles": "has pixels in more tiles than the 7 that it says",
    "count, but no MOSAIC": "its ImageType does not say MOSAIC",
    "damaged CSA header": "its CSA header is damaged",
    "United Imaging, incomplete": "a volume in tiles (VFRAME) of 3 slices; it places 2",
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_picture_of_tiles_that_cannot_be_placed_is_refused(name: str, results: dict[str, Converted]) -> None:
    assert REFUSED[name] in results[name].line
    assert not results[name].names


def test_a_mosaic_that_does_not_say_its_direction_is_written_with_a_word(results: dict[str, Converted]) -> None:
    assert "no SliceNormalVector: slices taken to go from feet to head" in results["no CSA header, axial"].line


def test_an_ordinary_image_of_the_same_scanner_stays_one_slice(results: dict[str, Converted]) -> None:
    assert results["one slice"].image().GetSize() == (6, 4, 1)


def test_a_grid_of_united_imaging_lies_where_its_tiles_say(results: dict[str, Converted]) -> None:
    image = results["United Imaging"].image()
    for number in range(3):
        index = image.TransformPhysicalPointToIndex((-20, 30, 40 - 6 * number))
        assert image[index] == tile(number, 0)[0, 0]
    assert image.GetSize() == (SIDE, SIDE, 3)
    assert image.GetSpacing() == (2, 3, 6)


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_a_real_mosaic_is_as_dcm2niix_reads_it(shared_data: Path, batch, tmp_path: Path) -> None:
    folder = batch.add_files("1.2.3", sorted((shared_data / "mr_mosaic").glob("*.dcm")))
    batch.run("dcm2nrrd")
    program = Path(sys.executable).with_name("dcm2niix")
    subprocess.run([program, "-z", "n", "-b", "n", "-f", "x", "-o", tmp_path, folder], check=True, capture_output=True)
    reference = sitk.ReadImage(str(tmp_path / "x.nii"))
    found = Converted("", batch.out("1.2.3")).image()
    assert found.GetNumberOfComponentsPerPixel() == 2
    for time in range(2):
        volume = sitk.Flip(reference[..., time], [False, True, False])  # dcm2niix turns the rows
        own = sitk.VectorIndexSelectionCast(found, time)
        np.testing.assert_array_equal(sitk.GetArrayViewFromImage(own), sitk.GetArrayViewFromImage(volume))
        np.testing.assert_allclose(own.GetOrigin(), volume.GetOrigin(), atol=1e-3)
        np.testing.assert_allclose(own.GetSpacing(), volume.GetSpacing(), atol=1e-4)
        np.testing.assert_allclose(own.GetDirection(), volume.GetDirection(), atol=1e-5)
