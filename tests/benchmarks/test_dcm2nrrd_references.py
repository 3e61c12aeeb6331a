"""The comparison of dcm2nrrd with its references, as a user runs it."""

from __future__ import annotations

import csv
import itertools
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

from kaapana_assets.settings import PROJECT_ROOT

SCRIPT = PROJECT_ROOT / "benchmarks" / "dcm2nrrd_references.py"
CONVERTER = PROJECT_ROOT / "images" / "dcm2nrrd" / "files" / "main.py"


@dataclass(frozen=True)
class Compared:
    exit_code: int
    said: str
    rows: list[dict[str, str]]

    def row(self, folder: str) -> dict[str, str]:
        (row,) = [row for row in self.rows if Path(row["where"]).name == folder]
        return row


# A converter that is wrong for some series: what it does with the NRRD of each, by the end of the UID.
WRONG = {
    "one voxel": ("values[0, 0, 0] += 1", "values: 1 of 96 differ, by up to 1"),
    "slices turned": ("values = values[:, :, ::-1]", "has the values of"),
    "rows turned": ("values = values[:, ::-1]", "values: 96 of 96 differ"),
    "origin": ("header['space origin'][2] += 1", "origin: ours (10, 20, 1), theirs (10, 20, 0)"),
    "spacing": ("header['space directions'][2] *= 1.5", "spacing: ours (0.75, 0.5, 3), theirs (0.75, 0.5, 2)"),
    "a slice is missing": ("values = values[:, :, 1:]", "shape: ours 6x4x3, theirs 6x4x4"),
    "scaled": ("values *= 2", "[other-scale]"),
}
# The same for a series of two echo times at each position, where the others do not see it.
WRONG_VOLUMES = {
    "echo times mixed": ("values[:, :, 0] = values[:, :, 0, ::-1].copy()", "mixed: volume 0 has EchoTime 10.0, 20.0"),
    "labels exchanged": ("header['MultiVolume.FrameLabels'] = '20,10'", "its images say EchoTime otherwise"),
}
NUMBERS = {name: str(10 + number) for number, name in enumerate({**WRONG, **WRONG_VOLUMES})}
CRASHED = "99"
CONVERTER_SCRIPT = """
import os, runpy, shutil, sys
from pathlib import Path
import nrrd
sys.path.insert(0, {folder!r})
try:
    runpy.run_path({converter!r}, run_name="__main__")
except SystemExit as ended:
    code = ended.code
for series in Path(os.environ["BATCHES_INPUT_DIR"]).iterdir():
    number = series.name.rsplit(".")[-1]
    if number == {crashed!r}:
        shutil.rmtree(series / os.environ["OPERATOR_OUT_DIR"])
    if number in {changes!r}:
        (file,) = series.glob("*/*.nrrd")
        values, header = nrrd.read(str(file))
        exec({changes!r}[number])
        nrrd.write(str(file), values, header)
sys.exit(code)
"""


