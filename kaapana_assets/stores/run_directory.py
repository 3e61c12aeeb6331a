"""Run directories: the temporary folders of a run and of its launches, laid out as Kaapana's are.

    <folder>/<run>/batch/<SeriesInstanceUID>/initial-input/<SOPInstanceUID>.dcm
    <folder>/<run>/batch/<SeriesInstanceUID>/<operator_out_dir>/...
    <folder>/<run>/<operator_out_dir>/...            pooled outputs
    <folder>/<run>/conf/conf.json                    what was asked
    <folder>/<run>/conf/results/<operator>.json      what became of it
    <folder>/<run>/launches/<operator>-<hash>/...    the view of one launch, the only part that its operator sees
    <folder>/<run>-<SeriesInstanceUID>/...           the same for one series, in single mode

``<folder>/.runs/<Dagster run id>`` holds the name of that run's directory, so that a re-execution
finds the files of the run it repeats. ``<folder>/.runs/<run>.<Dagster run id>`` is locked by the
processes of a run that work in the directory.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from kaapana_assets.dicom.identifiers import checked_name, checked_uid
from kaapana_assets.errors import NotFound, TemporaryError

_BY_RUN = ".runs"


@dataclass(frozen=True)
class RunDirectory:
    """The folder of one run, or of one series of a run."""

    path: Path

    @property
    def name(self) -> str:
        """The run's name, ``<workflow>-<yymmddHHMMSS and microseconds>``."""
        return self.path.name

    @property
    def batch(self) -> Path:
        """The folder with one folder for each series."""
        return self.path / "batch"

    def series_dir(self, series_instance_uid: str, folder: str) -> Path:
        """The folder that an operator reads or writes for one series."""
        return self.batch / checked_uid(series_instance_uid, keyword="SeriesInstanceUID") / folder

    def of_series(self, series_instance_uid: str) -> RunDirectory:
        """The directory of one series in single mode, whether it is there or not."""
        uid = checked_uid(series_instance_uid, keyword="SeriesInstanceUID")
        return RunDirectory(self.path.with_name(f"{self.name}-{uid}"))

    def for_series(self, series_instance_uid: str) -> RunDirectory:
        """The directory of one series in single mode; made on first use, with a copy of conf.json."""
        directory = self.of_series(series_instance_uid)
        self._lay_out(directory)
        return directory

    def view(self, name: str) -> RunDirectory:
        """The directory below this one for a launch, the only one that its operator sees; there or not."""
        return RunDirectory(self.path / "launches" / name)

    def empty_view(self, name: str) -> RunDirectory:
        """The same, emptied of what an earlier launch left in it."""
        directory = self.view(name)
        shutil.rmtree(directory.path, ignore_errors=True)
        self._lay_out(directory)
        return directory

    def _lay_out(self, directory: RunDirectory) -> None:
        if not directory.batch.is_dir():
            directory.batch.mkdir(parents=True)
            (directory.path / "conf").mkdir()
            shutil.copyfile(self.path / "conf" / "conf.json", directory.path / "conf" / "conf.json")

    def write_conf(self, conf: Mapping[str, Any]) -> None:
        """Say what was asked; operators may read it too."""
        _write_json(self.path / "conf" / "conf.json", conf)

    def conf(self) -> dict[str, Any]:
        """What was asked."""
        return _read_json(self.path / "conf" / "conf.json")

    def write_result(self, operator: str, result: Mapping[str, Any]) -> None:
        """Say what became of an operator."""
        _write_json(self.path / "conf" / "results" / f"{operator}.json", result)

    def forget_result(self, operator: str) -> None:
        """Take back what became of an operator, which is run again."""
        (self.path / "conf" / "results" / f"{operator}.json").unlink(missing_ok=True)

    def result(self, operator: str) -> dict[str, Any]:
        """What became of an operator.

        Raises:
            NotFound: it has not ended in this run.
        """
        return _read_json(self.path / "conf" / "results" / f"{operator}.json")


