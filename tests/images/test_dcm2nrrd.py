"""dcm2nrrd on real series: every voxel and its place as independent readers have them.

The readers are GDCM (through SimpleITK's series reader) and dcm2niix; the NRRD is read by SimpleITK
and, for what that does not show, by pynrrd. The image uses neither of them.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nrrd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813  (its own name for it)
from pydicom.data import get_testdata_file
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from kaapana_assets.containers.protocol import Outcome

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

VOLUMES = ["ct_phantom", "mr_anatomical/001", "ct_j2k", "seg/ct-3slice"]
COMPRESSED = ["compressed", "compressed_jpeg", "compressed_jpegls", "compressed_j2k", "compressed_rle"]


def dicom_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and path.suffix not in {".txt", ".gz"})


def by_gdcm(folder: Path) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def by_dcm2niix(folder: Path, into: Path) -> sitk.Image:
    into.mkdir()
    program = Path(sys.executable).with_name("dcm2niix")
    subprocess.run([program, "-z", "n", "-b", "n", "-f", "x", "-o", into, folder], check=True, capture_output=True)
    (made,) = into.glob("*.nii")
    return sitk.ReadImage(str(made))


def assert_same(found: sitk.Image, reference: sitk.Image, *, within_mm: float = 1e-4) -> None:
    assert found.GetSize() == reference.GetSize()
    np.testing.assert_allclose(found.GetSpacing(), reference.GetSpacing(), atol=within_mm, rtol=0)
    np.testing.assert_allclose(found.GetOrigin(), reference.GetOrigin(), atol=within_mm, rtol=0)
    np.testing.assert_allclose(found.GetDirection(), reference.GetDirection(), atol=1e-5, rtol=0)
    np.testing.assert_array_equal(sitk.GetArrayViewFromImage(found), sitk.GetArrayViewFromImage(reference))


def reoriented(image: sitk.Image, like: sitk.Image) -> sitk.Image:
    """The same voxels with the axes of another image turned the same way (dcm2niix turns rows and slices)."""
    inverse = np.array(like.GetDirection()).reshape(3, 3).T
    turns = inverse @ np.array(image.GetDirection()).reshape(3, 3)
    order = np.abs(turns).argmax(axis=1)
    permuted = sitk.PermuteAxes(image, order.tolist())
    turns = inverse @ np.array(permuted.GetDirection()).reshape(3, 3)
    return sitk.Flip(permuted, [bool(turns[axis, axis] < 0) for axis in range(3)])


@pytest.mark.parametrize("name", VOLUMES)
def test_a_volume_is_as_gdcm_reads_it(name: str, shared_data: Path, batch) -> None:
    folder = batch.add_files("1.2.3", dicom_files(shared_data / name))
    operated = batch.run("dcm2nrrd")
    assert operated.outcome is Outcome.DONE, operated.lines
    found, reference = sitk.ReadImage(str(batch.out("1.2.3") / "1.2.3.nrrd")), by_gdcm(folder)
    assert_same(found, reference)
    assert found.GetPixelID() == reference.GetPixelID()
    assert [file.name for file in batch.out("1.2.3").iterdir()] == ["1.2.3.nrrd"]


@pytest.mark.parametrize("name", VOLUMES)
def test_a_volume_is_as_dcm2niix_reads_it(name: str, shared_data: Path, batch, tmp_path: Path) -> None:
    folder = batch.add_files("1.2.3", dicom_files(shared_data / name))
    batch.run("dcm2nrrd")
    reference = by_dcm2niix(folder, tmp_path / "nifti")
    found = sitk.ReadImage(str(batch.out("1.2.3") / "1.2.3.nrrd"))
    # NIfTI holds its places as 32-bit numbers.
    assert_same(sitk.Cast(found, reference.GetPixelID()), reoriented(reference, found), within_mm=1e-3)


@pytest.mark.parametrize("name", COMPRESSED)
def test_a_compressed_series_is_the_same_volume(name: str, shared_data: Path, batch) -> None:
    folder = shared_data / "compressed" / name
    batch.add_files("1.2.3", dicom_files(folder / "001"))
    assert batch.run("dcm2nrrd").outcome is Outcome.DONE
    found = sitk.ReadImage(str(batch.out("1.2.3") / "1.2.3.nrrd"))
    reference = reoriented(sitk.ReadImage(str(folder / "001_ground_truth.nii.gz")), found)
    np.testing.assert_allclose(found.GetSpacing(), reference.GetSpacing(), atol=1e-4)
    np.testing.assert_allclose(found.GetOrigin(), reference.GetOrigin(), atol=1e-3)
    np.testing.assert_allclose(found.GetDirection(), reference.GetDirection(), atol=1e-4)
    np.testing.assert_array_equal(sitk.GetArrayViewFromImage(found), sitk.GetArrayViewFromImage(reference))


@pytest.mark.parametrize("name", ["001", "002"])
def test_a_slice_distance_that_is_not_constant_is_refused(name: str, shared_data: Path, batch) -> None:
    batch.add_files("1.2.3", dicom_files(shared_data / "odd_geometry" / "sliceincrement" / name))
    operated = batch.run("dcm2nrrd")
    assert operated.outcome is None
    assert "refused: slice distance is not constant" in operated.said_of("1.2.3")
    assert not batch.out("1.2.3").exists()


def test_a_refused_series_does_not_stop_the_others(shared_data: Path, batch) -> None:
    batch.add_files("1.2.3", dicom_files(shared_data / "odd_geometry" / "sliceincrement" / "001"))
    batch.add_files("1.2.4", dicom_files(shared_data / "mr_anatomical" / "001"))
    batch.add_files("1.2.5", [shared_data / "seg" / "liver.dcm"])
    operated = batch.run("dcm2nrrd")
    assert operated.outcome is None
    assert (batch.out("1.2.4") / "1.2.4.nrrd").is_file()
    assert "written: 256x256x4" in operated.said_of("1.2.4")
    assert "segmentation" in operated.said_of("1.2.5")
    assert operated.lines[-1] == "1 series written, 2 refused"


@pytest.mark.parametrize("name", ["mr_0004", "mr_0005"], ids=["one volume after the other", "slices interleaved"])
def test_a_series_in_time_is_as_dcm2niix_reads_it(name: str, shared_data: Path, batch, tmp_path: Path) -> None:
    folder = batch.add_files("1.2.3", dicom_files(shared_data / "mr_epi" / name))
    assert batch.run("dcm2nrrd").outcome is Outcome.DONE
    target = batch.out("1.2.3") / "1.2.3.nrrd"
    found, head = nrrd.read(str(target))
    assert head["kinds"] == ["domain", "domain", "domain", "list"]
    assert np.isnan(head["space directions"][3]).all()
    assert int(head["MultiVolume.NumberOfFrames"]) == 10
    reference = by_dcm2niix(folder, tmp_path / "nifti")
    as_vector = sitk.ReadImage(str(target))
    assert as_vector.GetNumberOfComponentsPerPixel() == 10
    for number in range(10):
        volume = sitk.VectorIndexSelectionCast(as_vector, number)
        np.testing.assert_array_equal(sitk.GetArrayViewFromImage(volume), found[..., number].T)
        assert_same(volume, reoriented(reference[..., number], volume), within_mm=1e-3)


def test_a_real_body_comes_back_as_it_was(shared_data: Path, batch) -> None:
    original = sitk.ReadImage(str(shared_data / "ct_torso" / "example_ct.nii.gz"))
    original = sitk.Cast(sitk.Clamp(original, lowerBound=-1024, upperBound=3071), sitk.sitkInt16)
    batch.add("1.2.3", as_dicom(original))
    assert batch.run("dcm2nrrd").outcome is Outcome.DONE
    found = sitk.ReadImage(str(batch.out("1.2.3") / "1.2.3.nrrd"))
    assert found.GetPixelID() == sitk.sitkInt16
    # Slices are ordered along the normal of the image plane, so the axes may be turned.
    assert_same(found, reoriented(original, found))


def as_dicom(image: sitk.Image) -> list[pydicom.Dataset]:
    """A CT series of an image, in the reverse order of its slices."""
    voxels, study, series, frame = sitk.GetArrayFromImage(image), generate_uid(), generate_uid(), generate_uid()
    direction = np.array(image.GetDirection()).reshape(3, 3)
    made = []
    for number in reversed(range(image.GetDepth())):
        ds = pydicom.Dataset()
        ds.file_meta = pydicom.dataset.FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, generate_uid()
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, frame
        ds.InstanceNumber, ds.Modality = number + 1, "CT"
        ds.ImagePositionPatient = [f"{each:.9g}" for each in image.TransformIndexToPhysicalPoint((0, 0, number))]
        ds.ImageOrientationPatient = [f"{each:.9g}" for each in (*direction[:, 0], *direction[:, 1])]
        ds.PixelSpacing = [f"{image.GetSpacing()[1]:.9g}", f"{image.GetSpacing()[0]:.9g}"]
        ds.Rows, ds.Columns, ds.SamplesPerPixel = image.GetHeight(), image.GetWidth(), 1
        ds.PhotometricInterpretation = "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
        ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
        ds.PixelData = np.clip(voxels[number].astype(int) + 1024, 0, 4095).astype("<u2").tobytes()
        made.append(ds)
    return made


def as_stored(image: sitk.Image, ds: pydicom.Dataset) -> np.ndarray:
    """The numbers that GDCM read; it turns those of MONOCHROME1 so that high ones are bright."""
    values = sitk.GetArrayFromImage(image)
    return (1 << ds.BitsStored) - 1 - values if ds.PhotometricInterpretation == "MONOCHROME1" else values


# What pydicom's own files hold in one transfer syntax after another: 12 and 16 bits, lossy and lossless, RGB.
FILES = [
    "693_J2KI.dcm",
    "693_J2KR.dcm",
    "693_UNCI.dcm",
    "CT_small.dcm",
    "J2K_pixelrep_mismatch.dcm",
    "JPEG-LL.dcm",
    "JPGLosslessP14SV1_1s_1f_8b.dcm",
    "MR2_J2KR.dcm",
    "MR2_UNCR.dcm",
    "MR_small_RLE.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_implicit.dcm",
    "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "RG1_J2KR.dcm",
    "SC_rgb_gdcm_KY.dcm",
    "SC_rgb_rle.dcm",
    "SC_rgb_small_odd.dcm",
    "US1_J2KR.dcm",
    "image_dfl.dcm",
]


@pytest.mark.parametrize("name", FILES)
def test_a_single_image_has_the_pixels_that_gdcm_reads(name: str, batch) -> None:
    file = Path(str(get_testdata_file(name, download=False)))
    batch.add_files("1.2.3", [file])
    operated = batch.run("dcm2nrrd")
    assert operated.outcome is Outcome.DONE, operated.lines
    found, reference = sitk.ReadImage(str(batch.out("1.2.3") / "1.2.3.nrrd")), sitk.ReadImage(str(file))
    ds = pydicom.dcmread(file, stop_before_pixels=True)
    values, by_reference = sitk.GetArrayFromImage(found), as_stored(reference, ds)
    if values.dtype == np.float32:  # GDCM has doubles
        by_reference = by_reference.astype(np.float32)
    np.testing.assert_array_equal(values, by_reference)
    if "ImagePositionPatient" in ds:
        np.testing.assert_allclose(found.GetOrigin(), ds.ImagePositionPatient, atol=1e-6)
        np.testing.assert_allclose(found.GetSpacing()[:2], ds.PixelSpacing[::-1], atol=1e-6)
        np.testing.assert_allclose(found.GetDirection(), reference.GetDirection(), atol=1e-6)
    else:
        assert "without place in the patient" in operated.said_of("1.2.3")
        assert "space" not in nrrd.read_header(str(batch.out("1.2.3") / "1.2.3.nrrd"))


# GDCM decodes lossy JPEG with another inverse transform: a difference of rounding is allowed.
@pytest.mark.parametrize(
    ("name", "within"),
    [
        ("JPEG2000.dcm", 0),
        ("MR2_J2KI.dcm", 1),
        ("RG3_J2KI.dcm", 1),
        ("SC_rgb_dcmtk_+eb+cr.dcm", 1),
        ("SC_rgb_jpeg_dcmtk.dcm", 3),
        ("US1_J2KI.dcm", 1),
    ],
)
def test_a_lossy_image_is_near_what_gdcm_reads(name: str, within: int, batch) -> None:
    file = Path(str(get_testdata_file(name, download=False)))
    batch.add_files("1.2.3", [file])
    assert batch.run("dcm2nrrd").outcome is Outcome.DONE
    found, reference = sitk.ReadImage(str(batch.out("1.2.3") / "1.2.3.nrrd")), sitk.ReadImage(str(file))
    ds = pydicom.dcmread(file, stop_before_pixels=True)
    off = sitk.GetArrayFromImage(found).astype(float) - as_stored(reference, ds).astype(float)
    assert np.abs(off).max() <= within


def test_an_enhanced_object_is_as_gdcm_reads_it(batch) -> None:
    file = Path(str(get_testdata_file("eCT_Supplemental.dcm", download=False)))
    batch.add_files("1.2.3", [file])
    assert batch.run("dcm2nrrd").outcome is Outcome.DONE
    found, reference = sitk.ReadImage(str(batch.out("1.2.3") / "1.2.3.nrrd")), sitk.ReadImage(str(file))
    assert_same(found, reoriented(reference, found))


def test_a_dose_grid_is_in_gray_where_gdcm_has_it(batch) -> None:
    file = Path(str(get_testdata_file("rtdose.dcm", download=False)))
    batch.add_files("1.2.3", [file])
    assert batch.run("dcm2nrrd").outcome is Outcome.DONE
    found, reference = sitk.ReadImage(str(batch.out("1.2.3") / "1.2.3.nrrd")), sitk.ReadImage(str(file))
    scaling = float(pydicom.dcmread(file, stop_before_pixels=True).DoseGridScaling)
    values = sitk.GetArrayFromImage(sitk.Cast(reference, sitk.sitkFloat64)) * scaling
    expected = sitk.GetImageFromArray(values)
    expected.CopyInformation(reference)
    assert_same(found, expected)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("reportsi.dcm", "has no pixels; it is Basic Text SR Storage"),
        ("rtplan.dcm", "has no pixels"),
        ("liver_1frame.dcm", "segmentation"),
        ("MR_truncated.dcm", "cannot be decoded"),
        ("JPEG-lossy.dcm", "cannot be decoded"),
        ("badVR.dcm", "NumberOfFrames of badVR.dcm is 1A"),
        ("mlut_18.dcm", "modality lookup table"),
    ],
)
def test_what_is_no_readable_image_is_refused(name: str, reason: str, batch) -> None:
    batch.add_files("1.2.3", [Path(str(get_testdata_file(name, download=False)))])
    operated = batch.run("dcm2nrrd")
    assert operated.outcome is None
    assert reason in operated.said_of("1.2.3")
    assert not batch.out("1.2.3").exists()