def add_series(
    folder: Path, *, uid: str, places_mm: tuple[float, ...] = (0, 2, 4, 6), echo_times_ms: tuple[float, ...] = ()
) -> None:
    """An axial series of 6 x 4 pixels; every slice has values of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (echo_time, place) in enumerate(itertools.product(echo_times_ms or (None,), places_mm)):
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = CTImageStorage, generate_uid(), "CT"
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = f"{uid}.1", uid, f"{uid}.2"
        ds.SeriesNumber, ds.InstanceNumber, ds.AcquisitionNumber = 1, number + 1, 1
        if echo_time is not None:
            ds.SOPClassUID, ds.Modality, ds.EchoTime = MRImageStorage, "MR", echo_time
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.ImagePositionPatient, ds.ImageOrientationPatient = [10, 20, place], [1, 0, 0, 0, 1, 0]
        ds.PixelSpacing, ds.SliceThickness = [0.5, 0.75], 2
        ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = 4, 6, 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
        ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
        ds.PixelData = (np.arange(24) * 3 + 100 * number).astype("<u2").tobytes()
        ds.save_as(folder / f"{number}", enforce_file_format=True)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Compared:
    """One run of the script over all series of this module."""
    folder = tmp_path_factory.mktemp("compared")
    add_series(folder / "in" / "equal", uid="1.2.3.1")
    add_series(folder / "in" / "refused", uid="1.2.3.2", places_mm=(0, 2, 7))
    (folder / "in" / "notes.txt").write_text("no DICOM")
    for name, number in {**NUMBERS, "crashed": CRASHED}.items():
        echo_times_ms = (10, 20) if name in WRONG_VOLUMES else ()
        add_series(folder / "in" / number, uid=f"1.2.3.{number}", echo_times_ms=echo_times_ms)
    shutil.copytree(folder / "in" / "equal", folder / "in" / "equal, once more")
    converter = folder / "converter.py"
    changes = {NUMBERS[name]: change for name, (change, _) in {**WRONG, **WRONG_VOLUMES}.items()}
    converter.write_text(
        CONVERTER_SCRIPT.format(
            folder=str(CONVERTER.parent), converter=str(CONVERTER), changes=changes, crashed=CRASHED
        )
    )
    (folder / "reasons.md").write_text("| key | reason |\n|---|---|\n| `other-scale` | for this test |\n")
    options = ["--csv", folder / "found.csv", "--converter", converter, "--explained", folder / "reasons.md"]
    ended = subprocess.run(
        [sys.executable, SCRIPT, folder / "in", *options], capture_output=True, text=True, check=False
    )
    assert ended.returncode in {0, 1}, ended.stderr
    with (folder / "found.csv").open(newline="") as file:
        return Compared(ended.returncode, ended.stdout, list(csv.DictReader(file)))


def test_an_equal_volume_is_equal_to_all_references(compared: Compared) -> None:
    row = compared.row("equal")
    assert (row["verdict"], row["dcm2nrrd"], row["dcm2niix"], row["GDCM"]) == ("equal", *["6x4x4"] * 3)
    assert row["differences"] == ""


def test_copies_of_the_same_images_are_series_of_their_own(compared: Compared) -> None:
    for name in ("equal", "equal, once more"):
        assert (compared.row(name)["verdict"], compared.row(name)["files"]) == ("equal", "4")


def test_a_refusal_is_told_with_its_reason(compared: Compared) -> None:
    assert compared.row("refused")["verdict"] == "refused"
    assert "slice distance" in compared.row("refused")["dcm2nrrd"]
    assert "slice distance" in compared.said


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_nrrd_is_different(name: str, compared: Compared) -> None:
    row = compared.row(NUMBERS[name])
    assert row["verdict"] == "different"
    assert "pydicom: " in row["differences"]
    assert "dcm2niix: " in row["differences"]
    assert WRONG[name][1] in row["differences"]


@pytest.mark.parametrize("name", WRONG_VOLUMES)
def test_volumes_are_of_one_kind_and_labelled_with_it(name: str, compared: Compared) -> None:
    row = compared.row(NUMBERS[name])
    assert row["verdict"] == "different"
    assert WRONG_VOLUMES[name][1] in row["differences"]


def test_a_key_of_the_document_explains_a_difference_and_no_other(compared: Compared) -> None:
    (shown,) = [line for line in compared.said.splitlines() if line.startswith("  dcm2niix") and "other-scale" in line]
    assert shown.endswith("explained")
    # That pydicom has other values there is explained by nothing.
    assert compared.row(NUMBERS["scaled"])["verdict"] == "different"


def test_a_series_without_output_and_without_refusal_has_crashed(compared: Compared) -> None:
    row = compared.row(CRASHED)
    assert row["verdict"] == "crashed"
    assert "exit code 0, 0 files" in row["dcm2nrrd"]


def test_the_end_tells_the_counts_and_fails_for_what_nothing_explains(compared: Compared) -> None:
    counts = {"equal": 2, "explained": 0, "refused": 1, "different": len(NUMBERS), "crashed": 1}
    for verdict, count in counts.items():
        assert f"| {verdict} | {count} |" in compared.said
    assert compared.exit_code == 1
