"""dcm2nrrd on objects of many frames: where attributes stand, and what says that frames are in time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    EnhancedCTImageStorage,
    EnhancedUSVolumeStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    VLWholeSlideMicroscopyImageStorage,
)
from series_made_up import Converted, converted, one, stored, without_place

COUNT = 4
PLACES = (3, 0, 2, 1)  # of the frames


def item(**attributes: object) -> Dataset:
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def several(**attributes: object) -> Dataset:
    """Frames without any place or time."""
    ds = one(pixels=np.array([stored(number) for number in range(COUNT)]))
    without_place([ds])
    ds.SOPClassUID, ds.NumberOfFrames = MultiFrameGrayscaleWordSecondaryCaptureImageStorage, COUNT
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def enhanced(*changes: Callable[[Dataset, Dataset, list[Dataset]], None]) -> Dataset:
    """An enhanced CT whose frames are 2 mm apart, in no order; attributes are where they belong."""
    ds = several(SOPClassUID=EnhancedCTImageStorage, ImageType=["ORIGINAL", "PRIMARY", "MOSAIC", "NONE"])
    del ds.PixelSpacing
    del ds.SliceThickness
    shared = item(
        PixelMeasuresSequence=[item(PixelSpacing=[0.5, 0.75], SliceThickness=2)],
        PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
    )
    groups = [item(PlanePositionSequence=[item(ImagePositionPatient=[-10, -20, 2.0 * place])]) for place in PLACES]
    ds.SharedFunctionalGroupsSequence, ds.PerFrameFunctionalGroupsSequence = [shared], groups
    for change in changes:
        change(ds, shared, groups)
    return ds


def rescaled_at_the_top(ds: Dataset, shared: Dataset, groups: list[Dataset]) -> None:
    ds.RescaleSlope, ds.RescaleIntercept = 2, -1024


def rescaled_everywhere(ds: Dataset, shared: Dataset, groups: list[Dataset]) -> None:
    rescaled_at_the_top(ds, shared, groups)
    shared.PixelValueTransformationSequence = [item(RescaleSlope=7, RescaleIntercept=7)]
    for group in groups:
        group.PixelValueTransformationSequence = [item(RescaleSlope=3, RescaleIntercept=1)]


def mapped_to_the_real_world(ds: Dataset, shared: Dataset, groups: list[Dataset]) -> None:
    mapping = item(RealWorldValueSlope=5.0, RealWorldValueIntercept=1.0)
    shared.RealWorldValueMappingSequence = [mapping]
    ds.RealWorldValueMappingSequence = [mapping]


def geometry_at_the_top(ds: Dataset, shared: Dataset, groups: list[Dataset]) -> None:
    del shared.PlaneOrientationSequence
    del shared.PixelMeasuresSequence
    ds.ImageOrientationPatient, ds.PixelSpacing, ds.SliceThickness = [1, 0, 0, 0, 1, 0], [0.5, 0.75], 2


def position_at_the_top(ds: Dataset, shared: Dataset, groups: list[Dataset]) -> None:
    for group in groups:
        del group.PlanePositionSequence
    ds.ImagePositionPatient = [-10, -20, 0]


def no_orientation(ds: Dataset, shared: Dataset, groups: list[Dataset]) -> None:
    del shared.PlaneOrientationSequence


def one_place_at_times(ds: Dataset, shared: Dataset, groups: list[Dataset]) -> None:
    for number, group in enumerate(groups):
        del group.PlanePositionSequence
        group.FrameContentSequence = [item(TemporalPositionIndex=COUNT - number)]
    shared.PlanePositionSequence = [item(ImagePositionPatient=[-10, -20, 0])]


def in_a_volume(ds: Dataset, shared: Dataset, groups: list[Dataset]) -> None:
    ds.SOPClassUID = EnhancedUSVolumeStorage
    del shared.PlaneOrientationSequence
    shared.PlaneOrientationVolumeSequence = [item(ImageOrientationVolume=[0.0, 1.0, 0.0, 0.0, 0.0, 1.0])]
    for place, group in zip(PLACES, groups, strict=True):
        del group.PlanePositionSequence
        group.PlanePositionVolumeSequence = [item(ImagePositionVolume=[2.0 * place, 1.0, 3.0])]


def times_only(ds: Dataset, shared: Dataset, groups: list[Dataset]) -> None:
    no_orientation(ds, shared, groups)
    for number, group in enumerate(groups, 1):
        del group.PlanePositionSequence
        group.FrameContentSequence = [item(TemporalPositionIndex=number)]


def two_stacks(ds: Dataset, shared: Dataset, groups: list[Dataset]) -> None:
    for number, (place, group) in enumerate(zip(PLACES, groups, strict=True)):
        group.FrameContentSequence = [item(StackID=str(number % 2 + 1))]
        if number % 2:
            group.PlaneOrientationSequence = [item(ImageOrientationPatient=[0, 1, 0, 0, 0, -1])]
            group.PlanePositionSequence = [item(ImagePositionPatient=[2.0 * place, 0, 0])]


FRAME_TIME, FRAME_TIME_VECTOR, PAGES = 0x00181063, 0x00181065, 0x00182001
CASES = {
    "says MOSAIC": enhanced(),
    "rescale at the top": enhanced(rescaled_at_the_top),
    "rescale everywhere": enhanced(rescaled_everywhere),
    "real world values": enhanced(mapped_to_the_real_world),
    "geometry at the top": enhanced(geometry_at_the_top),
    "position at the top": enhanced(position_at_the_top),
    "no orientation": enhanced(no_orientation),
    "one place at times": enhanced(one_place_at_times),
    "volume of its own": enhanced(in_a_volume),
    "times only": enhanced(times_only),
    "two stacks": enhanced(two_stacks),
    "frame time": several(FrameTime=40, FrameIncrementPointer=FRAME_TIME),
    "frame time, no pointer": several(FrameTime=40),
    "even frame times": several(FrameTimeVector=[0, 25, 25, 25], FrameIncrementPointer=FRAME_TIME_VECTOR),
    "uneven frame times": several(FrameTimeVector=[0, 25, 50, 25], FrameIncrementPointer=FRAME_TIME_VECTOR),
    "pointer to no frame time": several(FrameIncrementPointer=FRAME_TIME),
    "pages": several(FrameIncrementPointer=PAGES, FrameTime=40),
    "no evidence": several(),
    "slide": several(SOPClassUID=VLWholeSlideMicroscopyImageStorage, DimensionOrganizationType="TILED_FULL"),
}  # fmt: skip


@pytest.fixture(scope="module")
def results(module_batch) -> dict[str, Converted]:
    return converted(module_batch, {name: [ds] for name, ds in CASES.items()})


RESCALED = {
    "says MOSAIC": (1, 0),
    "rescale at the top": (2, -1024),
    "rescale everywhere": (3, 1),
    "real world values": (1, 0),
    "geometry at the top": (1, 0),
}


@pytest.mark.parametrize("name", RESCALED)
def test_attributes_count_where_no_nearer_place_has_them(name: str, results: dict[str, Converted]) -> None:
    slope, intercept = RESCALED[name]
    voxels, head = results[name].read()
    frames = [PLACES.index(place) for place in range(COUNT)]
    np.testing.assert_array_equal(voxels, [stored(frame) * slope + intercept for frame in frames])
    assert head["space directions"].tolist() == [[0.75, 0, 0], [0, 0.5, 0], [0, 0, 2]]
    assert head["space origin"].tolist() == [-10, -20, 0]


def test_frames_at_one_place_are_volumes_by_their_times(results: dict[str, Converted]) -> None:
    voxels, head = results["one place at times"].read()
    np.testing.assert_array_equal(voxels, [[stored(number)] for number in reversed(range(COUNT))])
    assert head["MultiVolume.FrameLabels"] == "1,2,3,4"


def test_a_volume_of_ultrasound_is_in_a_space_of_its_own(results: dict[str, Converted]) -> None:
    voxels, head = results["volume of its own"].read()
    np.testing.assert_array_equal(voxels, [stored(PLACES.index(place)) for place in range(COUNT)])
    assert head["space dimension"] == 3
    assert "space" not in head
    assert head["space directions"].tolist() == [[0, 0.75, 0], [0, 0, 0.5], [2, 0, 0]]
    assert head["space origin"].tolist() == [0, 1, 3]
    assert "placed in a volume of its own, not in the patient" in results["volume of its own"].line
    assert results["volume of its own"].image().GetOrigin() == (0, 1, 3)


def test_stacks_of_one_object_are_files_of_their_own(results: dict[str, Converted]) -> None:
    assert results["two stacks"].names == ["_1_axial.nrrd", "_2_sagittal.nrrd"]


TIMES = {
    "frame time": 40,
    "frame time, no pointer": 40,
    "even frame times": 25,
    "uneven frame times": None,
    "times only": None,
}


@pytest.mark.parametrize("name", TIMES)
def test_frames_are_in_time_where_the_object_says_so(name: str, results: dict[str, Converted]) -> None:
    voxels, head = results[name].read()
    np.testing.assert_array_equal(voxels, [stored(number) for number in range(COUNT)])
    assert head["kinds"] == ["domain", "domain", "time"]
    step = head["spacings"][2]
    assert step == TIMES[name] or (TIMES[name] is None and np.isnan(step))
    assert "space" not in head
    assert ("the time between them is not said or not even" in results[name].line) is (TIMES[name] is None)


REFUSED = {
    "position at the top": "has 4 frames and does not say where each of them is",
    "no orientation": "has 4 frames without position or orientation",
    "pointer to no frame time": "says neither where nor when each of them is",
    "pages": "has 4 frames told apart by PageNumberVector, which is neither place nor time",
    "no evidence": "says neither where nor when each of them is",
    "slide": "is a slide in 4 tiles, and no volume",
}


@pytest.mark.parametrize("name", REFUSED)
def test_frames_without_place_or_time_are_refused(name: str, results: dict[str, Converted]) -> None:
    assert REFUSED[name] in results[name].line
    assert not results[name].names
