"""Each file of an imported folder has one outcome, and none is dropped."""

import json
import subprocess
import sys
from pathlib import Path

import pydicom
import pydicom.data
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from kaapana_assets.ingest.dicom_folder import files_in
from kaapana_assets.ingest.folder_import import ImportOutcome, import_files


@pytest.fixture
def folder(tmp_path) -> Path:
    made = tmp_path / "given"
    made.mkdir()
    return made


def write(ds, path: Path) -> bytes:
    ds.save_as(path, enforce_file_format=True)
    return path.read_bytes()


def outcomes(spool, folder) -> dict[str, ImportOutcome]:
    return {each.path.name: each.outcome for each in import_files(spool, files_in(folder))}


def test_each_kind_of_file_has_its_outcome(spool, folder, instance):
    ds = instance(series="1.2", sop="1.3")
    content = write(ds, folder / "a good one.dcm")
    (folder / "copy").write_bytes(content)
    write(instance(series="../../x"), folder / "hostile.dcm")
    (folder / "zero.dcm").touch()
    (folder / "zero").touch()
    (folder / "notes.txt").write_text("no DICOM")
    (folder / "cut").write_bytes(content[:200])
    (folder / "DICOMDIR").write_bytes(content)
    (folder / "to a folder").symlink_to(folder.parent)
    (folder / "to nothing").symlink_to(folder / "nothing")
    found = outcomes(spool, folder)
    # Several files are taken at once, so either of the same two may be the first.
    same = {found.pop("a good one.dcm"), found.pop("copy")}
    assert same == {ImportOutcome.STORED, ImportOutcome.ALREADY_THERE}
    assert found == {
        "hostile.dcm": ImportOutcome.QUARANTINED,
        "zero.dcm": ImportOutcome.QUARANTINED,
        "zero": ImportOutcome.SKIPPED,
        "notes.txt": ImportOutcome.SKIPPED,
        "cut": ImportOutcome.QUARANTINED,
        "DICOMDIR": ImportOutcome.SKIPPED,
        "to a folder": ImportOutcome.SKIPPED,
        "to nothing": ImportOutcome.SKIPPED,
    }
    ds.PixelData = bytes(64)
    write(ds, folder / "a good one.dcm")
    assert outcomes(spool, folder / "a good one.dcm") == {"a good one.dcm": ImportOutcome.CONFLICT}
    assert [file.read_bytes() for file in spool.files("1.2")] == [content]
    assert all(each.reason for each in spool.quarantined())
    assert spool.ready(0) == ["1.2"]


def bare(ds, path: Path, syntax: str, *, keep: str) -> Path:
    """A file that lacks its file meta information, or a part of it."""
    ds.file_meta.TransferSyntaxUID = syntax
    data = write(ds, path)
    end = 144 + int.from_bytes(data[140:144], "little")
    kept = {"dataset": data[end:], "group 2": data[132:], "preamble": data[:132] + data[end:]}[keep]
    path.write_bytes(kept)
    return path


@pytest.mark.parametrize("keep", ["dataset", "group 2", "preamble"])
@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian], ids=lambda uid: uid.keyword
)
def test_dataset_without_file_meta_is_taken_in_with_one(spool, folder, instance, syntax, keep):
    ds = instance(series="1.2", sop="1.3")
    pixels = ds.PixelData
    bare(ds, folder / "1.dcm", syntax, keep=keep)
    assert outcomes(spool, folder) == {"1.dcm": ImportOutcome.STORED}
    assert outcomes(spool, folder) == {"1.dcm": ImportOutcome.ALREADY_THERE}
    (file,) = spool.files("1.2")
    taken = pydicom.dcmread(file)  # which refuses a file without file meta information
    assert (taken.file_meta.TransferSyntaxUID, taken.file_meta.MediaStorageSOPInstanceUID) == (syntax, "1.3")
    assert (taken.PixelData, taken.PatientName, taken.StudyInstanceUID) == (pixels, "Secret^Name", "1.2.3")


def test_compressed_dataset_without_transfer_syntax_is_set_aside_with_the_reason(spool, folder, instance):
    ds = instance(series="1.2", sop="1.3")
    ds.PixelData = encapsulate([b"\0" * 100])
    ds["PixelData"].is_undefined_length = True
    bare(ds, folder / "1.dcm", RLELossless, keep="dataset")
    assert outcomes(spool, folder) == {"1.dcm": ImportOutcome.QUARANTINED}
    (kept,) = spool.quarantined()
    assert "no file meta information" in kept.reason
    assert "compressed" in kept.reason


def test_bare_dataset_that_is_cut_short_is_set_aside(spool, folder, instance):
    path = bare(instance(series="1.2"), folder / "1.dcm", ImplicitVRLittleEndian, keep="dataset")
    path.write_bytes(path.read_bytes()[:-10])
    assert outcomes(spool, folder) == {"1.dcm": ImportOutcome.QUARANTINED}


def test_files_of_pydicom_are_all_accounted_for(spool):
    files = files_in(Path(pydicom.data.__file__).parent / "test_files")
    results = list(import_files(spool, files))
    assert [each.path for each in results] == files
    waiting = sum(each.instance_count for each in spool.series())
    assert waiting == sum(each.outcome is ImportOutcome.STORED for each in results)
    assert all(each.reason for each in results if each.outcome in (ImportOutcome.SKIPPED, ImportOutcome.QUARANTINED))


def test_status_tells_of_backlog_and_quarantine(folder, instance, tmp_path, free_port):
    write(instance(series="1.2"), folder / "good.dcm")
    (folder / "bad.dcm").write_bytes(b"broken")
    env = {"KAAPANA_HOME": str(tmp_path / "home"), "KAAPANA_RECEIVER_PORT": str(free_port), "PATH": ""}

    def run(*arguments: str, code: int = 0) -> str:
        command = [sys.executable, "-c", "from kaapana_assets.cli import main; main()", *arguments]
        done = subprocess.run(command, env=env, cwd=tmp_path, check=False, stdout=subprocess.PIPE, text=True)
        assert done.returncode == code
        return done.stdout

    assert "1 stored" in run("import", str(folder), code=1)
    said = json.loads(run("status", "--json"))
    waiting = said["findings"]["spool"]["counts"]
    assert (waiting["series"], waiting["instances"]) == (1, 1)
    assert [each["what"].startswith("file-") and each["what"].endswith(" from import") for each in said["errors"]] == [
        True
    ]
    assert "1 series, 1 instance, the oldest for" in run("status")
