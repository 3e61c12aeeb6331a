"""A small home with something in each of its rooms, and words for what a user does with it."""

import os
import shutil
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

from system.series import write_series

from kaapana_assets.home import make_home
from kaapana_assets.ingest.spool import Spool
from kaapana_assets.stores.files.shelf import Origin, Shelf
from kaapana_assets.stores.pacs.folder import FolderPacs
from kaapana_assets.stores.sqlite_index import SqliteIndex

ORIGIN = Origin(workflow="w", operator="op", run="w-1", dagster_run_id="r", created="2026-01-01T00:00:00+00:00")
UP, LATE, SPOOLED = "2.25.1", "2.25.2", "2.25.3"


def fill(home: Path) -> None:
    """One series in archive, catalog, index and on the shelf; another one waits in the spool."""
    make_home(home)
    store(home, UP)
    index = SqliteIndex(home / "index.sqlite")
    index.put([{"SeriesInstanceUID": UP, "Modality": "MR", "ArrivalTime": datetime.now(timezone.utc).isoformat()}])
    index.close()
    spool(home, SPOOLED)
    output = home / "scratch" / "output"
    output.mkdir(parents=True)
    (output / "result.txt").write_text("computed")
    Shelf(home / "assets").publish(ORIGIN, {UP: (output, "fingerprint")})
    for path, text in {
        "cohorts/first.json": "{}",
        "workflows/dags/mine.py": "# a workflow",
        "workflows/plugins/words.py": "# a plugin",
        "workflows/data/.runs/some-run": "w-1",
        "workflows/data/w-1/conf/conf.json": "{}",
        "objects/bucket/deep/object.bin": "an object",
        "quarantine/unknown/odd.dcm": "not DICOM",
        "quarantine/unknown/odd.dcm.json": "{}",
        "images.json": "{}",
        "dagster/compute_logs/run/0.out": "a log",
        "platform.json": "{}",
        "logs/receiver.log": "a log",
    }.items():
        file = home / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def store(home: Path, series: str, *, instances: int = 2) -> None:
    folder = home.parent / "outgoing" / series
    write_series(folder, series=series, instances=instances)
    pacs = FolderPacs(home / "archive")
    pacs.store(sorted(folder.iterdir()))
    pacs.close()
    shutil.rmtree(folder)


def spool(home: Path, series: str) -> None:
    folder = home.parent / "outgoing" / series
    write_series(folder, series=series, instances=2)
    waiting = Spool(home / "incoming", home / "quarantine")
    waiting.prepare()
    for file in sorted(folder.iterdir()):
        waiting.add_file(series, f"{series}.{file.stem.rpartition('-')[2]}", file, origin="test")
    shutil.rmtree(folder)


def files_of(home: Path) -> dict[str, bytes]:
    """Content by path, without what differs from file to file of a database."""
    return {
        path.relative_to(home).as_posix(): path.read_bytes()
        for path in sorted(home.rglob("*"))
        if path.is_file() and not path.is_symlink() and path.suffix not in (".sqlite", ".db")
    }


def argv(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-c", "from kaapana_assets.cli import main; main()", *map(str, arguments)]


def environment(home: Path, **more: str) -> dict[str, str]:
    every = {name: value for name, value in os.environ.items() if not name.startswith(("KAAPANA_", "DAGSTER_"))}
    return every | {"KAAPANA_HOME": str(home)} | more


def kaapana(home: Path, *arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv(*arguments), env=environment(home, **more), cwd=home.parent, capture_output=True, text=True, check=False
    )
