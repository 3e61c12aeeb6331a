"""dcm2nrrd on series of several volumes: what tells them apart, their order, and that none is mixed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from pydicom.dataset import Dataset
from series_made_up import Converted, converted, one, stored

SLICES = 4
Say = Callable[[int, int], dict[str, object]]  # of a slice and a volume: its attributes


def several(volumes: int, say: Say, *, shuffled: bool = True) -> list[Dataset]:
    """Volumes whose pixels tell slice and volume, with numbers that tell nothing."""
    order = list(range(1, SLICES * volumes + 1))
    if shuffled:
        random.Random(7).shuffle(order)
    numbers = iter(order)
    datasets = []
    for number in range(SLICES):
        for volume in range(volumes):
            ds = one(number, pixels=stored(number) + 1000 * volume, InstanceNumber=next(numbers))
            for keyword, value in say(number, volume).items():
                setattr(ds, keyword, value)
            datasets.append(ds)
    return datasets


def private(datasets: list[Dataset], block: tuple[int, str, int, str], values: Sequence[object]) -> list[Dataset]:
    group, creator, element, vr = block
    for number, ds in enumerate(datasets):
        value = values[number % len(values)]
        if value is not None:
            ds.private_block(group, creator, create=True).add_new(element, vr, value)
    return datasets


def of(keyword: str, *values: object) -> Say:
    """An attribute with one value for each volume; None leaves it out."""
    return lambda _, volume: {} if values[volume] is None else {keyword: values[volume]}


def silent(_: int, volume: int) -> dict[str, object]:
    return {}


def mosaic_types(*components: str) -> Say:
    return lambda _, volume: {"ImageType": ["ORIGINAL", "PRIMARY", components[volume], "ND"]}


SIEMENS = (0x0019, "SIEMENS MR HEADER", 0x0C, "IS")
GE = (0x0043, "GEMS_PARM_01", 0x39, "IS")
PHILIPS = (0x2001, "Philips Imaging DD 001", 0x03, "FL")
UNITED_IMAGING = (0x0065, "Image Private Header", 0x09, "FD")

# What is made, the attribute that tells, the volumes in their right order, and their labels.
SORTED: dict[str, tuple[list[Dataset], str, list[int], str]] = {
    "temporal position": (
        several(4, of("TemporalPositionIdentifier", 2, 10, 1, 3)),
        "TemporalPositionIdentifier",
        [2, 0, 3, 1],
        "1,2,3,10",
    ),
    "trigger time": (several(3, of("TriggerTime", 400, 90.5, 0)), "TriggerTime", [2, 1, 0], "0,90.5,400"),
    "trigger time of each slice's own": (
        several(3, lambda number, volume: {"TriggerTime": (2 - volume) * 30 + number * 0.7}),
        "TriggerTime",
        [2, 1, 0],
        "0,30,60",
    ),
    "frame reference time": (several(2, of("FrameReferenceTime", 9000, 100)), "FrameReferenceTime", [1, 0], "100,9000"),
    "echo time": (several(3, of("EchoTime", 12.5, 100, 4.92)), "EchoTime", [2, 0, 1], "4.92,12.5,100"),
    "echo time that drifts": (
        several(2, lambda number, volume: {"EchoTime": (60, 30)[volume] + 0.001 * number}),
        "EchoTime",
        [1, 0],
        "30,60",
    ),
    "inversion time": (several(2, of("InversionTime", 900, 80)), "InversionTime", [1, 0], "80,900"),
    "flip angle": (several(2, of("FlipAngle", 20, 5)), "FlipAngle", [1, 0], "5,20"),
    "kernel": (
        several(2, of("ConvolutionKernel", "B70f", "B30f"), shuffled=False),
        "ConvolutionKernel",
        [0, 1],
        "B70f,B30f",
    ),
    "kVp": (several(2, of("KVP", 140, 80)), "KVP", [1, 0], "80,140"),
    "b-value": (several(3, of("DiffusionBValue", 1000.0, 0.0, 50.0)), "DiffusionBValue", [1, 2, 0], "0,50,1000"),
    "b-value, absent on b0": (several(2, of("DiffusionBValue", 1000.0, None)), "DiffusionBValue", [1, 0], "none,1000"),
    "b-value of Siemens": (private(several(2, silent), SIEMENS, [1000, 0]), "DiffusionBValue", [1, 0], "0,1000"),
    "b-value of GE": (
        private(several(2, silent), GE, [[1000000800, 8, 0, 0], [0, 8, 0, 0]]),
        "DiffusionBValue",
        [1, 0],
        "0,800",
    ),
    "b-value of Philips": (private(several(2, silent), PHILIPS, [800.0, 0.0]), "DiffusionBValue", [1, 0], "0,800"),
    "b-value of United Imaging": (
        private(several(2, silent), UNITED_IMAGING, [800.0, None]),
        "DiffusionBValue",
        [1, 0],
        "none,800",
    ),
    "directions of one b-value": (
        several(
            2,
            lambda _, volume: {
                "DiffusionBValue": 700.0,
                "DiffusionGradientOrientation": [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]][volume],
            },
            shuffled=False,
        ),
        "DiffusionGradientOrientation",
        [0, 1],
        "1 0 0,0 0 1",
    ),
    "magnitude and phase": (several(2, mosaic_types("P", "M")), "ComplexImageComponent", [1, 0], "MAGNITUDE,PHASE"),
    "real and imaginary": (several(2, mosaic_types("I", "R")), "ComplexImageComponent", [1, 0], "REAL,IMAGINARY"),
    "component of GE": (
        private(several(2, silent), (0x0043, "GEMS_PARM_01", 0x2F, "SS"), [1, 0]),
        "ComplexImageComponent",
        [1, 0],
        "MAGNITUDE,PHASE",
    ),
    "image type": (
        several(
            2, lambda _, volume: {"ImageType": ["DERIVED", "SECONDARY", ("MPR", "AVERAGE")[volume]]}, shuffled=False
        ),
        "ImageType",
        [0, 1],
        "DERIVED/SECONDARY/MPR,DERIVED/SECONDARY/AVERAGE",
    ),
    "acquisition number": (several(2, of("AcquisitionNumber", 12, 9)), "AcquisitionNumber", [1, 0], "9,12"),
    "acquisition time": (
        several(
            2,
            lambda number, volume: {
                "AcquisitionDate": "20240102",
                "AcquisitionTime": f"1011{40 - 20 * volume + number}.5",
            },
        ),
        "AcquisitionTime",
        [1, 0],
        "101120.5,101140.5",
    ),
    "content time": (several(2, of("ContentTime", "101112", "095959.9")), "ContentTime", [1, 0], "095959.9,101112"),
    "numbers in turn": (several(2, silent, shuffled=False), "InstanceNumber", [0, 1], "1,2"),
    "echoes at several times": (
        several(4, lambda _, volume: {"EchoTime": (10, 5)[volume % 2], "TemporalPositionIdentifier": 2 - volume // 2}),
        "EchoTime TemporalPositionIdentifier",
        [3, 1, 2, 0],
        "5 1,5 2,10 1,10 2",
    ),
    "a repetition for each flip angle, with times that tell nothing": (
        several(
            2,
            lambda number, volume: {
                "FlipAngle": (5, 20)[volume],
                "TriggerTime": (number * 37 + volume * (61 if number % 2 else 39)) % 50,
            },
        ),
        "FlipAngle",
        [0, 1],
        "5,20",
    ),
}


def mixed_turns(number: int, volume: int) -> dict[str, object]:
    return {"FlipAngle": (5, 20)[volume if number % 2 == 0 else 1 - volume]}


def crossing(number: int, volume: int) -> dict[str, object]:
    return {"TemporalPositionIdentifier": volume + 1, "AcquisitionNumber": 1 + (volume + number) % 2}


def one_odd_type(number: int, volume: int) -> dict[str, object]:
    return {"ImageType": ["ORIGINAL", "PRIMARY", "M" if volume == 0 or number == 1 else "P", "ND"]}


def without_one(datasets: list[Dataset], number: int) -> list[Dataset]:
    return [ds for index, ds in enumerate(datasets) if index != number]


def with_copy(datasets: list[Dataset]) -> list[Dataset]:
    copy = one(1, ContentTime="115959", InstanceNumber=99)
    return [*datasets, copy]


REFUSED = {
    "two attributes that cross": (
        several(2, crossing),
        "differ in AcquisitionNumber, and no volume could have its own",
    ),
    "one odd image type": (several(2, one_odd_type), "several images at the same position, 1 at some and 2 at others"),
    "an image less at one time": (
        without_one(several(2, of("TemporalPositionIdentifier", 1, 2)), 3),
        "slice distance is not constant: 2.5 to 5 mm; slices are missing",
    ),
    "an image twice": (with_copy(several(1, silent)), "several images at the same position, 1 at some and 2 at others"),
    "nothing that tells": (
        several(2, silent),
        "2 images at each position, and nothing tells which belong to one volume",
    ),
}


@pytest.fixture(scope="module")
def results(module_batch) -> dict[str, Converted]:
    cases = {name: case[0] for name, case in SORTED.items()} | {name: case[0] for name, case in REFUSED.items()}
    cases["mixed turns"] = several(2, mixed_turns, shuffled=False)
    cases["drifting alone"] = several(
        1, lambda number, _: {"EchoTime": 30 + 0.001 * number, "TriggerTime": 90 - number}
    )
    cases["text where a number belongs"] = several(1, of("AcquisitionNumber", "1"))
    cases["b0 of fewer slices"] = list(uneven())
    cases["magnitude unsigned, phase signed"] = different_types()
    return converted(module_batch, cases)


def uneven() -> Iterator[Dataset]:
    for number in range(SLICES):
        yield one(number, DiffusionBValue=1000.0)
        if number < 2:
            yield one(number, pixels=stored(number) + 500, DiffusionBValue=0.0, InstanceNumber=10 + number)


def different_types() -> list[Dataset]:
    datasets = several(2, mosaic_types("M", "P"))
    for ds in datasets[1::2]:
        ds.RescaleSlope, ds.RescaleIntercept = 2, -4096
    for ds in datasets[::2]:
        ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 15, 1
    return datasets


@pytest.mark.parametrize("name", SORTED)
def test_volumes_are_in_the_order_of_what_tells_them_apart(name: str, results: dict[str, Converted]) -> None:
    _, keyword, order, labels = SORTED[name]
    voxels, head = results[name].read()
    expected = [[stored(number) + 1000 * volume for number in range(SLICES)] for volume in order]
    np.testing.assert_array_equal(voxels, expected)
    assert head["MultiVolume.FrameIdentifyingDICOMTagName"] == keyword
    assert head["MultiVolume.FrameLabels"] == labels
    assert f"volumes by {keyword}" in results[name].line


@pytest.mark.parametrize("name", REFUSED)
def test_volumes_that_cannot_be_told_apart_are_refused(name: str, results: dict[str, Converted]) -> None:
    assert REFUSED[name][1] in results[name].line
    assert not results[name].names


def test_no_volume_mixes_two_flip_angles(results: dict[str, Converted]) -> None:
    voxels, head = results["mixed turns"].read()
    for volume in range(2):
        expected = [stored(number) + 1000 * (volume if number % 2 == 0 else 1 - volume) for number in range(SLICES)]
        np.testing.assert_array_equal(voxels[volume], expected)
    assert head["MultiVolume.FrameLabels"] == "5,20"


def test_what_drifts_from_slice_to_slice_is_one_volume(results: dict[str, Converted]) -> None:
    voxels, head = results["drifting alone"].read()
    np.testing.assert_array_equal(voxels, [stored(number) for number in range(SLICES)])
    assert "MultiVolume.FrameLabels" not in head


def test_volumes_of_different_positions_are_files_of_their_own(results: dict[str, Converted]) -> None:
    found = results["b0 of fewer slices"]
    assert found.names == ["_1_axial_DiffusionBValue-1000.nrrd", "_2_axial_DiffusionBValue-0.nrrd"]
    np.testing.assert_array_equal(found.read(found.names[0])[0], [stored(number) for number in range(4)])
    np.testing.assert_array_equal(found.read(found.names[1])[0], [stored(number) + 500 for number in range(2)])


def test_volumes_of_different_types_are_in_one_that_holds_both(results: dict[str, Converted]) -> None:
    voxels, _ = results["magnitude unsigned, phase signed"].read()
    np.testing.assert_array_equal(voxels[0], [stored(number) for number in range(SLICES)])
    np.testing.assert_array_equal(voxels[1], [(stored(number) + 1000) * 2 - 4096 for number in range(SLICES)])
