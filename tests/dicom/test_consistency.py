"""The check of a series finds what is wrong with it, and nothing where nothing is."""

from pathlib import Path

import pytest

from kaapana_assets.dicom.consistency import FindingKind, check_series
from kaapana_assets.dicom.headers import read_header

AXIAL = [1, 0, 0, 0, 1, 0]
SAGITTAL = [0, 1, 0, 0, 0, -1]
GAP = FindingKind.SLICE_GAP
DUPLICATE = FindingKind.DUPLICATE_INSTANCE


def headers_of(folder: Path):
    return [read_header(path) for path in sorted(folder.iterdir()) if path.suffix != ".txt"]


@pytest.fixture
def image(dataset):
    """A slice at ``z`` mm; its SOPInstanceUID counts up."""
    count = iter(range(1, 100_000))

    def make(z, *, orientation=AXIAL, **attributes):
        number = next(count)
        attributes = {
            "SOPInstanceUID": f"1.2.{number}",
            "InstanceNumber": number,
            "ImagePositionPatient": [0, 0, z],
            "ImageOrientationPatient": orientation,
            "Rows": 64,
            "Columns": 64,
            "FrameOfReferenceUID": "1.9",
            "PatientID": "P",
        } | attributes
        return dataset(**{keyword: value for keyword, value in attributes.items() if value is not None})

    return make


def kinds(headers):
    return [finding.kind for finding in check_series(headers)]


@pytest.mark.parametrize(
    "folder",
    [
        "ct_phantom",
        "mr_epi/mr_0004",
        "mr_epi/mr_0005",
        "mr_anatomical/001",
        "compressed/compressed/001",
        "seg/ct-3slice",
    ],
)
def test_real_series_without_fault_has_no_finding(shared_data, folder):
    assert check_series(headers_of(shared_data / folder)) == []


@pytest.mark.parametrize("folder", ["001", "002"])
def test_real_series_with_a_missing_slice_has_a_gap(shared_data, folder):
    (finding,) = check_series(headers_of(shared_data / "odd_geometry" / "sliceincrement" / folder))
    assert finding.kind is GAP
    assert len(finding.sop_instance_uids) == 2
    assert "mm" in finding.message


def test_real_4d_series_with_one_slice_sent_again_has_a_duplicate(shared_data):
    headers = headers_of(shared_data / "mr_epi" / "mr_0004")
    again = headers_of(shared_data / "mr_epi" / "mr_0004")[7]
    again.SOPInstanceUID = "1.2.3"
    (finding,) = check_series([*headers, again])
    assert finding.kind is DUPLICATE
    assert len(finding.sop_instance_uids) == 1


def volume(image, positions=(0, 5, 10, 15), **attributes):
    return [image(z, **attributes) for z in positions]


