"""The small images: templates, identifiers, pooling and zips, run as the platform runs them."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file

from kaapana_assets.containers.protocol import Outcome
from kaapana_assets.image_builds.base_requirements import BaseRequirements
from kaapana_assets.image_builds.dockerfile_check import check_dockerfile, relevant_findings
from kaapana_assets.image_builds.folder import load_image
from kaapana_assets.settings import PROJECT_ROOT

IMAGES = PROJECT_ROOT / "images"
NAMES = ["bash-template", "dcm2nrrd", "extract-study-id", "pool-jsons", "python-template", "zip-files"]


def dicom_file(name: str) -> Path:
    return Path(str(get_testdata_file(name, download=False)))


def test_every_image_is_known_to_these_tests() -> None:
    assert sorted(folder.name for folder in IMAGES.iterdir() if (folder / "Dockerfile").is_file()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_an_image_builds_on_a_base_of_choice_and_runs_without_root(name: str) -> None:
    text = (IMAGES / name / "Dockerfile").read_text()
    assert text.startswith("ARG BASE_IMAGE=")
    assert "\nUSER 1000\n" in text
    assert f'title="{name}"' in text
    assert "image.version=" in text
    image = load_image(IMAGES, name)
    assert image.stage.workdir == "/app"
    assert f"/app/{image.start_arguments(None)[-1]}" in image.stage.tree.files
    assert check_dockerfile(image, BaseRequirements())[0].line == 2
    assert relevant_findings(image, BaseRequirements()) == ()
    lines = (IMAGES / name / "requirements.txt").read_text().splitlines()
    lines = [line for line in lines if line and not line.startswith(("#", "    --hash=sha256:"))]
    assert all("==" in line and line.endswith("\\") for line in lines)


@pytest.mark.parametrize("name", NAMES)
def test_an_image_needs_nothing_of_the_platform(name: str) -> None:
    for file in (IMAGES / name / "files").rglob("*.py"):
        assert "kaapana_assets" not in file.read_text()


@pytest.mark.parametrize("name", ["bash-template", "python-template", "extract-study-id", "dcm2nrrd", "pool-jsons"])
def test_an_empty_batch_is_skipped(name: str, batch) -> None:
    assert batch.run(name).outcome is Outcome.SKIPPED


@pytest.mark.parametrize("name", ["bash-template", "python-template"])
def test_templates_show_the_contract_and_list_each_series(name: str, batch) -> None:
    for series in ("1.2.3", "1.2.4"):
        batch.add_files(series, [dicom_file("CT_small.dcm"), dicom_file("MR_small.dcm")])
    (batch.directory / "batch" / "1.2.5" / "other").mkdir(parents=True)
    operated = batch.run(name)
    assert operated.outcome is Outcome.DONE
    assert f"  WORKFLOW_DIR={batch.directory}" in operated.lines
    assert "  OPERATOR_OUT_DIR=out" in operated.lines
    assert operated.said_of("1.2.3").endswith("2 files in initial-input")
    sizes = {name: dicom_file(name).stat().st_size for name in ("CT_small.dcm", "MR_small.dcm")}
    if name == "bash-template":
        listed = (line.split("\t") for line in (batch.out("1.2.4") / "listing.txt").read_text().splitlines())
        assert {file: int(size) for size, file in listed} == sizes
    else:
        found = json.loads((batch.out("1.2.4") / "listing.json").read_text())
        assert {each["name"]: each["size_bytes"] for each in found} == sizes
    assert not batch.out("1.2.5").exists()


def test_a_workflow_dir_relative_to_the_root_serves_too(batch) -> None:
    """Early platforms gave it so; the contract of this one is absolute, so it is put in place by hand."""
    batch.add_files("1.2.3", [dicom_file("CT_small.dcm")])
    relative = str(batch.directory).lstrip("/")
    code = (
        f"import os, runpy; os.environ['WORKFLOW_DIR'] = {relative!r}; runpy.run_path('main.py', run_name='__main__')"
    )
    script = f"WORKFLOW_DIR={relative} exec bash main.sh"
    for image, command, listing in [
        ("python-template", ("python", "-c", code), "listing.json"),
        ("bash-template", ("bash", "-c", script), "listing.txt"),
    ]:
        batch.run(image, command=command)
        assert (batch.out("1.2.3") / listing).is_file()


def test_study_identifiers_are_extracted(batch) -> None:
    batch.add_files("1.2.3", [dicom_file("CT_small.dcm")])
    assert batch.run("extract-study-id").outcome is Outcome.DONE
    ds = pydicom.dcmread(dicom_file("CT_small.dcm"))
    assert json.loads((batch.out("1.2.3") / "1.2.3.json").read_text()) == {
        "study_id": ds.StudyInstanceUID,
        "series_uid": ds.SeriesInstanceUID,
    }


def test_chosen_attributes_are_extracted_with_their_type(batch) -> None:
    batch.add_files("1.2.3", [dicom_file("CT_small.dcm")])
    batch.run(
        "extract-study-id", attributes="StudyDate, Rows,SliceThickness,ImagePositionPatient,PatientSpeciesDescription"
    )
    found = json.loads((batch.out("1.2.3") / "1.2.3.json").read_text())
    assert found["StudyDate"] == "20040119"
    assert found["Rows"] == 128
    assert found["SliceThickness"] == 5.0
    assert found["ImagePositionPatient"] == [-158.135803, -179.035797, -75.699997]
    assert found["PatientSpeciesDescription"] is None


def test_an_unknown_attribute_is_said(batch) -> None:
    batch.add_files("1.2.3", [dicom_file("CT_small.dcm")])
    operated = batch.run("extract-study-id", attributes="StudyDate,NoSuchThing")
    assert operated.outcome is None
    assert any("NoSuchThing" in line for line in operated.lines)


def test_a_series_without_dicom_does_not_stop_the_others(batch) -> None:
    batch.add_files("1.2.3", [IMAGES / "dcm2nrrd" / "Dockerfile"])
    batch.add_files("1.2.4", [])
    batch.add_files("1.2.5", [dicom_file("CT_small.dcm")])
    operated = batch.run("extract-study-id")
    assert operated.outcome is None
    assert [series for series in ("1.2.3", "1.2.4", "1.2.5") if batch.out(series).exists()] == ["1.2.5"]
    assert "failed" in operated.said_of("1.2.3")
    assert "failed" in operated.said_of("1.2.4")


def test_jsons_are_pooled_in_order(batch) -> None:
    for series, content in [
        ("1.2.4", '{"study_id": "é"}'),
        ("1.2.3", '{"study_id": "a", "series_uid": "1.9"}'),
        ("1.2.5", "[1]"),
    ]:
        folder = batch.add_files(series, [], folder="extracted")
        (folder / "x.json").write_text(content, encoding="utf-8")
    batch.add_files("1.2.6", [])
    operated = batch.run("pool-jsons", reads="extracted", writes="pooled")
    assert operated.outcome is Outcome.DONE
    assert json.loads((batch.directory / "pooled" / "pooled.json").read_text(encoding="utf-8")) == [
        {"series_uid": "1.9", "study_id": "a"},
        {"series_uid": "1.2.4", "study_id": "é"},
        {"series_uid": "1.2.5", "content": [1]},
    ]


def test_a_broken_json_is_named_and_nothing_is_pooled(batch) -> None:
    (batch.add_files("1.2.3", [], folder="extracted") / "x.json").write_text("{")
    operated = batch.run("pool-jsons", reads="extracted")
    assert operated.outcome is None
    assert "x.json is no JSON" in operated.said_of("1.2.3")
    assert not (batch.directory / "out").exists()


def test_the_same_files_make_the_same_zip(batch) -> None:
    for series in ("1.2.3", "1.2.4"):
        folder = batch.add_files(series, [dicom_file("CT_small.dcm"), dicom_file("rtplan.dcm")])
        (folder / "sub").mkdir()
        (folder / "sub" / "note.txt").write_text(series)
    first = batch.run("zip-files", writes="one", patterns="CT*.dcm, sub/*")
    for file in batch.directory.rglob("*.dcm"):
        os.utime(file, (1, 1))
    second = batch.run("zip-files", writes="two", patterns="CT*.dcm, sub/*", zip_name="chosen.zip")
    assert first.outcome is second.outcome is Outcome.DONE
    one, two = batch.directory / "one" / "files.zip", batch.directory / "two" / "chosen.zip"
    assert one.read_bytes() == two.read_bytes()
    with zipfile.ZipFile(one) as opened:
        assert opened.namelist() == [
            f"{series}/{name}" for series in ("1.2.3", "1.2.4") for name in ("CT_small.dcm", "sub/note.txt")
        ]
        assert opened.read("1.2.4/sub/note.txt") == b"1.2.4"
        assert opened.read("1.2.3/CT_small.dcm") == dicom_file("CT_small.dcm").read_bytes()


@pytest.mark.parametrize(
    ("parameters", "said"),
    [({"patterns": "*.nothing"}, "no file"), ({"zip_name": "../x.zip"}, "plain file name")],
    ids=["no match", "path as name"],
)
def test_a_zip_that_cannot_be_made_is_said(batch, parameters: dict[str, str], said: str) -> None:
    batch.add_files("1.2.3", [dicom_file("CT_small.dcm")])
    operated = batch.run("zip-files", **parameters)
    assert operated.outcome is None
    assert any(said in line for line in operated.lines)
    assert not (batch.directory / "out").exists()
