"""dcm2nrrd on where slices are: stacks of several planes, rounded and sheared positions."""

from __future__ import annotations

import gzip

import nrrd
import numpy as np
import pytest
from pydicom.dataset import Dataset
from series_made_up import COLUMNS, ROWS, Converted, converted, one, stack, stored

PLANES = {
    "axial": ((1, 0, 0, 0, 1, 0), (0, 0, 1)),
    "coronal": ((1, 0, 0, 0, 0, -1), (0, 1, 0)),
    "sagittal": ((0, 1, 0, 0, 0, -1), (-1, 0, 0)),
    "oblique": ((0.6, 0.8, 0, 0.48, -0.36, 0.8), (0.64, -0.48, -0.6)),
}
HEAD = """NRRD0005
type: uint16
dimension: 3
space: left-posterior-superior
sizes: 6 4 5
space directions: (0.75,0.0,0.0) (0.0,0.5,0.0) (0.0,0.0,2.5)
kinds: domain domain domain
endian: little
encoding: gzip
space units: "mm" "mm" "mm"
space origin: (10.0,20.0,30.0)

"""


def localizer() -> list[Dataset]:
    datasets = []
    for plane, (orientation, normal) in enumerate(PLANES.values()):
        for number in range(3):
            position = np.array([5, 6, 7]) + 4 * number * np.array(normal)
            made = one(number, position=tuple(position.tolist()), pixels=stored(10 * plane + number))
            made.ImageOrientationPatient, made.InstanceNumber = list(orientation), 3 * plane + number
            datasets.append(made)
    return datasets


def two_sizes() -> list[Dataset]:
    large = stack(3)
    small = [one(number, pixels=stored(number)[:2], Rows=2, InstanceNumber=10 + number) for number in range(2)]
    return [*small, *large]


def rounded(distance: float, seed: int) -> list[Dataset]:
    """Positions along an axis, written with one decimal, that begin anywhere."""
    begin = np.random.default_rng(seed).uniform(-200, 200)
    return [one(number, position=(10, 20, round(begin + distance * number, 1))) for number in range(15)]


def rounded_oblique() -> list[Dataset]:
    orientation, normal = PLANES["oblique"]
    positions = [np.array([5.03, 6.08, 7.01]) + 1.37 * number * np.array(normal) for number in range(15)]
    return [
        one(number, position=tuple(position.round(1).tolist()), ImageOrientationPatient=list(orientation))
        for number, position in enumerate(positions)
    ]


def grey_and_colour() -> list[Dataset]:
    colour = one(7, pixels=np.zeros((ROWS, COLUMNS * 3)), SamplesPerPixel=3, PhotometricInterpretation="RGB")
    colour.PlanarConfiguration = 0
    return [*stack(2), colour]


def jittered() -> list[Dataset]:
    return [
        one(
            number,
            position=(10, 20, 30 + 2.5 * number + 0.002 * ((number + time) % 2)),
            pixels=stored(number) + 1000 * time,
            TemporalPositionIdentifier=time + 1,
        )
        for number in range(4)
        for time in range(2)
    ]


def tilted(*, plane: str = "axial") -> list[Dataset]:
    orientation, normal = PLANES[plane]
    step = 2.5 * np.array(normal) - 0.4 * np.array(orientation[3:])
    made = stack(5, ImageOrientationPatient=list(orientation))
    for number, ds in enumerate(made):
        ds.ImagePositionPatient = [f"{each:.6f}" for each in np.array([10, 20, 30]) + number * step]
    return made


DISTANCES = (0.5, 0.625, 0.9375, 1.37, 3.27)
ROUNDED = {f"{distance} mm, {seed}": (distance, seed) for distance in DISTANCES for seed in range(6)}
CASES = {
    "ordinary": stack(),
    "localizer": localizer(),
    "two sizes": two_sizes(),
    "two spacings": [*stack(2), *[one(number, PixelSpacing=[1, 1]) for number in (2, 3)]],
    "grey and colour": grey_and_colour(),
    "one bright when low": [*stack(2), *[one(number, PhotometricInterpretation="MONOCHROME1") for number in (2, 3)]],
    "jittered": jittered(),
    "tilted": tilted(),
    "tilted and turned": tilted(plane="oblique"),
    "rounded and turned": rounded_oblique(),
} | {name: rounded(*case) for name, case in ROUNDED.items()}  # fmt: skip


@pytest.fixture(scope="module")
def results(module_batch) -> dict[str, Converted]:
    return converted(module_batch, CASES)


