"""A platform in a temporary folder: images that are shell scripts, and small series in its PACS."""

import logging
import shlex
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import dagster as dg
import pytest
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from workflows.platform import CHAIN, POOL, Platform

from kaapana_assets.containers.process.runner import ProcessRunner
from kaapana_assets.execution.inputs import inputs_of
from kaapana_assets.execution.operator_run import run_operator, run_pooled
from kaapana_assets.execution.run_context import OperatorResult, RunContext, RunRequest, Stores
from kaapana_assets.stores.files.run_directory import RunDirectories
from kaapana_assets.stores.files.shelf import Shelf
from kaapana_assets.stores.objects.folder import FolderObjects
from kaapana_assets.stores.pacs.folder import FolderPacs
from kaapana_assets.workflows import Workflow
from kaapana_assets.workflows.operators import Operator
from kaapana_assets.workflows.parameters import complete

EACH_SERIES = """
for folder in "$WORKFLOW_DIR/$BATCH_NAME"/*; do
  series=$(basename "$folder"); in="$folder/$OPERATOR_IN_DIR"; out="$folder/$OPERATOR_OUT_DIR"
  mkdir -p "$out"
  {body}
done
"""
COPY = 'cat "$in"/* > "$out/all.bin"'


def write_dicom(path: Path, *, series: str, instance: int, content: int = 0) -> Path:
    """A whole DICOM file without pixels."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = f"{series}.{instance}"
    ds = Dataset()
    ds.SOPClassUID = MRImageStorage
    ds.SOPInstanceUID = f"{series}.{instance}"
    ds.StudyInstanceUID = "1.2.3"
    ds.SeriesInstanceUID = series
    ds.Modality = "MR"
    ds.InstanceNumber = instance
    ds.SeriesNumber = content
    path.parent.mkdir(parents=True, exist_ok=True)
    dcmwrite(path, FileDataset(str(path), ds, preamble=b"\0" * 128, file_meta=meta), enforce_file_format=True)
    return path


@dataclass
class Place:
    """Where a test works: the folders of a platform, its images, and a way to run operators."""

    home: Path
    images: Path
    environments: Path
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pacs = FolderPacs(self.home / "archive")
        self.shelf = Shelf(self.home / "assets")
        self.directories = RunDirectories(self.home / "workflows" / "data")
        self.started = self.home / "started.log"

    def image(self, name: str, script: str) -> str:
        """An image that runs a shell script; each start is written down with the series it saw."""
        folder = self.images / name
        (folder / "files").mkdir(parents=True, exist_ok=True)
        (folder / "requirements.txt").touch()
        (folder / "Dockerfile").write_text(
            'FROM debian\nWORKDIR /app\nCOPY files/ /app/\nENTRYPOINT ["/bin/sh", "run.sh"]\n'
        )
        noted = f'echo "$TASK_ID" $(ls "$WORKFLOW_DIR/$BATCH_NAME") >> {shlex.quote(str(self.started))}\n'
        (folder / "files" / "run.sh").write_text(noted + script)
        return name

    def each(self, name: str, body: str = COPY, *, after: str = "") -> str:
        """An image whose script does the same for each series; ``$in`` and ``$out`` are its folders."""
        return self.image(name, EACH_SERIES.replace("{body}", body) + after)

    def series(self, *names: str, instances: int = 1, content: int = 0) -> list[str]:
        """Series in the PACS, by the last component of their UIDs."""
        uids = [f"1.2.3.{name}" for name in names]
        files = [
            write_dicom(self.home / "sent" / uid / f"{at}.dcm", series=uid, instance=at, content=content)
            for uid in uids
            for at in range(1, instances + 1)
        ]
        self.pacs.store(files)
        return uids

    def starts(self) -> list[list[str]]:
        """What was started: operator and the series it saw, in order."""
        return [line.split() for line in self.started.read_text().splitlines()] if self.started.exists() else []

    def work(
        self,
        workflow: Workflow,
        series: Sequence[str],
        *,
        mode: str = "batch",
        force: bool = False,
        parameters: Mapping[str, object] | None = None,
        series_per_launch: int = 1000,
        output: Callable[[str], None] | None = None,
    ) -> RunContext:
        """A run of the workflow that has just begun."""
        now = datetime.now(timezone.utc)
        run_id = f"run-{now:%H%M%S%f}"
        request = RunRequest(
            workflow=workflow.name,
            dagster_run_id=run_id,
            created=now.isoformat(),
            cohort="all",
            mode=mode,  # type: ignore[arg-type]
            force=force,
            parameters=complete(workflow.parameters, parameters or {}),
            series={uid: self.pacs.series(uid).digest for uid in series},
        )
        directory = self.directories.create(workflow.name, run_id, now)
        directory.write_conf(request.as_json())
        stores = Stores(
            pacs=self.pacs,
            objects=FolderObjects(self.home / "objects"),
            shelf=self.shelf,
            runner=ProcessRunner(self.images, self.environments, grace_s=0.5),
            series_per_launch=series_per_launch,
            parallel_series=2,
            parallel_retrievals=2,
        )
        return RunContext(
            workflow=workflow,
            request=request,
            directory=directory,
            stores=stores,
            log=logging.getLogger("operators"),
            output=output or self.lines.append,
            cancelled=threading.Event(),
        )

    def step(self, work: RunContext, operator: Operator | None = None) -> OperatorResult:
        """One operator of a run, the first one unless it is said."""
        operator = operator or work.workflow.operators[0]
        run_one = run_pooled if operator.level == "cohort" else run_operator
        result = run_one(work.of(operator), inputs_of(work.of(operator)))
        work.directory.write_result(operator.full_name, result.as_json())
        return result

    def run(self, workflow: Workflow, series: Sequence[str], **options: object) -> dict[str, OperatorResult]:
        """A run of all operators, each on what those before it have done."""
        work = self.work(workflow, series, **options)  # type: ignore[arg-type]
        results: dict[str, OperatorResult] = {}
        for operator in workflow.operators:
            results[operator.full_name] = self.step(work, operator)
        return results


@pytest.fixture(scope="session")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of environments, made once for all tests of a process."""
    return tmp_path_factory.mktemp("environments")


@pytest.fixture
def place(tmp_path: Path, environments: Path) -> Place:
    images = tmp_path / "images"
    images.mkdir()
    return Place(tmp_path / "home", images, environments)


@pytest.fixture
def platform(place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Platform]:
    """A platform whose workflow files and cohorts go through Dagster."""
    monkeypatch.setenv("KAAPANA_HOME", str(place.home))
    monkeypatch.setenv("KAAPANA_IMAGES", str(place.images))
    monkeypatch.setenv("KAAPANA_ENVIRONMENTS", str(place.environments))
    place.home.mkdir(mode=0o700)
    (place.home / "workflows" / "dags").mkdir(parents=True)
    place.each("copy")
    place.each("last")
    place.image("pool", POOL)
    with dg.DagsterInstance.local_temp(str(tmp_path), overrides={"telemetry": {"enabled": False}}) as instance:
        made = Platform(place, instance)
        made.workflow(CHAIN % "")
        yield made
