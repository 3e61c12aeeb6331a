"""dcm2nrrd refuses what a NRRD would say untruly, by name, and writes nothing for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, RawDataStorage
from series_made_up import COLUMNS, Converted, converted, one, raw, stack, without_place

Spoil = Callable[[list[Dataset]], object]
IMAGE = ("PixelData", "Rows", "Columns", "BitsAllocated")


def change(index: int, **attributes: object) -> Spoil:
    def apply(datasets: list[Dataset]) -> None:
        for keyword, value in attributes.items():
            setattr(datasets[index], keyword, value)

    return apply


def each(make: Callable[[int], dict[str, object]]) -> Spoil:
    def apply(datasets: list[Dataset]) -> None:
        for number, ds in enumerate(datasets):
            for keyword, value in make(number).items():
                setattr(ds, keyword, value)

    return apply


def drop(index: int) -> Spoil:
    return lambda datasets: datasets.__delitem__(index)


def add(ds: Dataset) -> Spoil:
    return lambda datasets: datasets.append(ds)


def smaller(datasets: list[Dataset]) -> None:
    datasets[2].Rows, datasets[2].PixelData = 2, datasets[2].PixelData[: 2 * COLUMNS * 2]


def is_raw(index: int, **texts: str) -> Spoil:
    def apply(datasets: list[Dataset]) -> None:
        for keyword, text in texts.items():
            raw(datasets[index], keyword, text)

    return apply


def of_class(index: int, uid: str, *dropped: str) -> Spoil:
    def apply(datasets: list[Dataset]) -> None:
        datasets[index].SOPClassUID = uid
        for keyword in dropped:
            delattr(datasets[index], keyword)

    return apply


REFUSED = {
    "missing slice": (drop(2), "slice distance is not constant: 2.5 to 5 mm; slices are missing"),
    "slice out of place": (
        change(2, ImagePositionPatient=[10, 20, 35.4]),
        "slice distance is not constant: 2.1 to 2.9",
    ),
    "one slice aside": (change(3, ImagePositionPatient=[11, 20, 37.5]), "shifted sideways by up to 1 mm"),
    "a slice of another plane": (
        change(2, ImageOrientationPatient=[0, 1, 0, 0, 0, -1]),
        "mixed orientation; stack 1 of 2, axial, 4 images: slice distance is not constant: 2.5 to 5 mm",
    ),
    "no right angle": (each(lambda _: {"ImageOrientationPatient": [1, 0, 0, 0.5, 0.8, 0]}), "not two unit vectors"),
    "image size": (smaller, "mixed image size; stack 1 of 2"),
    "pixel spacing": (change(1, PixelSpacing=[0.5, 0.76]), "mixed pixel spacing"),
    "no pixel spacing": (each(lambda _: {"PixelSpacing": None}), "no PixelSpacing"),
    "zero pixel spacing": (each(lambda _: {"PixelSpacing": [0, 0.5]}), "not above 0"),
    "frame of reference": (change(1, FrameOfReferenceUID="1.10"), "mixed frame of reference: 1.10, 1.9"),
    "one without position": (change(1, ImagePositionPatient=None), "1 of 5 images have no position"),
    "none with a position": (without_place, "5 images that do not say where they are"),
    "another series": (change(1, SeriesInstanceUID="1.2.4"), "is of another series, 1.2.4"),
    "a slice twice": (add(one(2)), "several images at the same position, 1 at some and 2 at others"),
    "all slices twice": (lambda datasets: datasets.extend(stack()), "nothing tells which belong to one volume"),
    "values over the declared bits": (
        each(lambda _: {"RescaleSlope": "1e30", "RescaleIntercept": 0}),
        "fit no type of whole numbers",
    ),
    "position nan": (is_raw(0, ImagePositionPatient="nan\\0\\3"), r"ImagePositionPatient of 0.dcm is nan\0\3, not 3"),
    "position inf": (is_raw(1, ImagePositionPatient="0\\-inf\\3"), "ImagePositionPatient of 1.dcm"),
    "position 1e300": (is_raw(1, ImagePositionPatient="0\\0\\1e300"), "which is no place"),
    "position with a comma": (is_raw(1, ImagePositionPatient="0\\0,5\\3"), "not 3 finite numbers"),
    "position of two numbers": (is_raw(1, ImagePositionPatient="0\\5"), "not 3 finite numbers"),
    "position with underscores": (is_raw(1, ImagePositionPatient="1_0\\20\\32.5"), "not 3 finite numbers"),
    "orientation nan": (is_raw(2, ImageOrientationPatient="nan\\0\\0\\0\\1\\0"), "not 6 finite numbers"),
    "orientation zero": (is_raw(2, ImageOrientationPatient="0\\0\\0\\0\\0\\0"), "not two unit vectors"),
    "pixel spacing nan": (is_raw(3, PixelSpacing="nan\\1"), "PixelSpacing of 3.dcm is nan"),
    "pixel spacing 1e300": (is_raw(3, PixelSpacing="1e300\\1"), "which is no place"),
    "slope nan": (is_raw(4, RescaleSlope="NaN"), "RescaleSlope of 4.dcm is NaN, not a finite number"),
    "slope inf": (is_raw(4, RescaleSlope="1e400"), "RescaleSlope of 4.dcm is 1e400, not a finite number"),
    "slope 1e300": (is_raw(4, RescaleSlope="1e300"), "RescaleSlope of 4.dcm is 1e300: its values are lost"),
    "slope 0": (is_raw(4, RescaleSlope="0.0"), "RescaleSlope of 4.dcm is 0.0: its values are lost"),
    "intercept nan": (is_raw(4, RescaleSlope="1", RescaleIntercept="nan"), "RescaleIntercept of 4.dcm is nan"),
    "intercept 1e300": (
        is_raw(4, RescaleIntercept="-1e300"),
        "RescaleIntercept of 4.dcm is -1e300: its values are lost",
    ),
    "high bit over those allocated": (each(lambda _: {"HighBit": 16}), "HighBit of 0.dcm is 16, with 12 of 16 bits"),
    "high bit under those stored": (each(lambda _: {"HighBit": 7}), "which cannot be"),
    "bits that cannot be": (change(0, BitsStored=17), "0.dcm has BitsAllocated 16 and BitsStored 17"),
    "odd bits allocated": (change(0, BitsAllocated=12), "0.dcm has BitsAllocated 12 and BitsStored 12"),
    "no rows": (change(0, Rows=0), "0.dcm has 6x0 pixels"),
    "two numbers for one": (is_raw(0, Columns="1234"), "0.dcm cannot be read"),
    "no frames": (is_raw(0, NumberOfFrames="-1"), "0.dcm has -1 frames"),
    "number of frames is none": (is_raw(0, NumberOfFrames="1A"), "NumberOfFrames of 0.dcm is 1A"),
    "an image that lost its pixels": (
        of_class(2, CTImageStorage, "PixelData"),
        "2.dcm has no pixels, or nothing that describes them, though it is CT Image Storage",
    ),
    "no image at all": (
        lambda datasets: [of_class(index, RawDataStorage, *IMAGE)(datasets) for index in range(5)],
        "0.dcm has no pixels; it is Raw Data Storage",
    ),
    "two slices aside of each other": (
        lambda datasets: datasets.__setitem__(slice(None), [one(0), one(1, position=(20, 20, 32.5))]),
        "slices are shifted sideways by up to 10 mm",
    ),
}


def spoilt(spoil: Spoil) -> list[Dataset]:
    datasets = stack()
    spoil(datasets)
    return datasets


@pytest.fixture(scope="module")
def results(module_batch) -> dict[str, Converted]:
    return converted(module_batch, {name: spoilt(spoil) for name, (spoil, _) in REFUSED.items()})


@pytest.mark.parametrize("name", REFUSED)
def test_what_lies_on_no_grid_is_refused(name: str, results: dict[str, Converted]) -> None:
    assert "refused: " in results[name].line
    assert REFUSED[name][1] in results[name].line
    assert not results[name].folder.exists()
