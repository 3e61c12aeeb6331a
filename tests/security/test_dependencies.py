"""What is installed and shipped is pinned, verified by hashes, and under licences that are listed."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import signal
import sys
import zipfile
from contextlib import nullcontext
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from kaapana_assets.containers.process.environments import environment_for
from kaapana_assets.dicom import preview_process
from kaapana_assets.dicom.limits import DEFAULT_LIMITS
from kaapana_assets.dicom.preview import decoded_preview, preview_png
from kaapana_assets.errors import ConfigurationError, UnreadableDicom
from kaapana_assets.image_builds.dockerfile.stages import Packages
from kaapana_assets.settings import PROJECT_ROOT

IMAGES = sorted((PROJECT_ROOT / "images").glob("*/requirements.txt"))
LOCKS = [PROJECT_ROOT / "constraints.txt", PROJECT_ROOT / "requirements.txt", *IMAGES]
IDS = [str(file.relative_to(PROJECT_ROOT)) for file in LOCKS]
ENTRY = re.compile(r"^([a-z0-9._-]+)==([^ ;]+)( ; [^\\]+)? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.M)


def third_party():
    spec = importlib.util.spec_from_file_location("third_party", PROJECT_ROOT / ".ci" / "third_party.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pins(file: Path) -> set[tuple[str, str, str]]:
    return {(name, version, marker) for name, version, marker, _ in ENTRY.findall(file.read_text())}


@pytest.mark.parametrize("file", LOCKS, ids=IDS)
def test_every_package_of_a_lock_is_pinned_and_has_hashes(file):
    left = ENTRY.sub("", file.read_text())
    assert [line for line in left.splitlines() if line and not line.startswith("#")] == []


@pytest.mark.parametrize("file", LOCKS, ids=IDS)
def test_a_lock_names_no_index(file):
    assert not re.search(r"://|--index|--find-links|--trusted|@ ", file.read_text())


def test_the_image_of_the_platform_has_the_versions_that_were_tested():
    shipped = {(name, version) for name, version, _ in pins(PROJECT_ROOT / "requirements.txt")}
    assert shipped <= {(name, version) for name, version, _ in pins(PROJECT_ROOT / "constraints.txt")}
    dependencies = re.search(
        r"^dependencies = \[\n(.*?)^\]", (PROJECT_ROOT / "pyproject.toml").read_text(), re.M | re.S
    )
    wanted = {re.match(r'  "([A-Za-z0-9-]+)', line)[1] for line in dependencies[1].splitlines()}
    assert wanted <= {name for name, _ in shipped}


@pytest.mark.parametrize("file", IMAGES, ids=[file.parent.name for file in IMAGES])
def test_the_lock_of_an_image_is_of_what_it_asks_for(file):
    asked = file.with_suffix(".in").read_text() if file.with_suffix(".in").exists() else ""
    wanted = {tuple(line.split("==")) for line in asked.splitlines() if line and not line.startswith("#")}
    assert wanted <= {(name, version) for name, version, _ in pins(file)}
    assert bool(wanted) is bool(pins(file))


@pytest.mark.parametrize("file", LOCKS, ids=IDS)
def test_pydicom_is_one_without_known_holes(file):
    versions = [tuple(map(int, version.split("."))) for name, version, _ in pins(file) if name == "pydicom"]
    assert all(version >= (3, 0, 2) for version in versions)


@pytest.mark.parametrize("file", LOCKS, ids=IDS)
def test_no_code_under_the_gpl_is_installed_unasked(file):
    assert "pylibjpeg-libjpeg" not in {name for name, _, _ in pins(file)}


def test_the_list_of_licences_is_current():
    tool = third_party()
    rows = [line.strip("| ").split(" | ") for line in (PROJECT_ROOT / "THIRD_PARTY.md").read_text().splitlines()]
    rows = [row for row in rows if len(row) == 4 and row[0] not in ("package", "---")]
    listed = {(name, version) for name, versions, _, _ in rows for version in versions.split(", ")}
    shipped = {each for file in LOCKS[1:] for each in tool.locked(file)}
    assert listed == shipped, "make licences"
    for name, versions, licence, _ in rows:
        assert licence != "see its files", name
        assert not re.search(r"(?<!L)(?<!Lesser )(GPL|General Public)", licence.replace("Lesser General", "Lesser")), (
            name
        )
        try:
            installed = distribution(name)
        except PackageNotFoundError:  # for another Python
            continue
        if versions == installed.version:
            assert licence == tool.licence_of(installed), "make licences"


def test_the_licence_of_the_project_is_in_its_image():
    assert "Apache License" in (PROJECT_ROOT / "LICENSE").read_text()[:200]
    assert 'license = "Apache-2.0"' in (PROJECT_ROOT / "pyproject.toml").read_text()
    dockerfile, ignored = (PROJECT_ROOT / "Dockerfile").read_text(), (PROJECT_ROOT / ".dockerignore").read_text()
    for name in ("LICENSE", "NOTICE", "THIRD_PARTY.md"):
        assert name in dockerfile
        assert f"!{name}\n" in ignored
    assert "--require-hashes" in dockerfile


HASHES = {
    "right": (["madeup==1.0 \\", "    --hash=sha256:{right}"], None),
    "wrong": (["madeup==1.0 \\", "    --hash=sha256:{wrong}"], "Hash mismatch"),
    "missing of another": (["madeup==1.0 --hash=sha256:{right}", "other==1.0"], "hash"),
}


@pytest.mark.parametrize(("lines", "said"), HASHES.values(), ids=HASHES)
def test_an_environment_of_other_bytes_than_the_lock_names_is_not_made(tmp_path, lines, said):
    for name in ("madeup", "other"):
        with zipfile.ZipFile(tmp_path / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
            info = f"{name}-1.0.dist-info"
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
    right = hashlib.sha256((tmp_path / "madeup-1.0-py3-none-any.whl").read_bytes()).hexdigest()
    packages = Packages(lines=tuple(line.format(right=right, wrong="0" * 64) for line in lines))
    variables = {**os.environ, "PIP_FIND_LINKS": str(tmp_path), "PIP_NO_INDEX": "1"}
    with nullcontext() if said is None else pytest.raises(ConfigurationError, match=said):
        environment_for(
            [packages], environments=tmp_path / "environments", output=[].append, install_variables=variables
        )


@pytest.mark.parametrize("name", ["SC_rgb_dcmtk_+eb+cr.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR2_J2KR.dcm"])
def test_hostile_pixels_are_decoded_in_a_process_of_their_own(name, monkeypatch, tmp_path):
    """A decoder that crashes leaves no preview, and the platform's process alive."""
    path = Path(str(get_testdata_file(name)))
    assert preview_png(path) == decoded_preview(path, size=128, limits=DEFAULT_LIMITS)
    crashing = tmp_path / "python"
    crashing.write_text(f"#!{sys.executable}\nimport os\nos.kill(os.getpid(), {int(signal.SIGSEGV)})\n")
    crashing.chmod(0o755)
    monkeypatch.setattr(preview_process.sys, "executable", str(crashing))
    with pytest.raises(UnreadableDicom, match="its decoder ended with exit code -11"):
        preview_png(path)


def test_pixels_that_only_a_decoder_under_the_gpl_reads_have_no_preview():
    with pytest.raises(UnreadableDicom, match="no preview"):
        preview_png(Path(str(get_testdata_file("JPGExtended.dcm"))))