class RunDirectories:
    """All run directories of a platform."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def create(self, workflow: str, dagster_run_id: str, now: datetime) -> RunDirectory:
        """A new, empty directory that belongs to a Dagster run.

        A run that is started again before it wrote anything gets a new one.
        """
        checked_name(workflow, kind="workflow name")
        while True:
            directory = RunDirectory(self.folder / f"{workflow}-{now:%y%m%d%H%M%S%f}")
            try:
                directory.batch.mkdir(parents=True)
            except FileExistsError:
                now = datetime.now(now.tzinfo)
            else:
                break
        (directory.path / "conf" / "results").mkdir(parents=True)
        by_run = self.folder / _BY_RUN / checked_name(dagster_run_id, kind="run id")
        by_run.parent.mkdir(exist_ok=True)
        by_run.write_text(directory.name)
        return directory

    def find(self, dagster_run_id: str) -> RunDirectory:
        """The directory of a Dagster run.

        Raises:
            NotFound: the run has none, or it was cleaned.
        """
        by_run = self.folder / _BY_RUN / checked_name(dagster_run_id, kind="run id")
        try:
            directory = RunDirectory(self.folder / by_run.read_text())
        except FileNotFoundError as exc:
            raise NotFound(f"run {dagster_run_id} has no run directory in {self.folder}") from exc
        if not directory.path.is_dir():
            raise NotFound(f"the run directory {directory.path} was cleaned: start the workflow anew")
        return directory

    @contextmanager
    def used(self, directory: RunDirectory, dagster_run_id: str) -> Iterator[None]:
        """Keep other runs out of the directory, and ``older_than`` from it; processes of one run share it.

        A run that is repeated twice at once would else have both remove and verify the same outputs.

        Raises:
            TemporaryError: another run works there.
        """
        mark = self.folder / _BY_RUN / f"{directory.name}.{checked_name(dagster_run_id, kind='run id')}"
        with mark.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            others = self._users(directory) - {mark.name}
            if others:
                other = min(others).partition(".")[2]
                raise TemporaryError(f"run {other} works in {directory.path}: wait for its end, then repeat this one")
            yield

    def _users(self, directory: RunDirectory) -> set[str]:
        return {mark.name for mark in (self.folder / _BY_RUN).glob(f"{directory.name}.*") if _is_locked(mark)}

    def remove(self, directory: RunDirectory) -> None:
        """Remove a run's directory and those of its single series."""
        # Its own last: without it nobody would look for the others.
        for path in (*self.folder.glob(f"{directory.name}-*"), directory.path):
            shutil.rmtree(path, ignore_errors=True)
        for mark in (self.folder / _BY_RUN).glob(f"{directory.name}.*"):
            mark.unlink(missing_ok=True)
        for by_run in (self.folder / _BY_RUN).glob("*"):
            with contextlib.suppress(FileNotFoundError):  # another run ends at the same time
                if by_run.read_text() == directory.name:
                    by_run.unlink()

    def older_than(self, days: float) -> list[RunDirectory]:
        """The directories that no run uses and nothing was written to for that many days.

        Without those of single series.
        """
        limit = time.time() - days * 86_400
        found = [path for path in self.folder.glob("*") if path.is_dir() and (path / "conf" / "results").is_dir()]
        old = [RunDirectory(path) for path in sorted(found) if _last_written(path) < limit]
        return [directory for directory in old if not self._users(directory)]


def _is_locked(mark: Path) -> bool:
    try:
        with mark.open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def _last_written(run: Path) -> float:
    folders = (run, run / "batch", run / "conf", run / "conf" / "results")
    return max(folder.stat().st_mtime for folder in folders if folder.is_dir())


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    staged.write_text(json.dumps(values, indent=1))
    staged.replace(path)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError as exc:
        raise NotFound(f"{path} is not there") from exc
    return values
