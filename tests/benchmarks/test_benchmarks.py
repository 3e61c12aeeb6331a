"""Every benchmark runs, at its smallest size, and prints its table."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from series_made_up import stack
from services.kinds import KINDS
from services.plugin import lacking

from kaapana_assets.settings import PROJECT_ROOT

BENCHMARKS = PROJECT_ROOT / "benchmarks"


def run(name: str, *arguments: str | Path) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("KAAPANA_", "DAGSTER_"))}
    environment |= {key: os.environ[key] for key in os.environ if key.startswith("KAAPANA_SERVICES_")}
    environment["PYTHONPATH"] = str(PROJECT_ROOT / "tests")
    command = [sys.executable, str(BENCHMARKS / name), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Folders of the names that benchmarks look for, with a small series each."""
    for folder, series in (("ct_phantom", "1.2.3"), ("mr_epi", "1.2.4")):
        (tmp_path / "data" / folder).mkdir(parents=True)
        for number, ds in enumerate(stack(4, SeriesInstanceUID=series)):
            ds.save_as(tmp_path / "data" / folder / f"{number}.dcm", enforce_file_format=True)
    return tmp_path / "data"


def test_embedded_index():
    assert "| 50 |" in run("index.py", "--sizes", "50")


@pytest.mark.system
def test_event_storage():
    assert "as the platform records them" in run("storage.py", "--events", "5", "--repeats", "1")


@pytest.mark.system
def test_batches():
    said = run("batch.py", "2")
    assert "batch again, all 2 on the shelf" in said
    assert "plain Dagster, a run per series" in said


@pytest.mark.services
def test_index_on_elasticsearch(elasticsearch_server):
    url = elasticsearch_server.settings["KAAPANA_ELASTICSEARCH_URLS"]
    assert "| 50 |" in run("index_servers.py", "--sizes", "50", "--turns", "2", "--url", url)


@pytest.mark.services
def test_pacs_servers(data):
    with lacking("orthanc"):
        KINDS["orthanc"]().prepare()
    said = run("pacs_servers.py", "--repeats", "1", "--data", data)
    assert said.count("retrieve DIMSE") == 2


@pytest.mark.services
def test_receiver(data, tmp_path):
    with lacking("orthanc"):
        KINDS["orthanc"]().prepare()
    said = run("receiver.py", "--repeats", "1", "--data", data, "--work", tmp_path)
    assert "ct_phantom: 4 files" in said
    assert "Peak memory: kaapana-assets" in said


@pytest.mark.system
def test_whole_platform():
    assert "peak memory of any process" in run("whole_platform.py", "--series", "2")


@pytest.mark.cluster
def test_pods():
    with lacking("kubernetes"):
        KINDS["kubernetes"]().prepare()
    assert "a bare Job" in run("pods.py", "--chunks", "1", "--series", "2", "--repeats", "1")


def test_each_has_a_test():
    tested = Path(__file__).read_text() + (Path(__file__).parent / "test_dcm2nrrd_references.py").read_text()
    assert [path.name for path in BENCHMARKS.glob("*.py") if f'"{path.name}"' not in tested] == []
