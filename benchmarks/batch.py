"""CPU per series around the containers of a run, beside what bare loops and plain Dagster take.

    python benchmarks/batch.py [SERIES]

Makes that many series of one small file (default 1000), a PostgreSQL as ``kaapana-assets up`` has
it, and runs a workflow of one operator over them in batch and in single mode, each run in a process
of its own. The operator writes a JSON file per series and needs only Python's standard library.
Prints one table. All CPU is user and system time of the run's process and of PostgreSQL; the
containers' own is in a column of its own. The fixed cost of a run is that of a run over one series.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

WORKFLOW = "count-files"
JOB = WORKFLOW.replace("-", "_")
SCRIPT = """
import json, os
from pathlib import Path

for series in sorted(Path(os.environ["WORKFLOW_DIR"], os.environ["BATCH_NAME"]).iterdir()):
    out = series / os.environ["OPERATOR_OUT_DIR"]
    out.mkdir(exist_ok=True)
    names = os.listdir(series / os.environ["OPERATOR_IN_DIR"])
    (out / "count.json").write_text(json.dumps({"files": len(names)}))
"""
DOCKERFILE = """
FROM python:3.12-slim
WORKDIR /app
COPY files/ /app/
ENTRYPOINT ["python", "main.py"]
"""
WORKFLOW_FILE = f"""
from kaapana_assets.workflows import ContainerOperator, Workflow
workflow = Workflow(name="{WORKFLOW}", operators=(ContainerOperator(name="{WORKFLOW}", image="{WORKFLOW}"),))
"""
SINGLE = 100  # at most this many series in single mode
BARE_SINGLE = 50  # series for which a process each is started in the bare loop
DAGSTER_RUNS = 5

PLAIN = """
import os, subprocess
import dagster as dg

@dg.asset(partitions_def=dg.DynamicPartitionsDefinition(name="series"))
def plain(context: dg.AssetExecutionContext) -> None:
    env = {**os.environ, "WORKFLOW_DIR": os.path.join(os.environ["PLAIN_DIR"], context.partition_key)}
    subprocess.run(["python", os.environ["PLAIN_SCRIPT"]], env=env, check=True)
