"""The whole platform measured from outside: arrival, ingest at scale, start of a workflow, memory.

    python benchmarks/whole_platform.py [--series 100 1000 10000]

Starts ``kaapana-assets up`` in a temporary home for each size, sends or imports that many small MR
series, and prints one table. CPU is that of all the platform's processes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from kaapana_assets.ingest.spool import Spool
from kaapana_assets.stores.query import parse
from kaapana_assets.stores.sqlite_index import SqliteIndex

DOCKERFILE = """
FROM python:3.12-slim
WORKDIR /app
COPY files/ /app/
ENTRYPOINT ["python", "main.py"]
"""
CLOCK = """
import os, time
from pathlib import Path
began = time.time()
for series in (Path("/", os.environ["WORKFLOW_DIR"]) / "batch").iterdir():
    out = series / os.environ["OPERATOR_OUT_DIR"]
    out.mkdir()
    (out / "began.txt").write_text(repr(began))
"""
WORKFLOW = """
from kaapana_assets.workflows import ContainerOperator, Workflow
workflow = Workflow(name="clock", operators=(ContainerOperator(name="clock", image="clock"),))
"""


@dataclass
class Platform:
    """A platform in a temporary home and the memory that each of its parts had at most."""

    home: Path
    environment: dict[str, str]
    process: subprocess.Popen[bytes]
    peak_mib: dict[str, float] = field(default_factory=dict)
    stopping: threading.Event = field(default_factory=threading.Event)

    def kaapana(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "kaapana_assets", *arguments],
            env=self.environment,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout

    def processes(self) -> list[psutil.Process]:
        return [psutil.Process(self.process.pid), *self._children()]

    def _children(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("KAAPANA_HOME") == str(self.home) and process.pid != self.process.pid:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def cpu_s(self) -> float:
        total = 0.0
        for process in self.processes():
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue
            total += times.user + times.system + times.children_user + times.children_system
        return total

    def watch(self) -> None:
        while not self.stopping.wait(1.0):
            for process in self.processes():
                try:
                    name = part_name(" ".join(process.cmdline()))
                    mib = process.memory_full_info().uss / 2**20
                except psutil.Error:
                    continue
                self.peak_mib[name] = max(self.peak_mib.get(name, 0), mib)

    def stop(self) -> None:
        self.stopping.set()
        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)


def part_name(command: str) -> str:
    for sign, name in (
        ("postgres", "postgres"),
        ("execute_run", "run"),
        ("spawn_main", "run"),
        ("code-server", "code server"),
        ("api grpc", "code server"),
        ("webserver", "webserver"),
        ("daemon", "daemon"),
        ("receive", "receiver"),
        ("kaapana_assets up", "supervisor"),
    ):
        if sign in command:
            return name
    return "operators"


def start(folder: Path) -> Platform:
    home, images = folder / "home", folder / "images"
    (home / "workflows" / "dags").mkdir(parents=True)
    (home / "workflows" / "dags" / "clock.py").write_text(WORKFLOW)
    (images / "clock" / "files").mkdir(parents=True)
    (images / "clock" / "files" / "main.py").write_text(CLOCK)
    (images / "clock" / "requirements.txt").write_text("")
    (images / "clock" / "Dockerfile").write_text(DOCKERFILE)
    for image in (Path(__file__).parent.parent / "images").iterdir():
        shutil.copytree(image, images / image.name)
    environment = {**os.environ, "KAAPANA_HOME": str(home), "KAAPANA_IMAGES": str(images)}
    environment |= {"KAAPANA_WEBSERVER_PORT": "0", "KAAPANA_RECEIVER_PORT": "0", "KAAPANA_HEALTH_PORT": "0"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    console = folder / "console.txt"
    with console.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "kaapana_assets", "up"], env=environment, stdout=output, stderr=output
        )
    while "up after" not in console.read_text():
        if process.poll() is not None:
            raise SystemExit(console.read_text())
        time.sleep(0.2)
    platform = Platform(home, environment, process)
    threading.Thread(target=platform.watch, daemon=True).start()
    return platform


def write_series(folder: Path, count: int) -> None:
    """Small MR series of two slices each."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = MRImageStorage
    ds.Modality, ds.PatientID, ds.SeriesDescription = "MR", "benchmark", "benchmark"
    ds.Rows = ds.Columns = 16
    ds.PixelSpacing, ds.SliceThickness = [1, 1], 2
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 16, 15
    ds.SamplesPerPixel, ds.PixelRepresentation, ds.PhotometricInterpretation = 1, 0, "MONOCHROME2"
    ds.PixelData = np.arange(256, dtype="<u2").tobytes()
    for _ in range(count):
        series = f"2.25.{uuid.uuid4().int}"
        ds.SeriesInstanceUID, ds.StudyInstanceUID, ds.FrameOfReferenceUID = series, series + ".1", series + ".2"
        for number in (1, 2):
            ds.SOPInstanceUID, ds.InstanceNumber = f"{series}.3.{number}", number
            ds.ImagePositionPatient = [0, 0, 2 * number]
            ds.save_as(folder / f"{series}-{number}.dcm", enforce_file_format=True)


