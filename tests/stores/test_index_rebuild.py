"""``kaapana-assets index rebuild``: the index is what the PACS says, also when it was cut short."""

import shutil
from datetime import datetime, timezone

import pytest
from click.testing import CliRunner
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from kaapana_assets.cli import cli
from kaapana_assets.home import make_home
from kaapana_assets.settings import load_settings
from kaapana_assets.stores.factory import open_index, open_pacs
from kaapana_assets.stores.index.rebuild import Rebuild
from kaapana_assets.stores.query import All, parse

LATER = datetime(2030, 1, 1, tzinfo=timezone.utc)


@pytest.fixture
def settings(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KAAPANA_HOME", str(tmp_path / "home"))
    make_home(tmp_path / "home")
    return load_settings()


@pytest.fixture
def stores(settings):
    pacs, index = open_pacs(settings), open_index(settings)
    yield pacs, index
    index.close()


def fill(pacs, folder, count, *, instances=2):
    folder.mkdir(exist_ok=True)
    files = []
    for series in range(count):
        for number in range(1, instances + 1):
            ds = Dataset()
            ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, f"1.3.{series}.{number}"
            ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.1", f"1.2.{series}"
            ds.Modality, ds.InstanceNumber = "CT", number
            ds.file_meta = FileMetaDataset()
            ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            files.append(folder / f"{series}.{number}.dcm")
            ds.save_as(files[-1], enforce_file_format=True)
    pacs.store(files)


def test_index_holds_what_the_pacs_holds_and_nothing_else(stores, tmp_path):
    pacs, index = stores
    fill(pacs, tmp_path / "in", 120)
    arrived = "2020-05-05T05:05:05.000000Z"
    index.put([{"SeriesInstanceUID": "1.2.7", "ArrivalTime": arrived, "Modality": "XX"}, {"SeriesInstanceUID": "9.9"}])
    done = CliRunner().invoke(cli, ["index", "rebuild"])
    assert done.exit_code == 0, done.output
    assert "120 series put, 1 removed" in done.output
    assert index.count(parse("Modality:CT AND InstanceCount:2")) == index.count(All()) == 120
    assert index.get("1.2.7")["ArrivalTime"] == arrived


def test_rebuild_goes_on_where_it_was_cut_short(stores, settings, tmp_path):
    pacs, index = stores
    fill(pacs, tmp_path / "in", 120, instances=1)
    work = Rebuild(
        pacs=pacs, index=index, record=settings.home / "index-rebuild.txt", scratch=settings.home / "scratch"
    )
    steps = work.run(work.remaining(), now=LATER)
    first = next(steps)
    steps.close()
    assert index.count(All()) == first
    assert len(work.remaining()) == 120 - first
    done = CliRunner().invoke(cli, ["index", "rebuild"])
    assert f"going on, {120 - first} series remain" in done.output
    assert index.count(parse("ArrivalTime:[2030 TO *]")) == first
    assert index.count(All()) == 120
    assert not (settings.home / "index-rebuild.txt").exists()


def test_series_that_cannot_be_read_is_told_and_the_rest_is_done(stores, tmp_path):
    pacs, index = stores
    fill(pacs, tmp_path / "in", 3, instances=1)
    (damaged,) = (tmp_path / "home" / "archive").rglob("1.2.1/*.dcm")
    damaged.chmod(0o600)
    damaged.write_bytes(b"not DICOM any more")
    done = CliRunner().invoke(cli, ["index", "rebuild"])
    assert done.exit_code == 1
    assert "1.2.1" in done.output
    assert list(index.series(All())) == ["1.2.0", "1.2.2"]


def test_rebuild_goes_on_past_series_whose_files_somebody_deleted_and_names_them(stores, settings, tmp_path):
    pacs, index = stores
    fill(pacs, tmp_path / "in", 5)
    index.put([{"SeriesInstanceUID": "1.2.1", "Modality": "as it was"}])
    archive = settings.home / "archive" / "1.1"
    (archive / "1.2.1" / "1.3.1.2.dcm").unlink()
    shutil.rmtree(archive / "1.2.2")
    for _ in range(2):  # the same once more, with the record of the first
        done = CliRunner().invoke(cli, ["index", "rebuild"])
        assert done.exit_code == 1
        assert "3 series put, 0 removed" in done.output
        assert f"series 1.2.1: 1 of its 2 files are gone from {archive / '1.2.1'}" in done.output
        assert f"series 1.2.2: 2 of its 2 files are gone from {archive / '1.2.2'}" in done.output
        assert "Traceback" not in done.output
    assert index.get("1.2.1")["Modality"] == "as it was"
    assert list(index.series(parse("Modality:CT"))) == ["1.2.0", "1.2.3", "1.2.4"]


def test_rebuild_forgets_what_was_deleted_once_its_catalog_is_made_again(stores, settings, tmp_path):
    pacs, index = stores
    fill(pacs, tmp_path / "in", 3)
    assert CliRunner().invoke(cli, ["index", "rebuild"]).exit_code == 0
    shutil.rmtree(settings.home / "archive" / "1.1" / "1.2.2")
    pacs.close()
    for path in (settings.home / "archive").glob("catalog.sqlite*"):
        path.unlink()
    done = CliRunner().invoke(cli, ["index", "rebuild"])
    assert (done.exit_code, "2 series put, 1 removed" in done.output) == (0, True), done.output
    assert list(index.series(All())) == ["1.2.0", "1.2.1"]
