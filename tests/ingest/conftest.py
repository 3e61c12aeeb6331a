"""Small DICOM files, a spool, and receivers that run as processes of their own."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from kaapana_assets.ingest.spool import Spool

PROJECT_ROOT = Path(__file__).resolve().parents[2]


@dataclass
class RunningReceiver:
    """A receiver process; ``log`` is what it has printed so far."""

    process: subprocess.Popen
    host: str
    port: int
    home: Path
    log_path: Path
    aet: str = "KAAPANA"

    @property
    def spool(self) -> Spool:
        return Spool(self.home / "incoming", self.home / "quarantine")

    @property
    def log(self) -> str:
        return self.log_path.read_text()


@contextmanager
def receiving(folder: Path, home: Path, **settings: str) -> Iterator[RunningReceiver]:
    ready = folder / f"ready-{time.monotonic_ns()}"
    log_path = folder / f"log-{time.monotonic_ns()}"
    env = {name: value for name, value in os.environ.items() if not name.startswith("KAAPANA_")}
    env |= {"KAAPANA_HOME": str(home)} | {f"KAAPANA_{name.upper()}": value for name, value in settings.items()}
    command = [sys.executable, "-c", "from kaapana_assets.cli import main; main()"]
    command += ["receive", "--port", "0", "--ready-file", str(ready)]
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_for(lambda: ready.exists() or process.poll() is not None)
        assert process.poll() is None, log_path.read_text()
        host, port = ready.read_text().strip().split(":")
        yield RunningReceiver(process, host, int(port), home, log_path)
    finally:
        process.kill()
        process.wait()


def wait_for(done: Callable[[], object], limit_s: float = 30.0) -> None:
    end = time.monotonic() + limit_s
    while not done():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.01)


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[RunningReceiver]:
    with receiving(tmp_path, tmp_path / "home") as running:
        yield running


@pytest.fixture
def start_receiver() -> Callable[..., object]:
    return receiving


@pytest.fixture
def until() -> Callable[..., None]:
    return wait_for


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    made = Spool(tmp_path / "incoming", tmp_path / "quarantine", min_free_bytes=0)
    made.prepare()
    return made


@pytest.fixture
def instance() -> Callable[..., Dataset]:
    return make_instance


def make_instance(
    *, series: str = "", sop: str = "", study: str = "1.2.3", pixels: int = 64, syntax: str = ExplicitVRLittleEndian
) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, sop or generate_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study, series or generate_uid()
    ds.PatientID, ds.PatientName, ds.Modality = "P1", "Secret^Name", "CT"
    # A sequence of undefined length in front of the series' UID, as scanners write them.
    item = Dataset()
    item.ReferencedSOPInstanceUID = "9.9.9"
    item.SeriesInstanceUID = "6.6.6"
    ds.ReferencedStudySequence = [item]
    ds["ReferencedStudySequence"].is_undefined_length = True
    ds.Rows, ds.Columns, ds.BitsAllocated, ds.BitsStored, ds.HighBit = 1, pixels, 8, 8, 7
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.PixelData = os.urandom(pixels)
    ds["PixelData"].VR = "OB"
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    return ds
