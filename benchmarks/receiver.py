"""Time to send DICOM series by C-STORE: this receiver and Orthanc beside each other.

Both take the same files from the same sender (DCMTK's ``dcmsend`` with TCP_NODELAY=1), in turns, each
time into an empty store, with Orthanc's defaults (it syncs its storage area). Orthanc is measured
twice: as it is started by default, where its answers wait for Nagle's algorithm, and with
TCP_NODELAY=1 in its environment too.

    python benchmarks/receiver.py [--repeats 5] [--data ../shared/data] [--large]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

ROOT = Path(__file__).resolve().parent.parent


@contextlib.contextmanager
def ours(work: Path) -> Iterator[tuple[int, psutil.Process]]:
    ready = work / "ready"
    env = dict(os.environ, KAAPANA_HOME=str(work / "home"))
    command = [sys.executable, "-c", "from kaapana_assets.cli import main; main()"]
    command += ["receive", "--port", "0", "--ready-file", str(ready)]
    with running(command, work, env) as process:
        wait_until(ready.exists)
        yield int(ready.read_text().rpartition(":")[2]), process


@contextlib.contextmanager
def orthanc(work: Path, *, no_delay: bool) -> Iterator[tuple[int, psutil.Process]]:
    port = free_port()
    settings = {"StorageDirectory": str(work / "db"), "IndexDirectory": str(work / "db"), "HttpServerEnabled": False}
    settings |= {"DicomPort": port, "DicomAlwaysAllowStore": True, "Plugins": []}
    config = work / "orthanc.json"
    config.write_text(json.dumps(settings))
    env = {name: value for name, value in os.environ.items() if name != "TCP_NODELAY"}
    if no_delay:
        env["TCP_NODELAY"] = "1"
    with running(["Orthanc", str(config)], work, env) as process:
        wait_until(lambda: can_connect(port))
        yield port, process


SERVERS = {
    "kaapana-assets": ours,
    "Orthanc, TCP_NODELAY": lambda work: orthanc(work, no_delay=True),
    "Orthanc, default": lambda work: orthanc(work, no_delay=False),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--large", action="store_true", help="also four associations with one object of 200 MB each")
    parser.add_argument("--work", type=Path, help="folder on the disk to measure; default: beside this file")
    asked = parser.parse_args()
    needed = [name for name in ("dcmsend", "Orthanc") if shutil.which(name) is None]
    if needed:
        sys.exit(f"needs {' and '.join(needed)} (Debian: apt-get install dcmtk orthanc)")
    with tempfile.TemporaryDirectory(dir=asked.work or Path(__file__).parent, prefix=".receiver-") as name:
        measure(Path(name), asked.data, asked.repeats, large=asked.large)


def measure(work: Path, data: Path, repeats: int, *, large: bool) -> None:
    cases = {}
    for series in ("mr_epi", "ct_phantom"):
        files = sorted(path for path in (data / series).rglob("*") if is_dicom(path))
        size = sum(path.stat().st_size for path in files)
        for associations in (1, 4):
            folders = split(files, work / "files" / f"{series}-{associations}", associations)
            cases[f"{series}: {len(files)} files, {size / 1e6:.0f} MB, {associations} assoc."] = folders
    if large:
        cases["4 objects of 200 MB, 4 assoc."] = large_objects(work / "files" / "large")
    times: dict[tuple[str, str], list[float]] = {}
    memory: dict[str, float] = {}
    for _ in range(repeats):
        for case, folders in cases.items():
            for name, start in SERVERS.items():
                store = Path(tempfile.mkdtemp(dir=work))
                with start(store) as (port, process):
                    times.setdefault((case, name), []).append(send(port, folders))
                    memory[name] = max(memory.get(name, 0), peak_memory_mib(process))
                shutil.rmtree(store)
    print_table(list(cases), times, memory)


def print_table(cases: list[str], times: dict[tuple[str, str], list[float]], memory: dict[str, float]) -> None:
    print("Median seconds, in brackets the fastest; the ratio is kaapana-assets to it (below 1: we are faster)\n")
    print("| case | " + " | ".join(f"{name} | ratio" if index else name for index, name in enumerate(SERVERS)) + " |")
    print("|---|" + "---:|" * (2 * len(SERVERS) - 1))
    for case in cases:
        base = statistics.median(times[case, "kaapana-assets"])
        cells = [case]
        for index, name in enumerate(SERVERS):
            median = statistics.median(times[case, name])
            cells.append(f"{median:.3f} ({min(times[case, name]):.3f})")
            if index:
                cells.append(f"{base / median:.2f}")
        print("| " + " | ".join(cells) + " |")
    print("\nPeak memory: " + ", ".join(f"{name} {size:.0f} MiB" for name, size in memory.items()))


def send(port: int, folders: list[Path]) -> float:
    command = ["dcmsend", "-q", "-to", "60", "127.0.0.1", str(port), "+sd", "+r"]
    env = dict(os.environ, TCP_NODELAY="1")
    begin = time.perf_counter()
    senders = [subprocess.Popen([*command, str(folder)], env=env) for folder in folders]
    codes = [sender.wait() for sender in senders]
    if any(codes):
        sys.exit(f"dcmsend ended with {codes}")
    return time.perf_counter() - begin


def split(files: list[Path], target: Path, parts: int) -> list[Path]:
    folders = [target / str(part) for part in range(parts)]
    for folder in folders:
        folder.mkdir(parents=True)
    for index, path in enumerate(files):
        shutil.copyfile(path, folders[index % parts] / f"{index:04}.dcm")
    return folders


def large_objects(target: Path) -> list[Path]:
    folders = [target / str(part) for part in range(4)]
    for folder in folders:
        folder.mkdir(parents=True)
        ds = Dataset()
        ds.SOPClassUID, ds.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.Modality = generate_uid(), generate_uid(), "OT"
        ds.PatientID, ds.PatientName = "large", "Large^Object"
        ds.Rows, ds.Columns, ds.NumberOfFrames = 1000, 1000, 100
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated = ds.BitsStored = 16
        ds.HighBit, ds.PixelRepresentation = 15, 0
        ds.PixelData = os.urandom(1000 * 1000) * 200
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.save_as(folder / "large.dcm", enforce_file_format=True)
    return folders


@contextlib.contextmanager
def running(command: list[str], work: Path, env: dict[str, str]) -> Iterator[psutil.Process]:
    with (work / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=work, env=env, stdout=log, stderr=log)
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def peak_memory_mib(process: psutil.Process) -> float:
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def is_dicom(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def wait_until(done: object, limit_s: float = 30.0) -> None:
    end = time.monotonic() + limit_s
    while not done():  # type: ignore[operator]
        if time.monotonic() > end:
            sys.exit("the server did not start in time")
        time.sleep(0.05)


def can_connect(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.5):
        return True
    return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
