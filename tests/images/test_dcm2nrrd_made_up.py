"""dcm2nrrd on series made up for one trap each; every expected number is worked out here."""

from __future__ import annotations

import nrrd
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  (its own name for it)
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedMRImageStorage, SecondaryCaptureImageStorage, UltrasoundMultiFrameImageStorage
from series_made_up import COLUMNS, ROWS, SERIES, one, stack, stored, without_place

from kaapana_assets.containers.protocol import Outcome


def written(batch, datasets: list[Dataset]) -> sitk.Image:
    batch.add(SERIES, datasets)
    operated = batch.run("dcm2nrrd")
    assert operated.outcome is Outcome.DONE, operated.lines
    return sitk.ReadImage(str(batch.out(SERIES) / f"{SERIES}.nrrd"))


def voxels(image: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(image)


def test_steps_and_origin_are_exact(batch) -> None:
    image = written(batch, stack())
    assert image.GetSize() == (COLUMNS, ROWS, 5)
    assert image.GetSpacing() == (0.75, 0.5, 2.5)
    assert image.GetOrigin() == (10, 20, 30)
    assert image.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1)
    np.testing.assert_array_equal(voxels(image), [stored(number) for number in range(5)])
    head = nrrd.read_header(str(batch.out(SERIES) / f"{SERIES}.nrrd"))
    assert head["space"] == "left-posterior-superior"
    assert head["encoding"] == "gzip"


def test_slices_are_in_place_whatever_the_order_of_files_and_numbers(batch) -> None:
    datasets = stack()
    for ds, number in zip(datasets, [3, 1, 5, 2, 4], strict=True):
        ds.InstanceNumber = number
    image = written(batch, [datasets[number] for number in (4, 0, 2, 1, 3)])
    np.testing.assert_array_equal(voxels(image), [stored(number) for number in range(5)])


def test_an_oblique_series_keeps_every_voxel_where_it_was(batch) -> None:
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    row, column = turn[:, 0], turn[:, 1]
    normal = np.cross(row, column)
    datasets = stack(7)
    for number, ds in enumerate(datasets):
        ds.ImageOrientationPatient = [f"{each:.8f}" for each in (*row, *column)]
        ds.ImagePositionPatient = [f"{each:.6f}" for each in np.array([-50.0, 7, 3]) + normal * 1.25 * number]
    image = written(batch, datasets)
    for number, ds in enumerate(datasets):
        at = np.array(image.TransformIndexToPhysicalPoint((5, 3, number)))
        expected = np.array(ds.ImagePositionPatient, float) + row * 5 * 0.75 + column * 3 * 0.5
        np.testing.assert_allclose(at, expected, atol=1e-5)
    np.testing.assert_array_equal(voxels(image), [stored(number) for number in range(7)])


def test_positions_with_one_decimal_are_rounding(batch) -> None:
    datasets = [one(number, position=(10, 20, round(30 + 0.625 * number, 1))) for number in range(9)]
    image = written(batch, datasets)
    assert image.GetSpacing()[2] == pytest.approx(0.625)


@pytest.mark.parametrize(
    ("said", "spacing", "note"),
    [
        ({"SliceThickness": 3}, 3, "one slice, 3 mm as its header says"),
        ({"SliceThickness": 3, "SpacingBetweenSlices": -4}, 4, "one slice, 4 mm as its header says"),
        ({"SliceThickness": None}, 1, "one slice of unknown thickness, 1 mm assumed"),
    ],
    ids=["thickness", "distance", "nothing"],
)
def test_a_single_slice_is_a_volume_of_one(said: dict[str, object], spacing: float, note: str, batch) -> None:
    ds = one()
    for keyword, value in said.items():
        setattr(ds, keyword, value)
    image = written(batch, [ds])
    assert image.GetSize() == (COLUMNS, ROWS, 1)
    assert image.GetSpacing() == (0.75, 0.5, spacing)
    assert batch.run("dcm2nrrd").said_of(SERIES).endswith(note)


# stored type, BitsStored, slope, intercept -> type of the NRRD
TYPES = {
    "unsigned as stored": (0, 12, None, None, sitk.sitkUInt16),
    "signed as stored": (1, 16, None, None, sitk.sitkInt16),
    "CT of 12 bits": (0, 12, 1, -1024, sitk.sitkInt16),
    "CT of 16 bits": (0, 16, 1, -1024, sitk.sitkInt32),
    "whole slope": (0, 12, "2.0", "-10", sitk.sitkInt16),
    "whole slope over 16 bits": (0, 16, 3, 0, sitk.sitkInt32),
    "broken slope": (0, 12, 0.5, 1, sitk.sitkFloat32),
    "broken intercept": (1, 16, 1, -0.25, sitk.sitkFloat32),
}


