"""Asset events a second into Dagster's storage: SQLite, and PostgreSQL with and without batches.

    python benchmarks/storage.py [--events 2000]

Each row is a run of its own that records materializations of one partition each, as ingest does: through
``kaapana_assets.defs.events`` and as a plain ``context.log_event``. PostgreSQL is the server that the platform
starts; ``batch`` is DAGSTER_EVENT_BATCH_SIZE. Prints one Markdown table.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kaapana_assets.settings import load_settings
from kaapana_assets.supervision.instance import launching, write_instance
from kaapana_assets.supervision.postgres import Postgres

RUN = """
import sys, time
import dagster as dg
from kaapana_assets.defs.events import Made, record_made
from kaapana_assets.defs.partitions import DICOM_SERIES, SERIES

count, way = int(sys.argv[1]), sys.argv[2]

@dg.op
def record(context: dg.OpExecutionContext) -> None:
    began = time.perf_counter()
    if way == "batched":
        record_made(context, DICOM_SERIES, [
            Made(partition=f"1.2.{n}", data_version="v", metadata={"instances": dg.MetadataValue.int(2)})
            for n in range(count)
        ])
    else:
        for n in range(count):
            context.log_event(dg.AssetMaterialization(
                DICOM_SERIES, partition=f"1.2.{n}", metadata={"instances": dg.MetadataValue.int(2)},
                tags={"dagster/data_version": "v"},
            ))
    print("SECONDS", time.perf_counter() - began)

@dg.job
def job() -> None:
    record()

with dg.DagsterInstance.get() as instance:
    assert job.execute_in_process(instance=instance).success
    found = instance.fetch_materializations(DICOM_SERIES, limit=count + 1).records
    assert len(found) >= count, len(found)
"""


@contextmanager
def sqlite(place: Path) -> Iterator[None]:
    home = place / "home"
    home.mkdir(parents=True)
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    yield


@contextmanager
def postgres(place: Path) -> Iterator[None]:
    server = Postgres(place / "home" / "postgres" / "data", place / "sockets")
    server.prepare()
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(server.argv(), stdout=log, stderr=log, start_new_session=True)
    try:
        while not server.is_ready():
            time.sleep(0.05)
        write_instance(
            place / "home",
            storage={"postgres_url": server.url},
            code_socket=place / "code",
            launching=launching(load_settings(home=place), place / "home"),
        )
        yield
    finally:
        process.send_signal(2)
        process.wait()


def seconds(place: Path, events: int, way: str, batch: int) -> float:
    environment = os.environ | {"DAGSTER_HOME": str(place / "home"), "DAGSTER_EVENT_BATCH_SIZE": str(batch)}
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(events), way], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        sys.exit(done.stderr[-3000:])
    return float(next(line for line in done.stdout.splitlines() if line.startswith("SECONDS")).split()[1])


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--events", type=int, default=2000)
    arguments.add_argument("--repeats", type=int, default=3)
    given = arguments.parse_args()
    rows = [
        ("one by one, as Dagster does", "plain", 0),
        ("as the platform records them", "batched", 0),
        ("the same, batch 1000", "batched", 1000),
    ]
    print("| asset events a second | SQLite | PostgreSQL | ratio |\n|---|--:|--:|--:|")
    for name, way, batch in rows:
        found = []
        for storage in (sqlite, postgres):
            with tempfile.TemporaryDirectory(prefix="ka-") as folder, storage(Path(folder)):
                times = [seconds(Path(folder), given.events, way, batch) for _ in range(given.repeats)]
            found.append(given.events / min(times))
        print(f"| {name} | {found[0]:,.0f} | {found[1]:,.0f} | {found[1] / found[0]:.1f} |", flush=True)


if __name__ == "__main__":
    main()