def wait_for(index: SqliteIndex, count: int) -> None:
    while index.count(parse("*")) < count:
        time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, nargs="+", default=[100, 1000, 10_000])
    sizes = parser.parse_args().series
    rows = []
    print(HEADER)
    for size in sizes:
        folder = Path(tempfile.mkdtemp(prefix="ka-bench-"))
        platform = start(folder)
        try:
            rows.append(measure(platform, folder, size))
        finally:
            platform.stop()
            shutil.rmtree(folder, ignore_errors=True)
        print_row(rows[-1])
    print("\npeak memory of any process of each part (MiB, USS)")
    for name in sorted({name for row in rows for name in row["peak"]}):
        print(f"  {name:12}" + "".join(f"{row['peak'].get(name, 0):10.0f}" for row in rows))


def measure(platform: Platform, folder: Path, size: int) -> dict:
    index = SqliteIndex(platform.home / "index.sqlite")
    fifty = folder / "fifty"
    fifty.mkdir()
    write_series(fifty, 50)
    platform.kaapana("send", str(fifty))
    sent = time.monotonic()
    wait_for(index, 50)
    searchable = time.monotonic() - sent
    many = folder / "many"
    many.mkdir()
    write_series(many, size)
    platform.kaapana("import", str(many))
    spool = Spool(platform.home / "incoming", platform.home / "quarantine")
    began = time.monotonic()
    spool.ready(0)
    look_ms = (time.monotonic() - began) * 1000
    cpu = platform.cpu_s()
    began = time.monotonic()
    wait_for(index, 50 + size)
    wall = time.monotonic() - began
    time.sleep(3)
    cpu = platform.cpu_s() - cpu
    # The selection of all of them, and the way from the command to the first line of the container.
    frozen_began = time.monotonic()
    platform.kaapana("cohort", "create", "all", "--query", "SeriesDescription:benchmark")
    frozen = time.monotonic() - frozen_began
    asked = time.time()
    platform.kaapana("run", "clock", "--cohort", "all")
    whole = time.time() - asked
    first = min(float(path.read_text()) for path in (platform.home / "assets" / "clock" / "clock").glob("*/began.txt"))
    assert len(list(index.series(parse("*")))) == 50 + size
    return {
        "size": size,
        "searchable": searchable,
        "wall": wall,
        "cpu_ms": cpu / size * 1000,
        "look_ms": look_ms,
        "frozen": frozen,
        "first": first - asked,
        "whole": whole,
        "peak": dict(platform.peak_mib),
    }


HEADER = (
    f"{'series':>8}{'50 sent -> searchable s':>26}{'ingest s':>10}{'series/s':>10}{'CPU ms/series':>15}"
    f"{'look at spool ms':>18}{'freeze s':>10}{'run -> container s':>20}{'run s':>8}"
)


def print_row(row: dict) -> None:
    print(
        f"{row['size']:8}{row['searchable']:26.1f}{row['wall']:10.1f}{row['size'] / row['wall']:10.1f}"
        f"{row['cpu_ms']:15.1f}{row['look_ms']:18.1f}{row['frozen']:10.1f}{row['first']:20.1f}{row['whole']:8.1f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
