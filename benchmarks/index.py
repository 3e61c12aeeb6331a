"""What the embedded metadata index costs: puts, queries and facets, against bare SQL.

Run ``python benchmarks/index.py [--sizes 1000,10000,100000]``; prints one Markdown table. Documents have
some 150 fields, made like those of real CT and MR series: few values for most fields, new
ones in every series for UIDs, dates and times. "Bare SQL" is one table with a column for each of the ten
facet fields, filled in one go and with no index: the least that a program must do for the same answer.
"""

from __future__ import annotations

import argparse
import random
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from kaapana_assets.dicom.attributes import Document
from kaapana_assets.stores.index.protocol import DateHistogramFacet, HistogramFacet, SortKey, TermsFacet
from kaapana_assets.stores.query import parse
from kaapana_assets.stores.sqlite_index import SqliteIndex

FACETS = [
    TermsFacet("Modality"),
    TermsFacet("Manufacturer"),
    TermsFacet("ManufacturerModelName"),
    TermsFacet("BodyPartExamined"),
    TermsFacet("PatientSex"),
    TermsFacet("SeriesDescription"),
    TermsFacet("SliceThickness"),
    TermsFacet("InstitutionName"),
    HistogramFacet("PatientAge", 10),
    DateHistogramFacet("StudyDate", "month"),
]
FIELDS = [facet.field for facet in FACETS]
FILTER = parse("Modality:CT AND PatientAge:[40 TO 60]")
BARE_FILTER = "lower(Modality) = 'ct' AND PatientAge BETWEEN 40 AND 60"


def documents(count: int) -> Iterator[Document]:
    chance = random.Random(7)
    for number in range(count):
        study = number // 4
        study_chance = random.Random(study)
        date = f"{study_chance.randint(2010, 2024)}-{study_chance.randint(1, 12):02}-{study_chance.randint(1, 28):02}"
        document: Document = {
            "SeriesInstanceUID": f"1.2.826.0.1.3680043.8.498.{number}",
            "StudyInstanceUID": f"1.2.826.0.1.3680043.8.499.{study}",
            "SOPInstanceUID": f"1.2.826.0.1.3680043.8.500.{number}",
            "FrameOfReferenceUID": f"1.2.826.0.1.3680043.8.501.{study}",
            "PatientID": f"P{study}",
            "PatientName": f"Name{study}^Given{study % 300}",
            "StudyDate": date,
            "SeriesDate": date,
            "SeriesTime": f"{number % 24:02}:{number % 60:02}:{number % 59:02}.{number % 1000000:06}",
            "ArrivalTime": f"{date}T{number % 24:02}:{number % 60:02}:00.{number % 1000000:06}Z",
            "Modality": chance.choice(["CT", "CT", "MR", "MR", "PT", "SR"]),
            "Manufacturer": chance.choice(["SIEMENS", "GE MEDICAL SYSTEMS", "Philips", "Canon"]),
            "ManufacturerModelName": f"Model {chance.randint(1, 30)}",
            "BodyPartExamined": chance.choice(["HEAD", "CHEST", "ABDOMEN", "KNEE"]),
            "PatientSex": chance.choice("MFO"),
            "SeriesDescription": f"{chance.choice(['axial', 'sagittal', 'coronal'])} protocol {chance.randint(1, 200)}",
            "SliceThickness": chance.choice([0.5, 0.625, 1.0, 1.25, 2.0, 3.0, 5.0]),
            "InstitutionName": f"Hospital {chance.randint(1, 12)}",
            "PatientAge": float(study_chance.randint(1, 95)),
            "SliceLocation_range": {"min": round(chance.uniform(-900, 0), 2), "max": round(chance.uniform(0, 900), 2)},
            "RequestAttributesSequence": [
                {"ScheduledProcedureStepID": f"S{study}", "RequestedProcedureID": f"R{study}"}
            ],
        }
        document |= {f"0019{n:04X}": f"setting {chance.randint(1, 20)}" for n in range(0x1001, 0x1001 + 65)}
        document |= {f"0021{n:04X}": float(chance.randint(1, 50)) for n in range(0x1001, 0x1001 + 65)}
        yield document


def seconds(work: Callable[[], object], *, repeat: int = 3) -> float:
    """The best time of a few."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def bare_table(made: list[Document]) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    connection.execute(f"CREATE TABLE bare (uid TEXT PRIMARY KEY, {', '.join(FIELDS)})")
    rows = [[document.get(name) for name in ("SeriesInstanceUID", *FIELDS)] for document in made]
    connection.executemany(f"INSERT INTO bare VALUES ({', '.join('?' * (len(FIELDS) + 1))})", rows)
    return connection


def bare_facets(connection: sqlite3.Connection, where: str) -> None:
    for facet in FACETS:
        key = facet.field
        if isinstance(facet, HistogramFacet):
            key = f"CAST({key} / {facet.interval} AS INTEGER)"
        elif isinstance(facet, DateHistogramFacet):
            key = f"substr({key}, 1, 7)"
        connection.execute(
            f"SELECT {key}, count(*) FROM bare WHERE {where} GROUP BY 1 ORDER BY 2 DESC LIMIT 10"
        ).fetchall()


def measure(count: int, folder: Path) -> list[str]:
    made = list(documents(count))
    index = SqliteIndex(folder / f"{count}.sqlite")
    cpu = time.process_time()
    put = seconds(lambda: index.put(made), repeat=1)
    cpu = time.process_time() - cpu
    one = {**made[0], "SeriesInstanceUID": "1.2.3", "SeriesDescription": "one more"}
    put_one = seconds(lambda: index.put([one]), repeat=1)
    bare = bare_table(made)
    everything = parse("*")
    cells = [
        f"{count:,}",
        f"{put:.1f} s ({put / count * 1000:.2f} ms each)",
        f"{cpu / count * 1000:.2f} ms each",
        f"{put_one * 1000:.0f} ms",
        f"{sum(f.stat().st_size for f in folder.glob(f'{count}.sqlite*')) / 1e6:.0f} MB",
    ]
    cells += [
        f"{seconds(work) * 1000:.1f} ms"
        for work in (
            lambda: index.count(FILTER),
            lambda: index.count(parse("axial")),
            lambda: index.facets(everything, FACETS),
            lambda: bare_facets(bare, "1"),
            lambda: index.facets(FILTER, FACETS),
            lambda: bare_facets(bare, BARE_FILTER),
            lambda: index.search(FILTER, sort=[SortKey("StudyDate", descending=True)], limit=50),
            lambda: list(index.series(everything)),
        )
    ]
    index.close()
    bare.close()
    return cells


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--sizes", default="1000,10000,100000")
    sizes = [int(size) for size in arguments.parse_args().sizes.split(",")]
    header = ["series", "put all", "CPU of it", "put one more", "on disk", "count, filtered", "count, a word",
              "10 facets", "bare SQL", "10 facets, filtered", "bare SQL", "page of 50, sorted", "all UIDs"]  # fmt: skip
    print("| " + " | ".join(header) + " |\n|" + "---|" * len(header))
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            print("| " + " | ".join(measure(size, Path(folder))) + " |", flush=True)


if __name__ == "__main__":
    main()
