"""Run directories: the temporary folders of a run and of its launches, with Kaapana's layout.

    <folder>/<run>/batch/<SeriesInstanceUID>/initial-input/<SOPInstanceUID>.dcm
    <folder>/<run>/batch/<SeriesInstanceUID>/<operator_out_dir>/...
    <folder>/<run>/<operator_out_dir>/...            pooled outputs
    <folder>/<run>/conf/...                          copies of the run's record, for people and operators
    <folder>/<run>/launches/<operator>-<hash>/...    the view of one launch, the only part that its operator sees
    <folder>/<run>-<SeriesInstanceUID>/...           the same layout for one series, in single mode

The platform reads back only the run's record, which is outside the directory that operators see:

    <folder>/.runs/.records/<run>/conf.json                the request that the run serves
    <folder>/.runs/.records/<run>/results/<operator>.json  the result of an operator
    <folder>/.runs/.records/<run>/staging/...              inputs that are being staged

``<folder>/.runs/<Dagster run id>`` holds the name of that run's directory, so that a re-execution
finds the files of the run it repeats. The processes of a run that work in the directory lock
``<folder>/.runs/<run>.<Dagster run id>``.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Iterator, Mapping, Set
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from kaapana_assets.clocks import is_untouched
from kaapana_assets.dicom.identifiers import checked_name, checked_uid
from kaapana_assets.durable import make_folder, sync_folder, write_file
from kaapana_assets.errors import NotFound, TemporaryError, UnsafePath
from kaapana_assets.locks import is_locked, locked
from kaapana_assets.untrusted import Folder, opened

_BY_RUN = ".runs"
_RECORDS = ".records"


@dataclass(frozen=True)
class RunDirectory:
    """The folder of one run, or of one series of a run, or the view of one launch.

    Attributes:
        path: the folder.
        record: the folder of the run's record.
    """

    path: Path
    record: Path

    @property
    def name(self) -> str:
        """The run's name, ``<workflow>-<yymmddHHMMSS and microseconds>``."""
        return self.path.name

    @property
    def batch(self) -> Path:
        """The folder that has one folder for each series."""
        return self.path / "batch"

    def series_dir(self, series_instance_uid: str, folder: str) -> Path:
        """The path of the folder that an operator reads or writes for one series; ``opened`` opens it."""
        return self.path.joinpath(*self.names_of(series_instance_uid, folder))

    @staticmethod
    def names_of(series_instance_uid: str, folder: str) -> tuple[str, str, str]:
        """The path of a folder of one series, as the names of its parts below the run directory."""
        return "batch", checked_uid(series_instance_uid, keyword="SeriesInstanceUID"), folder

    def opened(self, *names: str, make: bool = False) -> AbstractContextManager[Folder]:
        """Open a folder of the directory without following links; see ``untrusted.opened``."""
        return opened(self.path, *names, make=make)

    def of_series(self, series_instance_uid: str) -> RunDirectory:
        """The directory of one series in single mode, whether it exists or not."""
        uid = checked_uid(series_instance_uid, keyword="SeriesInstanceUID")
        return RunDirectory(self.path.with_name(f"{self.name}-{uid}"), self.record)

    def for_series(self, series_instance_uid: str) -> RunDirectory:
        """The directory of one series in single mode; made on first use, with a copy of conf.json."""
        directory = self.of_series(series_instance_uid)
        with opened(self.path.parent, directory.name, make=True) as folder:
            if not folder.has_folder("batch"):
                self._lay_out(folder)
        return directory

    def view(self, name: str) -> RunDirectory:
        """The view of a launch, which is the only directory that its operator sees; it need not exist."""
        return RunDirectory(self.path / "launches" / name, self.record)

    def empty_view(self, name: str) -> RunDirectory:
        """The view of a launch, made anew without anything that an earlier launch left in it.

        Raises:
            UnsafePath: the files of an earlier launch cannot be removed, or a link is in the path.
        """
        left = self.remove_view(name)
        if left:
            raise UnsafePath(f"what an earlier launch left cannot be removed: {left[0]}")
        with self.opened("launches", name, make=True) as folder:
            self._lay_out(folder)
        return self.view(name)

    def remove_view(self, name: str) -> list[str]:
        """Remove the view of a launch. Returns what cannot be removed, and why."""
        try:
            with self.opened("launches") as launches:
                return launches.remove(name)
        except FileNotFoundError:
            return []

    def remove(self, *names: str) -> None:
        """Remove whatever is at a path, so that a folder can be made there.

        Raises:
            UnsafePath: it cannot be removed, or a folder above it is a link.
        """
        with contextlib.suppress(FileNotFoundError), self.opened(*names[:-1]) as above:
            left = above.remove(names[-1])
            if left:
                raise UnsafePath(f"what stands in the way of an output cannot be removed: {left[0]}")

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A path at which the platform can stage a folder; nothing exists there yet, and it is removed at the end."""
        folder = self.record / "staging"
        folder.mkdir(parents=True, exist_ok=True)
        name = secrets.token_hex(8)
        try:
            yield folder / name
        finally:
            with opened(folder) as place:
                place.remove(name)

    def _lay_out(self, folder: Folder) -> None:
        with folder.below("batch", make=True), folder.below("conf", make=True) as conf:
            conf.write("conf.json", _as_bytes(self.conf()))

    def show_conf(self, conf: Mapping[str, Any]) -> None:
        """Write the request to ``conf/conf.json`` for operators and people; the platform does not read it there."""
        with self.opened("conf", make=True) as folder:
            folder.write("conf.json", _as_bytes(conf))

    def write_conf(self, conf: Mapping[str, Any]) -> None:
        """Record the request of the run, and write a copy to ``conf/conf.json``."""
        with opened(self.record, make=True) as folder:
            folder.write("conf.json", _as_bytes(conf), durable=True)
        self.show_conf(conf)

    def conf(self) -> dict[str, Any]:
        """The recorded request of the run."""
        return _read_json(self.record, "conf.json")

    def write_result(self, operator: str, result: Mapping[str, Any]) -> None:
        """Record the result of an operator, and write a copy to ``conf/results``."""
        with opened(self.record, "results", make=True) as folder:
            folder.write(f"{operator}.json", _as_bytes(result), durable=True)
        # Something else may be at that path: nothing depends on the copy.
        with contextlib.suppress(UnsafePath, OSError), self.opened("conf", "results", make=True) as folder:
            folder.write(f"{operator}.json", _as_bytes(result))

    def forget_result(self, operator: str) -> None:
        """Remove the recorded result of an operator that is run again."""
        with contextlib.suppress(FileNotFoundError), opened(self.record, "results") as folder:
            folder.remove(f"{operator}.json")
        with contextlib.suppress(UnsafePath, OSError), self.opened("conf", "results") as folder:
            folder.remove(f"{operator}.json")

    def result(self, operator: str) -> dict[str, Any]:
        """The recorded result of an operator.

        Raises:
            NotFound: the operator has not ended in this run.
        """
        return _read_json(self.record, "results", f"{operator}.json")


class RunDirectories:
    """All run directories of a platform."""

    def __init__(self, folder: Path) -> None:
        # The folder itself may be a link to another disk: only a user who can write to the home can make it.
        self.folder = folder.resolve() if folder.is_symlink() else folder

    def _of(self, name: str) -> RunDirectory:
        return RunDirectory(self.folder / name, self.folder / _BY_RUN / _RECORDS / name)

    def create(self, workflow: str, dagster_run_id: str, now: datetime) -> RunDirectory:
        """Make a new, empty directory for a Dagster run.

        A run that is started again before it wrote anything gets another one.
        """
        checked_name(workflow, kind="workflow name")
        while True:
            directory = self._of(f"{workflow}-{now:%y%m%d%H%M%S%f}")
            try:
                make_folder(self.folder)
                directory.batch.mkdir(parents=True)
            except FileExistsError:
                now = datetime.now(now.tzinfo)
            else:
                break
        make_folder(directory.path / "conf" / "results")
        by_run = self.folder / _BY_RUN / checked_name(dagster_run_id, kind="run id")
        while True:
            make_folder(directory.record.parent)
            with contextlib.suppress(FileNotFoundError):  # a run that ends just now removed the empty folder
                directory.record.mkdir()
                break
        sync_folder(directory.record.parent)
        make_folder(directory.record / "results")
        sync_folder(self.folder)
        write_file(by_run, directory.name)
        return directory

    def find(self, dagster_run_id: str) -> RunDirectory:
        """The directory of a Dagster run.

        Raises:
            NotFound: the run has no directory, or the directory was cleaned.
        """
        by_run = self.folder / _BY_RUN / checked_name(dagster_run_id, kind="run id")
        try:
            directory = self._of(checked_name(by_run.read_text(), kind="name of a run directory"))
        except FileNotFoundError as exc:
            raise NotFound(f"run {dagster_run_id} has no run directory in {self.folder}") from exc
        if not directory.path.is_dir():
            raise NotFound(f"the run directory {directory.path} was cleaned: start the workflow anew")
        if not directory.record.is_dir():
            _take_over(directory)
        return directory

    @contextmanager
    def used(self, directory: RunDirectory, dagster_run_id: str) -> Iterator[None]:
        """Lock the directory against other runs and against ``older_than``; processes of one run share the lock.

        Without it, two re-executions of a run at the same time would remove and verify the same outputs.

        Raises:
            TemporaryError: another run works in the directory.
        """
        mark = self.folder / _BY_RUN / f"{directory.name}.{checked_name(dagster_run_id, kind='run id')}"
        with locked(mark, shared=True):
            others = self._users(directory) - {mark.name}
            if others:
                other = min(others).partition(".")[2]
                raise TemporaryError(f"run {other} works in {directory.path}: wait for its end, then repeat this one")
            yield

    def _users(self, directory: RunDirectory) -> set[str]:
        return {
            mark.name
            for mark in (self.folder / _BY_RUN).glob(f"{directory.name}.*")
            if is_locked(mark, shared_counts=True)
        }

    def users(self, directory: RunDirectory) -> list[str]:
        """The Dagster runs that now work in a directory, or in that of one of its single series."""
        return sorted(name.rpartition(".")[2] for name in self._users(directory))

    def holding(self, series: Set[str]) -> list[RunDirectory]:
        """The directories of all runs that one of these series was requested for, without those of single series."""
        return [each for each in self._all() if series & _asked_for(each)]

    def remove(self, directory: RunDirectory) -> list[str]:
        """Remove a run's directory and those of its single series. Returns what cannot be removed, and why.

        The record of a directory that cannot be removed is kept, so that the next cleaning tries again.
        """
        with opened(self.folder) as folder:
            names = sorted(path.name for path in self.folder.glob(f"{directory.name}-*"))
            left = [problem for name in (*names, directory.name) for problem in folder.remove(name)]
            if left:
                return left
        by_run = self.folder / _BY_RUN
        for mark in by_run.glob(f"{directory.name}.*"):
            mark.unlink(missing_ok=True)
        for each in by_run.glob("[!.]*"):
            with contextlib.suppress(FileNotFoundError):  # another run ends at the same time
                if each.read_text() == directory.name:
                    each.unlink()
        with contextlib.suppress(FileNotFoundError), opened(by_run, _RECORDS) as records:
            left = records.remove(directory.name)
        with contextlib.suppress(OSError):  # it holds the records of other runs, or is gone
            directory.record.parent.rmdir()
        return left

    def older_than(self, days: float) -> list[RunDirectory]:
        """The directories that no run uses and nobody wrote to for that many days.

        The directories of single series are left out.
        """
        old = [directory for directory in self._all() if _is_old(directory, days * 86_400)]
        return [directory for directory in old if not self._users(directory)]

    def _all(self) -> list[RunDirectory]:
        """The directories of all runs, without those of single series."""
        found = [self._of(path.name) for path in sorted(self.folder.glob("[!.]*")) if path.is_dir()]
        # Directories that an earlier version made have no record.
        return [each for each in found if each.record.is_dir() or _has_results(each)]


def _asked_for(directory: RunDirectory) -> set[str]:
    """The series that were requested for a run; if the request cannot be read, those that have a folder."""
    try:
        conf = directory.conf()
        return {*conf["series"], *conf.get("missing", {})}
    except (NotFound, ValueError, KeyError, TypeError):
        return {path.name for path in directory.batch.glob("*")}


def _take_over(directory: RunDirectory) -> None:
    """Make the record of a run that an earlier version began, from the files in its directory."""
    staged = directory.record.with_name(f".{directory.name}.{secrets.token_hex(8)}")
    (staged / "results").mkdir(parents=True)
    try:
        with contextlib.suppress(FileNotFoundError), directory.opened("conf") as conf, opened(staged) as target:
            target.write("conf.json", conf.read("conf.json"), durable=True)
            with conf.below("results") as results, target.below("results") as shown:
                for _, folder, files in results.walk():
                    for found in files:
                        shown.write(found.name, folder.read(found.name), durable=True)
        with contextlib.suppress(OSError):  # another process of the run was faster
            staged.rename(directory.record)
            sync_folder(directory.record.parent)
    finally:
        with opened(staged.parent) as records:
            records.remove(staged.name)


def _has_results(directory: RunDirectory) -> bool:
    with contextlib.suppress(FileNotFoundError, UnsafePath), directory.opened("conf", "results"):
        return True
    return False


def _is_old(directory: RunDirectory, for_s: float) -> bool:
    untouched = [is_untouched(directory.path, for_s=for_s)]
    # Check every folder: one dated in the future gets the current date, from which its age counts. A folder that
    # cannot be entered is ignored.
    for names in (("batch",), ("conf",), ("conf", "results")):
        with contextlib.suppress(FileNotFoundError, UnsafePath), directory.opened(*names) as folder:
            untouched.append(is_untouched(folder.fd, for_s=for_s))
    return all(untouched)


def _as_bytes(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, indent=1).encode()


def _read_json(folder: Path, *names: str) -> dict[str, Any]:
    try:
        with opened(folder, *names[:-1]) as place:
            values: dict[str, Any] = json.loads(place.read(names[-1]))
    except FileNotFoundError as exc:
        raise NotFound(f"{folder.joinpath(*names)} is not there") from exc
    return values
