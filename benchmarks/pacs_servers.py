"""Time to store and to retrieve a series of an archive: this PACS, dicomweb-client by itself, and DIMSE.

All against one Orthanc, in turns, each store into an empty archive. "ours" is ``DicomwebPacs``: it
reads identifiers, computes digests, sends, and asks the archive whether all arrived; retrieval writes
files, computes digests and compares them with the archive's list. "bare" is what one writes with
dicomweb-client alone: ``store_instances(dcmread(...))`` and ``retrieve_series`` with ``save_as``.
"DIMSE" are DCMTK's ``dcmsend`` and ``getscu`` with TCP_NODELAY=1. "ours by C-STORE" is the forwarder.

    PYTHONPATH=tests python benchmarks/pacs_servers.py [--repeats 5] [--data ../shared/data]
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pydicom
from dicomweb_client.api import DICOMwebClient
from dicomweb_client.session_utils import create_session_from_user_pass
from services.orthanc import AE_TITLE, Orthanc
from services.running import Running

from kaapana_assets.settings import load_settings
from kaapana_assets.stores.factory import open_pacs
from kaapana_assets.stores.pacs.candidates import Candidate, read_candidate
from kaapana_assets.stores.pacs.protocol import Pacs, StoreOutcome

ROOT = Path(__file__).resolve().parent.parent
SERIES = ("ct_phantom", "mr_epi")


class Bench:
    """One archive, and each way to store a series in it and to get it back."""

    def __init__(self, running: Running, work: Path) -> None:
        self.running = running
        self.work = work
        settings = running.settings
        self.session = create_session_from_user_pass(
            settings["KAAPANA_DICOMWEB_USER"], settings["KAAPANA_DICOMWEB_PASSWORD"]
        )
        self.url = settings["KAAPANA_DICOMWEB_URL"]
        self.client = DICOMwebClient(self.url, session=self.session)

    def pacs(self, kind: str) -> Pacs:
        given = {name.removeprefix("KAAPANA_").lower(): value for name, value in self.running.settings.items()}
        return open_pacs(load_settings(**(given | {"home": self.work / "home", "pacs": kind})))

    def empty(self) -> None:
        root = self.url.removesuffix("/dicom-web")
        for patient in self.session.get(f"{root}/patients").json():
            self.session.delete(f"{root}/patients/{patient}").raise_for_status()
        shutil.rmtree(self.work / "home", ignore_errors=True)
        shutil.rmtree(self.work / "out", ignore_errors=True)

    def store_ours(self, files: list[Path], kind: str = "dicomweb") -> None:
        outcomes = self.pacs(kind).store(files)
        assert {each.outcome for each in outcomes} == {StoreOutcome.STORED}

    def store_bare(self, files: list[Path]) -> None:
        self.client.store_instances([pydicom.dcmread(file) for file in files])

    def store_dimse(self, files: list[Path]) -> None:
        self.dcmtk("dcmsend", "-aec", AE_TITLE, "127.0.0.1", str(self.running.ports[1]), *map(str, files))

    def retrieve_ours(self, uids: tuple[str, str]) -> None:
        self.pacs("dicomweb").retrieve(uids[1], self.work / "out", writable_copy=True)

    def retrieve_bare(self, uids: tuple[str, str]) -> None:
        (self.work / "out").mkdir()
        for ds in self.client.retrieve_series(*uids, media_types=(("application/dicom", "*"),)):
            ds.save_as(self.work / "out" / f"{ds.SOPInstanceUID}.dcm")

    def retrieve_dimse(self, uids: tuple[str, str]) -> None:
        (self.work / "out").mkdir()
        keys = ["QueryRetrieveLevel=SERIES", f"StudyInstanceUID={uids[0]}", f"SeriesInstanceUID={uids[1]}"]
        asked = [argument for key in keys for argument in ("-k", key)]
        address = ["-S", "-aec", AE_TITLE, "127.0.0.1", str(self.running.ports[1]), "-od", str(self.work / "out")]
        self.dcmtk("getscu", *address, *asked)

    def dcmtk(self, *command: str) -> None:
        subprocess.run(command, check=True, env=os.environ | {"TCP_NODELAY": "1"}, stdout=subprocess.DEVNULL)


def largest_series(folder: Path) -> list[Path]:
    series: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        read = read_candidate(path) if path.is_file() else None
        if isinstance(read, Candidate):
            series.setdefault(read.identity.series_instance_uid, []).append(path)
    return max(series.values(), key=len)


def timed(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def measure(bench: Bench, files: list[Path], repeats: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    first = pydicom.dcmread(files[0], stop_before_pixels=True)
    uids = str(first.StudyInstanceUID), str(first.SeriesInstanceUID)
    stores = {
        "store ours": bench.store_ours,
        "store bare": bench.store_bare,
        "store ours by C-STORE": lambda files: bench.store_ours(files, "dimse"),
        "store DIMSE": bench.store_dimse,
    }
    gets = {
        "retrieve ours": bench.retrieve_ours,
        "retrieve bare": bench.retrieve_bare,
        "retrieve DIMSE": bench.retrieve_dimse,
    }
    for _ in range(repeats):
        for name, store in stores.items():
            bench.empty()
            found.setdefault(name, []).append(timed(lambda store=store: store(files)))
        bench.empty()
        bench.store_dimse(files)
        for name, get in gets.items():
            shutil.rmtree(bench.work / "out", ignore_errors=True)
            found.setdefault(name, []).append(timed(lambda get=get: get(uids)))
            assert len(list((bench.work / "out").iterdir())) == len(files), name
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        running = Running(Orthanc(), Path(folder) / "server")
        try:
            for name in SERIES:
                files = largest_series(given.data / name)
                size = sum(file.stat().st_size for file in files)
                print(f"\n{name}: {len(files)} instances, {size / 1e6:.1f} MB")
                print("| what | median s | fastest s | MB/s |\n|---|---|---|---|")
                for what, seconds in measure(Bench(running, Path(folder)), files, given.repeats).items():
                    median = statistics.median(seconds)
                    print(f"| {what} | {median:.3f} | {min(seconds):.3f} | {size / 1e6 / median:.0f} |")
        finally:
            running.kill()


if __name__ == "__main__":
    main()