"""


def main() -> None:
    if len(sys.argv) > 1 and sys.argv[1] == "run":
        run_here(sys.argv[2], sys.argv[3])
        return
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    # A Python that writes no bytecode starts at twice the cost, which is no user's case.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    place = Path(tempfile.mkdtemp(prefix="kaapana-batch-"))
    try:
        measure(place, count)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def measure(place: Path, count: int) -> None:
    os.environ |= {"KAAPANA_HOME": str(place / "home"), "DAGSTER_HOME": str(place / "home" / "dagster")}
    os.environ["KAAPANA_IMAGES"] = str(place / "images")
    write_workflow(place)
    series = fill_pacs(place, count)
    with postgres(place) as server:
        prepare_dagster(place, series)
        run(server, "warm-up", "batch")
        fixed = min((run(server, "one", "batch") for _ in range(2)), key=lambda found: found["around"])
        rows = [
            row(f"batch, {count} series", run(server, "all", "batch"), fixed, count),
            row(f"batch again, all {count} on the shelf", run(server, "all", "batch", forced=False), fixed, count),
        ]
        some = min(count, SINGLE)
        rows.append(row(f"single, {some} series", run(server, "some", "single"), run(server, "one", "single"), some))
        rows.append(bare_loop(place, series, together=True))
        rows.append(bare_loop(place, series[:BARE_SINGLE], together=False))
        rows.append(plain_dagster(place, series[:DAGSTER_RUNS]))
    titles = ("way", "around, ms", "with containers, ms", "fixed, s", "launches", "wall, s")
    widths = [max(len(str(line[at])) for line in (titles, *rows)) for at in range(len(titles))]
    print("CPU per series and operator")
    for line in (titles, *rows):
        print("  ".join(str(cell).ljust(width) for cell, width in zip(line, widths, strict=True)))


def write_workflow(place: Path) -> None:
    # The built-in workflows name their images, so these must be there too.
    shutil.copytree(Path(__file__).resolve().parent.parent / "images", place / "images")
    script_of(place).parent.mkdir(parents=True)
    script_of(place).write_text(SCRIPT)
    image = script_of(place).parent.parent
    (image / "requirements.txt").write_text("")
    (image / "Dockerfile").write_text(DOCKERFILE)
    dags = place / "home" / "workflows" / "dags"
    dags.mkdir(parents=True)
    (dags / "count_files.py").write_text(WORKFLOW_FILE)


def script_of(place: Path) -> Path:
    return place / "images" / WORKFLOW / "files" / "main.py"


def row(name: str, whole: dict, fixed: dict, count: int) -> tuple[str, ...]:
    around = (whole["around"] - fixed["around"]) / (count - 1) * 1000
    total = around + (whole["containers"] - fixed["containers"]) / (count - 1) * 1000
    launches, wall = str(whole["launches"]), f"{whole['wall']:.1f}"
    return name, f"{around:.2f}", f"{total:.2f}", f"{fixed['around']:.1f}", launches, wall


def fill_pacs(place: Path, count: int) -> list[str]:
    from pydicom import dcmwrite
    from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

    from kaapana_assets.stores.pacs.folder import FolderPacs

    pacs, files, series = FolderPacs(place / "home" / "archive"), [], []
    (place / "sent").mkdir()
    for number in range(count):
        uid = f"1.2.826.0.1.{number + 1}"
        meta = FileMetaDataset()
        meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, MRImageStorage
        meta.MediaStorageSOPInstanceUID = f"{uid}.1"
        ds = Dataset()
        ds.SOPClassUID, ds.SOPInstanceUID, ds.SeriesInstanceUID = MRImageStorage, f"{uid}.1", uid
        ds.StudyInstanceUID, ds.Modality = "1.2.826.0.1", "MR"
        path = place / "sent" / f"{number}.dcm"
        dcmwrite(path, FileDataset(str(path), ds, preamble=b"\0" * 128, file_meta=meta), enforce_file_format=True)
        files.append(path)
        series.append(uid)
    pacs.store(files)
    pacs.close()
    return series


@contextmanager
def postgres(place: Path) -> Iterator[psutil.Process]:
    from kaapana_assets.settings import load_settings
    from kaapana_assets.supervision.instance import launching, write_instance
    from kaapana_assets.supervision.postgres import Postgres

    server = Postgres(place / "home" / "dagster" / "postgres" / "data", place / "sockets")
    server.prepare()
    dagster_home = place / "home" / "dagster"
    write_instance(
        dagster_home,
        storage={"postgres_url": server.url},
        code_socket=place / "code",
        launching=launching(load_settings(), dagster_home),
    )
    log = (place / "postgres.log").open("wb")
    process = subprocess.Popen(server.argv(), stdout=log, stderr=log)
    try:
        while not server.is_ready():
            if process.poll() is not None:
                sys.exit((place / "postgres.log").read_text())
            time.sleep(0.1)
        yield psutil.Process(process.pid)
    finally:
        process.send_signal(2)
        process.wait(30)
        log.close()


def prepare_dagster(place: Path, series: list[str]) -> None:
    import dagster as dg

    from kaapana_assets.cohorts.cohort import Cohort, list_digest, save

    with dg.DagsterInstance.get() as instance:
        instance.add_dynamic_partitions("series", series)
        cohorts = {"warm-up": series[-2:], "one": series[:1], "some": series[:SINGLE], "all": series}
        for name, some in cohorts.items():
            digest = list_digest(tuple(sorted(some)))
            save(place / "home" / "cohorts", Cohort(name, "*", "", tuple(sorted(some)), digest))
            instance.add_dynamic_partitions("cohorts", [name])


def run(server: psutil.Process, cohort: str, mode: str, *, forced: bool = True) -> dict:
    """CPU seconds of one run in a process of its own, PostgreSQL's among them."""
    before, began = cpu_of(server), time.monotonic()
    environment = {**os.environ, "BATCH_FORCED": str(forced)}
    command = [sys.executable, __file__, "run", cohort, mode]
    made = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        sys.exit(made.stderr[-5000:])
    found = json.loads(made.stdout.splitlines()[-1])
    wall = time.monotonic() - began
    # A connection's process is counted with its parent once it has ended.
    time.sleep(1)
    return {**found, "around": found["own"] + cpu_of(server) - before, "wall": wall}