CLEAN = {
    "plain": volume,
    "one-slice": lambda image: volume(image, [3]),
    "two-slices": lambda image: volume(image, [3, 30]),
    "descending-and-jittering": lambda image: volume(image, [15, 10.02, 5, 0.01, -4.99]),
    "multi-echo": lambda image: volume(image, EchoTime=10) + volume(image, EchoTime=20),
    "magnitude-and-phase": lambda image: (
        volume(image, ImageType=["O", "P", "M"]) + volume(image, ImageType=["O", "P", "P"])
    ),
    "time-points": lambda image: (
        volume(image, TemporalPositionIdentifier=1) + volume(image, TemporalPositionIdentifier=2)
    ),
    "time-points-untold": lambda image: volume(image) + volume(image) + volume(image),
    "interrupted-last-volume": lambda image: volume(image) + volume(image) + volume(image)[:2],
    "diffusion": lambda image: volume(image, DiffusionBValue=0.0) + volume(image, DiffusionBValue=800.0),
    "gantry-tilt": lambda image: [image(z, ImagePositionPatient=[0, z / 3, z]) for z in (0, 5, 10, 15)],
    "localizer": lambda image: [
        image(z, orientation=o, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
        for o in (AXIAL, SAGITTAL)
        for z in (0, 0, 9)
    ],
    "localizer-by-name": lambda image: [
        image(z, orientation=o, SeriesDescription="3-PL LOC") for o in (AXIAL, SAGITTAL) for z in (0, 5)
    ],
    "no-geometry": lambda image: volume(image, ImagePositionPatient=None, ImageOrientationPatient=None),
    "projections-of-other-sizes": lambda image: [
        image(0, Rows=rows, ImagePositionPatient=None, ImageOrientationPatient=None) for rows in (100, 200)
    ],
    "multi-frame": lambda image: volume(image, [0, 0, 50], NumberOfFrames=20),
    "empty-patient-id": lambda image: volume(image, PatientID="") + volume(image, [20]),
    "nothing": lambda image: volume(image, []),
}


@pytest.mark.parametrize("make", CLEAN.values(), ids=CLEAN.keys())
def test_series_without_fault_has_no_finding(image, make):
    assert check_series(make(image)) == []


FAULTY = {
    "missing-slice": (lambda image: volume(image, [0, 5, 10, 20, 25]), GAP),
    "jump": (lambda image: volume(image, [0, 5, 10, 15, 21]), GAP),
    "sideways-jump": (lambda image: [*volume(image), image(20, ImagePositionPatient=[3, 0, 20])], GAP),
    "missing-slice-micro": (lambda image: volume(image, [0, 0.05, 0.1, 0.2, 0.25]), GAP),
    "slice-sent-again": (lambda image: [*volume(image), image(5)], DUPLICATE),
    "all-sent-again": (lambda image: volume(image, InstanceNumber=1) + volume(image, InstanceNumber=1), DUPLICATE),
    "size": (lambda image: [*volume(image), image(20, Rows=128)], FindingKind.MIXED_SIZE),
    "orientation": (
        lambda image: [*volume(image), image(20, orientation=SAGITTAL)],
        FindingKind.MIXED_ORIENTATION,
    ),
    "frame-of-reference": (
        lambda image: [*volume(image), image(20, FrameOfReferenceUID="1.8")],
        FindingKind.MIXED_FRAME_OF_REFERENCE,
    ),
    "patient": (lambda image: [*volume(image), image(20, PatientID="Q")], FindingKind.MIXED_PATIENT),
    "study": (lambda image: [*volume(image), image(20, StudyInstanceUID="1.7")], FindingKind.MIXED_STUDY),
}


@pytest.mark.parametrize(("make", "kind"), FAULTY.values(), ids=FAULTY.keys())
def test_fault_is_found_once(image, make, kind):
    assert kinds(make(image)) == [kind]


def test_same_instance_twice_is_a_duplicate_and_no_more(image):
    headers = volume(image)
    (finding,) = check_series([*headers, headers[1]])
    assert (finding.kind, finding.sop_instance_uids) == (DUPLICATE, (headers[1].SOPInstanceUID,))


def test_finding_names_the_odd_instances_and_no_patient(image):
    (finding,) = check_series([*volume(image, PatientID="SECRET"), image(20, PatientID="OTHER", SOPInstanceUID="1.5")])
    assert finding.sop_instance_uids == ("1.5",)
    assert "SECRET" not in finding.message
    assert "OTHER" not in finding.message


def test_objects_that_are_no_images_have_no_findings(shared_data, pydicom_files):
    others = [shared_data / "seg" / "liver.dcm", pydicom_files / "test_files" / "reportsi.dcm",
              pydicom_files / "test_files" / "liver.dcm", pydicom_files / "test_files" / "rtplan.dcm"]  # fmt: skip
    for path in others:
        if path.is_file():
            assert check_series([read_header(path)]) == []


def test_values_that_are_no_numbers_are_passed_over(image):
    odd = image(5)
    odd.ImagePositionPatient = [0, 0]
    assert check_series([*volume(image, [0, 10, 20]), odd]) == []