@pytest.mark.parametrize(("signed", "bits", "slope", "intercept", "expected"), TYPES.values(), ids=TYPES)
def test_whole_numbers_stay_whole_in_a_type_that_holds_them(
    signed: int, bits: int, slope: object, intercept: object, expected: int, batch
) -> None:
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    datasets = stack(3)
    for number, ds in enumerate(datasets):
        pixels = stored(number)
        pixels[0, :2] = low, high
        ds.PixelRepresentation, ds.BitsStored, ds.HighBit = signed, bits, bits - 1
        ds.PixelData = pixels.astype("<i8").astype("<u2").tobytes()
        if slope is not None:
            ds.RescaleSlope, ds.RescaleIntercept = slope, intercept
    image = written(batch, datasets)
    assert image.GetPixelID() == expected
    factor, term = float(str(slope or 1)), float(str(intercept or 0))
    assert voxels(image)[1, 0, :2].tolist() == [low * factor + term, high * factor + term]
    np.testing.assert_array_equal(voxels(image)[:, 1:], [stored(number)[1:] * factor + term for number in range(3)])


def test_every_slice_has_its_own_slope(batch) -> None:
    """As in PET, where each slice is scaled to its own maximum."""
    slopes = [0.731, 1.0, 2.25, 0.0123]
    datasets = stack(4)
    for ds, slope in zip(datasets, slopes, strict=True):
        ds.RescaleSlope, ds.RescaleIntercept = slope, 0
    image = written(batch, datasets)
    assert image.GetPixelID() == sitk.sitkFloat32
    exact = np.array([stored(number) * slope for number, slope in enumerate(slopes)])
    np.testing.assert_array_equal(voxels(image), exact.astype(np.float32))


def test_bits_over_those_stored_are_no_values(batch) -> None:
    """Old files keep overlays in the unused high bits."""
    datasets = stack(3)
    for number, ds in enumerate(datasets):
        ds.PixelData = (stored(number) | 0x8000).astype("<u2").tobytes()
    np.testing.assert_array_equal(voxels(written(batch, datasets)), [stored(number) for number in range(3)])


def test_padding_is_kept_as_it_is_stored(batch) -> None:
    datasets = stack(3)
    for ds in datasets:
        ds.PixelRepresentation, ds.BitsStored, ds.HighBit = 1, 16, 15
        ds.PixelPaddingValue, ds.RescaleSlope, ds.RescaleIntercept = -2000, 1, -24
        ds.PixelData = np.full((ROWS, COLUMNS), -2000).astype("<i2").tobytes()
    assert set(voxels(written(batch, datasets)).flat) == {-2024}


def test_colour_is_kept(batch) -> None:
    colours = np.arange(3 * ROWS * COLUMNS * 3, dtype=np.uint8).reshape(3, ROWS, COLUMNS, 3)
    datasets = stack(3)
    for number, ds in enumerate(datasets):
        ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", number % 2
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
        planes = colours[number] if number % 2 == 0 else colours[number].transpose(2, 0, 1)
        ds.PixelData = planes.tobytes()
    image = written(batch, datasets)
    assert image.GetSpacing() == (0.75, 0.5, 2.5)
    np.testing.assert_array_equal(voxels(image), colours)


@pytest.mark.parametrize("keyword", ["TemporalPositionIdentifier", "EchoTime", "AcquisitionNumber", "DiffusionBValue"])
def test_volumes_at_the_same_places_are_a_list(keyword: str, batch) -> None:
    datasets = []
    for number in range(4):  # in an order of InstanceNumber that tells nothing
        for time, value in enumerate([30, 10, 20]):
            ds = one(number, pixels=stored(number) + 1000 * time)
            ds.InstanceNumber = (7 * (3 * number + time)) % 12 + 1
            setattr(ds, keyword, value)
            datasets.append(ds)
    batch.add(SERIES, datasets)
    assert batch.run("dcm2nrrd").outcome is Outcome.DONE
    found, head = nrrd.read(str(batch.out(SERIES) / f"{SERIES}.nrrd"))
    assert head["MultiVolume.FrameIdentifyingDICOMTagName"] == keyword
    labels = [float(label) for label in head["MultiVolume.FrameLabels"].split(",")]
    for position, label in enumerate(labels):
        time = [30, 10, 20].index(int(label))
        expected = [stored(number) + 1000 * time for number in range(4)]
        np.testing.assert_array_equal(found[..., position].T, expected)
    assert sorted(labels) == [10, 20, 30]