def cpu_of(server: psutil.Process) -> float:
    total = 0.0
    for process in (server, *server.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def run_here(cohort: str, mode: str) -> None:
    import dagster as dg

    from kaapana_assets.definitions import defs
    from kaapana_assets.settings import load_settings
    from kaapana_assets.workflows.launch_request import cohort_run_config

    config = {"mode": mode, "force": os.environ["BATCH_FORCED"] == "True"}
    with dg.DagsterInstance.get() as instance:
        result = defs.resolve_job_def(JOB).execute_in_process(
            instance=instance,
            partition_key=cohort,
            run_config=cohort_run_config(JOB, config),
        )
    report = load_settings().paths.shelf / WORKFLOW / "report" / cohort / "report.json"
    launches = sum(row["launches"] for row in json.loads(report.read_text())["operators"])
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    found = {"own": own.ru_utime + own.ru_stime, "containers": children.ru_utime + children.ru_stime}
    print()
    print(json.dumps({**found, "launches": launches, "ok": result.success}))


def bare_loop(place: Path, series: list[str], *, together: bool) -> tuple[str, ...]:
    folder = place / ("together" if together else "alone")
    groups = [series] if together else [[uid] for uid in series]
    lay_out(place, folder, groups)
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    for number in range(len(groups)):
        env = contract(folder / str(number))
        command = [str(python_of_image()), str(script_of(place))]
        subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL)
    cpu = used_since(before) / len(series) * 1000
    name = "bare loop, one process for all" if together else f"bare loop, a process per series ({len(series)} series)"
    return name, "0", f"{cpu:.2f}", "", str(len(groups)), f"{time.monotonic() - began:.1f}"


def plain_dagster(place: Path, series: list[str]) -> tuple[str, ...]:
    folder = place / "plain"
    lay_out(place, folder, [[uid] for uid in series], names=series)
    (place / "plain.py").write_text(PLAIN)
    env = {**os.environ, **contract(folder), "PLAIN_DIR": str(folder), "PLAIN_SCRIPT": str(script_of(place))}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    for uid in series:
        command = [sys.executable, "-m", "dagster", "asset", "materialize", "--select", "plain", "--partition", uid]
        made = subprocess.run(
            [*command, "-f", str(place / "plain.py")], env=env, capture_output=True, text=True, check=False
        )
        if made.returncode != 0:
            sys.exit(made.stderr[-5000:])
    cpu = used_since(before) / len(series) * 1000
    name = f"plain Dagster, a run per series (from {len(series)} runs, in process)"
    return name, "", f"{cpu:.0f}", "", "1 per series", f"{time.monotonic() - began:.1f}"


def lay_out(place: Path, folder: Path, groups: list[list[str]], names: list[str] | None = None) -> None:
    for number, group in enumerate(groups):
        for uid in group:
            target = folder / (names[number] if names else str(number)) / "batch" / uid / "initial-input"
            target.mkdir(parents=True)
            shutil.copy(place / "home" / "archive" / "1.2.826.0.1" / uid / f"{uid}.1.dcm", target)


def contract(directory: Path) -> dict[str, str]:
    path = f"{python_of_image().parent}:{os.environ['PATH']}"
    folders = {"BATCH_NAME": "batch", "OPERATOR_IN_DIR": "initial-input", "OPERATOR_OUT_DIR": WORKFLOW}
    return {"PATH": path, "WORKFLOW_DIR": str(directory), **folders}


def python_of_image() -> Path:
    from kaapana_assets.containers.process.runner import ProcessRunner
    from kaapana_assets.settings import load_settings

    settings = load_settings()
    runner = ProcessRunner(settings.images, settings.environments)
    return runner.prepare(WORKFLOW, output=lambda _: None) / "bin" / "python"


def used_since(before: resource.struct_rusage) -> float:
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
