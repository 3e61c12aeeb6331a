"""dcm2nrrd on files with odd forms and odd numbers, and on objects that are no images among others."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RawDataStorage, RLELossless
from series_made_up import COLUMNS, ROWS, Converted, converted, one, raw, stack, stored


def as_float(dtype: str, **attributes: object) -> Dataset:
    """Fractions in floating point, whatever else the object says."""
    ds = one(**attributes)  # type: ignore[arg-type]
    del ds.PixelData
    del ds.BitsStored
    del ds.HighBit
    values = (np.arange(ROWS * COLUMNS) / 7 + 0.25).astype(dtype).tobytes()
    ds.BitsAllocated = np.dtype(dtype).itemsize * 8
    if dtype == "<f4":
        ds.FloatPixelData = values
    else:
        ds.DoubleFloatPixelData = values
    return ds


def high(*, signed: bool = False, compressed: bool = False) -> list[Dataset]:
    """12 bits stored in the upper ones of 16, something else in the lower ones."""
    made = []
    for number in range(3):
        values = stored(number) - (2000 if signed else 0)
        ds = one(number, pixels=values * 16 + number % 2 * 5, HighBit=15, PixelRepresentation=int(signed))
        ds.PixelData = (values * 16 + number % 2 * 5).astype("<i4").astype("<i2").tobytes()
        if compressed:
            ds.compress(RLELossless, generate_instance_uid=False)
        made.append(ds)
    return made


def raw_data() -> Dataset:
    ds = one(7, SOPClassUID=RawDataStorage)
    for keyword in ("PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(ds, keyword)
    return ds


def private_class() -> Dataset:
    ds = raw_data()
    ds.SOPClassUID = "1.3.46.670589.11.0.0.12.2"
    return ds


def wide() -> Dataset:
    ds = one(0, BitsAllocated=32, BitsStored=32, HighBit=31, RescaleSlope="0.5", RescaleIntercept="0")
    ds.PixelData = (np.arange(ROWS * COLUMNS) + 2**31 + 1).astype("<u4").tobytes()
    return ds


def scaled(slope: str, intercept: str = "0") -> list[Dataset]:
    return stack(3, RescaleSlope=slope, RescaleIntercept=intercept)


IRRELEVANT = ("AcquisitionNumber", "EchoNumbers", "EchoTrainLength", "TemporalPositionIdentifier", "SeriesNumber")
CASES = {
    "float": [as_float("<f4", PixelRepresentation=0)],
    "double": [as_float("<f8", PixelRepresentation=1)],
    "high bits": high(),
    "high bits, signed": high(signed=True),
    "high bits, RLE": high(compressed=True),
    "raw data among images": [*stack(3), raw_data()],
    "object of a private class among images": [*stack(3), private_class()],
    "text where whole numbers belong": [raw(ds, keyword, "1A") for ds in stack(3) for keyword in IRRELEVANT][::5],
    "InstanceNumber of text": [raw(ds, "InstanceNumber", "1A") for ds in stack(3)],
    "thickness nan": [raw(ds, "SliceThickness", "nan") for ds in stack(3)],
    "large slope": scaled("1e28", "0.5"),
    "32 bits and a fraction": [wide()],
}


@pytest.fixture(scope="module")
def results(module_batch) -> dict[str, Converted]:
    return converted(module_batch, CASES)


@pytest.mark.parametrize(("name", "dtype"), [("float", "float32"), ("double", "float64")])
def test_the_element_that_holds_the_pixels_decides_their_type(
    name: str, dtype: str, results: dict[str, Converted]
) -> None:
    voxels, _ = results[name].read()
    assert voxels.dtype == dtype
    expected = (np.arange(ROWS * COLUMNS) / 7 + 0.25).astype(dtype).reshape(1, ROWS, COLUMNS)
    np.testing.assert_array_equal(voxels, expected)


@pytest.mark.parametrize(("name", "shift"), [("high bits", 0), ("high bits, signed", -2000), ("high bits, RLE", 0)])
def test_values_are_the_bits_up_to_the_high_bit(name: str, shift: int, results: dict[str, Converted]) -> None:
    voxels, _ = results[name].read()
    np.testing.assert_array_equal(voxels, [stored(number) + shift for number in range(3)])


ORDINARY = {
    "raw data among images": "; left out: 3.dcm has no pixels; it is Raw Data Storage",
    "object of a private class among images": "; left out: 3.dcm has no pixels; it is 1.3.46.670589.11.0.0.12.2",
    "text where whole numbers belong": "6x4x3 uint16",
    "InstanceNumber of text": "6x4x3 uint16",
    "thickness nan": "6x4x3 uint16",
}


@pytest.mark.parametrize("name", ORDINARY)
def test_what_does_not_matter_to_the_volume_changes_nothing(name: str, results: dict[str, Converted]) -> None:
    voxels, _ = results[name].read()
    np.testing.assert_array_equal(voxels, [stored(number) for number in range(3)])
    assert results[name].line.endswith(ORDINARY[name])
    assert results[name].names == [".nrrd"]


def test_large_values_are_in_a_type_that_holds_them(results: dict[str, Converted]) -> None:
    voxels, _ = results["large slope"].read()
    assert voxels.dtype == np.float32
    np.testing.assert_allclose(voxels, [stored(number) * 1e28 + 0.5 for number in range(3)], rtol=1e-6)


def test_fractions_of_32_bits_are_kept(results: dict[str, Converted]) -> None:
    voxels, _ = results["32 bits and a fraction"].read()
    assert voxels.dtype == np.float64
    np.testing.assert_array_equal(voxels.ravel(), (np.arange(ROWS * COLUMNS) + 2**31 + 1) * 0.5)


FORMS = ["bare, implicit", "bare, explicit", "no preamble", "no delimiter"]


def in_form(folder: Path, form: str) -> None:
    """The files of a folder, rewritten as some programs leave them."""
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        if form.startswith("bare"):
            data = data[144 + struct.unpack("<L", data[140:144])[0] :]
        elif form == "no preamble":
            data = data[132:]
        else:
            assert data[-8:] == b"\xfe\xff\xdd\xe0\0\0\0\0"
            data = data[:-8]
        path.write_bytes(data)


def formed(form: str) -> list[Dataset]:
    datasets = stack(3)
    for ds in datasets:
        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if "implicit" in form else ExplicitVRLittleEndian
        if "delimiter" in form:
            ds.compress(RLELossless, generate_instance_uid=False)
    return datasets


@pytest.fixture(scope="module")
def forms(module_batch) -> tuple[dict[str, str], list[str]]:
    """What is said of series in each form, and all lines."""
    for number, form in enumerate((*FORMS, "cut in its pixels", "no DICOM")):
        datasets = formed(form if form in FORMS else "no delimiter")
        for ds in datasets:
            ds.SeriesInstanceUID = f"1.3.{number}"
        folder = module_batch.add(f"1.3.{number}", datasets)
        if form in FORMS:
            in_form(folder, form)
        elif form == "no DICOM":
            (folder / "1.dcm").write_bytes(b"\x08\0 no DICOM" * 30)
        else:
            (folder / "1.dcm").write_bytes((folder / "1.dcm").read_bytes()[:-30])
    operated = module_batch.run("dcm2nrrd", writes="forms")
    said = {
        form: operated.said_of(f"1.3.{number}") for number, form in enumerate((*FORMS, "cut in its pixels", "no DICOM"))
    }
    return said, operated.lines


@pytest.mark.parametrize("form", FORMS)
def test_a_file_without_meta_or_delimiter_is_read(
    form: str, forms: tuple[dict[str, str], list[str]], module_batch
) -> None:
    series = f"1.3.{FORMS.index(form)}"
    assert forms[0][form] == f"series {series}: written: 6x4x3 uint16"
    voxels, _ = Converted("", module_batch.out(series, folder="forms")).read()
    np.testing.assert_array_equal(voxels, [stored(number) for number in range(3)])


def test_a_damaged_file_is_refused_in_our_own_words(forms: tuple[dict[str, str], list[str]]) -> None:
    said, lines = forms
    assert said["cut in its pixels"].endswith("refused: 1.dcm ends within its pixels")
    assert said["no DICOM"].endswith("refused: 1.dcm is not a DICOM file")
    assert all(line.startswith("series ") for line in lines[:-1])