def enhanced(order: list[int], *, times: int = 1) -> Dataset:
    """An enhanced MR object whose frames are slices in a given order, each with a slope of its own."""
    ds = one()
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(ds, keyword)
    ds.SOPClassUID, ds.NumberOfFrames = EnhancedMRImageStorage, len(order) * times
    plane, measures = Dataset(), Dataset()
    plane.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    measures.PixelSpacing, measures.SliceThickness = [0.5, 0.75], 2
    shared = Dataset()
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = Sequence([plane]), Sequence([measures])
    ds.SharedFunctionalGroupsSequence = Sequence([shared])
    groups, pixels = [], b""
    for time in range(times):
        for number in order:
            position, scale, content, group = Dataset(), Dataset(), Dataset(), Dataset()
            position.ImagePositionPatient = [-4 * number, 5, 6]
            scale.RescaleSlope, scale.RescaleIntercept = number + 1, -time
            content.TemporalPositionIndex = time + 1
            group.PlanePositionSequence = Sequence([position])
            group.PixelValueTransformationSequence = Sequence([scale])
            group.FrameContentSequence = Sequence([content])
            groups.append(group)
            pixels += stored(number).astype("<u2").tobytes()
    ds.PerFrameFunctionalGroupsSequence, ds.PixelData = Sequence(groups), pixels
    return ds


def test_frames_of_an_enhanced_object_are_put_where_they_say(batch) -> None:
    image = written(batch, [enhanced([2, 0, 1, 3])])
    assert image.GetSpacing() == (0.75, 0.5, 4)
    assert image.GetOrigin() == (0, 5, 6)
    np.testing.assert_allclose(image.TransformIndexToPhysicalPoint((1, 2, 3)), (-12, 5.75, 5))
    np.testing.assert_array_equal(voxels(image), [stored(number) * (number + 1) for number in range(4)])


def test_an_enhanced_object_in_time_is_a_list(batch) -> None:
    image = written(batch, [enhanced([1, 0, 2], times=2)])
    assert image.GetNumberOfComponentsPerPixel() == 2
    assert image.GetSpacing() == (0.75, 0.5, 4)
    for time in range(2):
        expected = [stored(number) * (number + 1) - time for number in range(3)]
        np.testing.assert_array_equal(voxels(image)[..., time], expected)


def test_frames_without_a_place_are_frames_in_time(batch) -> None:
    ds = one(pixels=np.array([stored(number) for number in range(3)]))
    without_place([ds])
    ds.SOPClassUID, ds.NumberOfFrames, ds.FrameTime = UltrasoundMultiFrameImageStorage, 3, 40
    del ds.PixelSpacing
    image = written(batch, [ds])
    np.testing.assert_array_equal(voxels(image), [stored(number) for number in range(3)])
    head = nrrd.read_header(str(batch.out(SERIES) / f"{SERIES}.nrrd"))
    assert head["kinds"] == ["domain", "domain", "time"]
    assert head["spacings"][2] == 40
    assert np.isnan(head["spacings"][:2]).all()
    assert "space" not in head


def test_frames_that_share_one_position_are_refused(batch) -> None:
    ds = one(pixels=np.array([stored(number) for number in range(3)]))
    ds.NumberOfFrames = 3
    batch.add(SERIES, [ds])
    assert "does not say where each of them is" in batch.run("dcm2nrrd").said_of(SERIES)


def test_a_capture_without_a_place_has_none_in_the_nrrd(batch) -> None:
    ds = one()
    without_place([ds])
    ds.SOPClassUID = SecondaryCaptureImageStorage
    written(batch, [ds])
    head = nrrd.read_header(str(batch.out(SERIES) / f"{SERIES}.nrrd"))
    assert "space" not in head
    assert head["spacings"].tolist() == [0.75, 0.5, 3]


def test_the_same_series_makes_the_same_bytes(batch) -> None:
    written(batch, stack())
    target = batch.out(SERIES) / f"{SERIES}.nrrd"
    first = target.read_bytes()
    batch.run("dcm2nrrd")
    assert target.read_bytes() == first


def test_an_empty_series_is_refused(batch) -> None:
    batch.add_files(SERIES, [])
    assert "refused: there is no file" in batch.run("dcm2nrrd").said_of(SERIES)
