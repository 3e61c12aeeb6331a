"""Series laid out as a run directory, and images run on them as the platform does."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from kaapana_assets.containers.process.runner import ProcessRunner
from kaapana_assets.containers.protocol import Launch, Outcome
from kaapana_assets.errors import OperatorFailed
from kaapana_assets.settings import PROJECT_ROOT, load_settings


@dataclass
class Operated:
    """What came of one launch; ``outcome`` is None when it failed."""

    outcome: Outcome | None
    lines: list[str]

    def said_of(self, series: str) -> str:
        """The one line about a series."""
        (line,) = [line for line in self.lines if line.startswith(f"series {series}:")]
        return line


class Batch:
    """A run directory with series, on which images of this project are run."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def add_files(self, series: str, files: Iterable[Path], *, folder: str = "initial-input") -> Path:
        target = self.directory / "batch" / series / folder
        target.mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copy(file, target / file.name)
        return target

    def add(self, series: str, datasets: Sequence[Dataset]) -> Path:
        target = self.add_files(series, [])
        for number, ds in enumerate(datasets):
            ds.save_as(target / f"{number}.dcm", enforce_file_format=True)
        return target

    def run(
        self,
        image: str,
        *,
        reads: str = "initial-input",
        writes: str = "out",
        command: tuple[str, ...] | None = None,
        **parameters: str,
    ) -> Operated:
        settings = load_settings()
        runner = ProcessRunner(PROJECT_ROOT / "images", settings.environments)
        runner.prepare(image, output=[].append)
        lines: list[str] = []
        launch = Launch(
            run_id="test-1",
            workflow="test",
            operator=image,
            image=image,
            directory=self.directory,
            operator_in_dir=reads,
            operator_out_dir=writes,
            parameters=parameters,
            command=command,
            timeout_s=240,
        )
        try:
            return Operated(runner.run(launch, output=lines.append), lines)
        except OperatorFailed:
            return Operated(None, lines)

    def out(self, series: str, *, folder: str = "out") -> Path:
        return self.directory / "batch" / series / folder


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    directory = tmp_path / "run"
    (directory / "batch").mkdir(parents=True)
    return Batch(directory)


@pytest.fixture(scope="module")
def module_batch(tmp_path_factory: pytest.TempPathFactory) -> Batch:
    """One run directory for all cases of a module, where each launch costs more than its work."""
    directory = tmp_path_factory.mktemp("run")
    (directory / "batch").mkdir()
    return Batch(directory)