def test_an_ordinary_volume_has_this_name_and_header(results: dict[str, Converted]) -> None:
    found = results["ordinary"]
    assert found.names == [".nrrd"]
    head, _, packed = (found.folder / f"{found.series}.nrrd").read_bytes().partition(b"\n\n")
    assert head.decode() + "\n\n" == HEAD
    expected = np.array([stored(number) for number in range(5)], "<u2").tobytes()
    assert gzip.decompress(packed) == expected


def test_each_plane_of_a_localizer_is_a_volume_of_its_own(results: dict[str, Converted]) -> None:
    found = results["localizer"]
    names = [f"_{number}_{name}.nrrd" for number, name in enumerate(PLANES, 1)]
    assert found.names == names
    for plane, (name, (orientation, normal)) in enumerate(zip(names, PLANES.values(), strict=True)):
        image = found.image(name)
        for number in range(3):
            at = np.array([5, 6, 7]) + 4 * number * np.array(normal) + 2 * 0.75 * np.array(orientation[:3])
            index = image.TransformPhysicalPointToIndex(at.tolist())
            np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(index), at, atol=1e-6)
            assert image[index] == stored(10 * plane + number)[0, 2]
        assert f"{found.series}{name}: 6x4x3 uint16" in found.line


DIFFERENT = {
    "two sizes": [("_1_axial.nrrd", (6, 4, 3)), ("_2_axial.nrrd", (6, 2, 2))],
    "two spacings": [("_1_axial.nrrd", (6, 4, 2)), ("_2_axial.nrrd", (6, 4, 2))],
    "grey and colour": [("_1_axial.nrrd", (6, 4, 2)), ("_2_axial.nrrd", (6, 4, 1))],
    "one bright when low": [("_1_axial.nrrd", (6, 4, 2)), ("_2_axial.nrrd", (6, 4, 2))],
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_fits_no_common_grid_is_in_files_of_its_own(name: str, results: dict[str, Converted]) -> None:
    found = results[name]
    assert [(each, found.image(each).GetSize()) for each in found.names] == DIFFERENT[name]


@pytest.mark.parametrize("name", ROUNDED)
def test_positions_rounded_to_one_decimal_fit_a_line(name: str, results: dict[str, Converted]) -> None:
    image = results[name].image()
    assert image.GetSpacing()[2] == pytest.approx(ROUNDED[name][0], abs=0.008)
    for number, ds in enumerate(CASES[name]):
        assert image.TransformIndexToPhysicalPoint((0, 0, number))[2] == pytest.approx(
            float(ds.ImagePositionPatient[2]), abs=0.08
        )


def test_rounded_positions_of_an_oblique_stack_fit_a_line(results: dict[str, Converted]) -> None:
    image = results["rounded and turned"].image()
    assert image.GetSpacing()[2] == pytest.approx(1.37, abs=0.01)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    np.testing.assert_allclose(direction.T @ direction, np.eye(3), atol=1e-9)


def test_jitter_between_volumes_is_one_grid(results: dict[str, Converted]) -> None:
    voxels, head = results["jittered"].read()
    expected = [[stored(number) + 1000 * time for number in range(4)] for time in range(2)]
    np.testing.assert_array_equal(voxels, expected)
    assert head["space directions"][2].tolist() == pytest.approx([0, 0, 2.5], abs=1e-3)


@pytest.mark.parametrize("name", ["tilted", "tilted and turned"])
def test_a_tilted_gantry_is_a_sheared_grid_as_independent_readers_see_it(
    name: str, results: dict[str, Converted]
) -> None:
    found, datasets = results[name], CASES[name]
    image = found.image()
    data, head = nrrd.read(str(found.folder / f"{found.series}.nrrd"))
    for number, ds in enumerate(datasets):
        orientation = np.array(ds.ImageOrientationPatient, float)
        at = np.array(ds.ImagePositionPatient, float) + 5 * 0.75 * orientation[:3] + 3 * 0.5 * orientation[3:]
        np.testing.assert_allclose(image.TransformIndexToPhysicalPoint((5, 3, number)), at, atol=1e-5)
        by_pynrrd = head["space origin"] + np.array([5, 3, number]) @ head["space directions"]
        np.testing.assert_allclose(by_pynrrd, at, atol=1e-5)
        np.testing.assert_array_equal(data[..., number].T, stored(number))
        assert image[5, 3, number] == stored(number)[3, 5]
    assert "sheared: each slice is shifted by 0.4 mm against its normal" in found.line
