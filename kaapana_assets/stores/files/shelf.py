"""The shelf: where verified outputs stay as assets, each whole and of one fingerprint.

    <folder>/<workflow>/<operator>/<series or cohort>/<files> and .manifest.json

An entry is replaced in one step. What is on the shelf shares no writable blocks with run
directories, so that no operator can change it.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from kaapana_assets.clocks import is_untouched
from kaapana_assets.dicom.identifiers import checked_name
from kaapana_assets.durable import make_folder, sync_folder
from kaapana_assets.errors import NotFound, OutputMissing, StoreUnavailable, UnsafePath
from kaapana_assets.stores.files.transfer import duplicate, put_in_place, sync_file_system
from kaapana_assets.stores.files.trees import copy_found, foreign_link
from kaapana_assets.tree_limits import Limits
from kaapana_assets.untrusted import Folder, opened

_MANIFEST = ".manifest.json"
_LONGEST_PATH = 2048
"""Bytes below an output. Linux opens paths of up to 4,095 bytes, those of the shelf and of runs included."""
_STAGING = ".staging"


@dataclass(frozen=True)
class ShelfFile:
    """One file of an entry: its path inside it, size in bytes and ``sha256:<hex>``."""

    path: str
    size_bytes: int
    digest: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What an entry holds and where it came from."""

    workflow: str
    operator: str
    partition: str
    fingerprint: str
    run: str
    dagster_run_id: str
    created: str
    files: tuple[ShelfFile, ...]

    @property
    def size_bytes(self) -> int:
        """The size of all its files together."""
        return sum(file.size_bytes for file in self.files)


@dataclass(frozen=True)
class Origin:
    """Which operator of which run made what is put on the shelf."""

    workflow: str
    operator: str
    run: str
    dagster_run_id: str
    created: str


class Shelf:
    """All outputs of all workflows, by workflow, operator and partition."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def entry(self, workflow: str, operator: str, partition: str) -> Path:
        """The folder of an entry, whether it is there or not.

        Raises:
            InvalidIdentifier: a name that is not safe as a path component.
        """
        parts = [checked_name(part, kind="shelf name") for part in (workflow, operator, partition)]
        return self.folder.joinpath(*parts)

    def manifest(self, workflow: str, operator: str, partition: str) -> Manifest | None:
        """What an entry holds; None when there is none or its files are not all there.

        Files are compared by size here; their content is compared when they are fetched.
        """
        folder = self.entry(workflow, operator, partition)
        try:
            manifest = _read(folder / _MANIFEST)
            whole = all((folder / file.path).lstat().st_size == file.size_bytes for file in manifest.files)
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
            return None
        except OSError as exc:
            if exc.errno != errno.ENAMETOOLONG:  # of an entry from before paths had a limit
                raise
            return None
        return manifest if whole else None

    def publish(
        self,
        origin: Origin,
        outputs: Mapping[str, tuple[Path, str]],
        *,
        within: Path | None = None,
        limits: Limits | None = None,
    ) -> tuple[dict[str, Manifest], dict[str, str]]:
        """Put outputs on the shelf, each in one step, after all of them are durable; durable there when it returns.

        Args:
            origin: the operator and run that made them.
            outputs: by partition: the folder with the output and its fingerprint.
            within: the folder that operators cannot put aside; below it no link is followed. Without it, the
                folders of the outputs themselves are such.
            limits: how large each output may be.

        Returns:
            The manifests by partition, and by partition why an output was refused (a link in it).

        Raises:
            InvalidIdentifier: a name of the origin, or a partition, is not safe as a path component.
            StoreUnavailable: the shelf cannot be written.
        """
        if not outputs:
            return {}, {}
        targets = {partition: self.entry(origin.workflow, origin.operator, partition) for partition in outputs}
        staging = self.folder / _STAGING / uuid.uuid4().hex
        make_folder(staging)
        manifests: dict[str, Manifest] = {}
        refused: dict[str, str] = {}
        try:
            for partition, (source, fingerprint) in outputs.items():
                top = source if within is None else within
                try:
                    with opened(top, *source.relative_to(top).parts) as output:
                        files = _stage(output, staging / partition, limits)
                except (OutputMissing, UnsafePath) as exc:
                    refused[partition] = str(exc)
                    continue
                manifests[partition] = _manifest(origin, partition, fingerprint, files)
                (staging / partition / _MANIFEST).write_text(json.dumps(asdict(manifests[partition])))
            sync_file_system(staging)
            shelf = targets[next(iter(outputs))].parent
            make_folder(shelf)
            for partition in manifests:
                put_in_place(staging / partition, targets[partition])
            sync_folder(shelf)
        except OSError as exc:
            raise StoreUnavailable(
                f"the shelf {self.folder} cannot be written: {exc.strerror}: {exc.filename}"
            ) from exc
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return manifests, refused

    def fetch(self, workflow: str, operator: str, partition: str, into: Path) -> Manifest:
        """Copy an entry's files into a new folder and compare each with its digest.

        Raises:
            NotFound: there is no such entry, or it is damaged; making it again mends it.
        """
        folder = self.entry(workflow, operator, partition)
        while True:
            before = _identity(folder)
            manifest = self.manifest(workflow, operator, partition)
            # Changed at this moment: what was seen may be the files of two entries, one replaced by the other.
            if manifest is None and _identity(folder) != before:
                continue
            if manifest is None:
                raise NotFound(f"the shelf has no whole output of {workflow}/{operator} for {partition}: run it again")
            damaged = _copy(folder, manifest, into)
            if damaged is None:
                return manifest
            shutil.rmtree(into)
            if _identity(folder) == before:
                raise NotFound(f"{damaged} is not what was put on the shelf: run {workflow} with force")

    def entries(self, workflow: str, operator: str, partitions: Sequence[str]) -> dict[str, Manifest]:
        """The manifests of the entries that are there, by partition."""
        found = {partition: self.manifest(workflow, operator, partition) for partition in partitions}
        return {partition: manifest for partition, manifest in found.items() if manifest is not None}

    def abandoned(self, *, older_than_days: float) -> list[Path]:
        """Half-made outputs that runs left behind when they were killed, that long ago."""
        staging = self.folder / _STAGING
        return sorted(path for path in staging.glob("*") if is_untouched(path, for_s=older_than_days * 86_400))


def _identity(folder: Path) -> tuple[int, int] | None:
    """Tells an entry from the one that replaces it; None where there is none."""
    try:
        stat = folder.stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_mtime_ns


def _copy(folder: Path, manifest: Manifest, into: Path) -> Path | None:
    """The files of an entry in a new folder; the first that is not as the manifest says, else None."""
    into.mkdir(parents=True)
    for file in manifest.files:
        target = into / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            _, digest = duplicate(folder / file.path, target)
        except FileNotFoundError:
            return folder / file.path
        target.chmod(0o644)  # whatever the umask: operators of another user read it
        if digest != file.digest:
            return folder / file.path
    return None


def _stage(output: Folder, target: Path, limits: Limits | None) -> list[ShelfFile]:
    """Copy an output to a new folder of the platform; its files in order."""
    target.mkdir()
    files: list[ShelfFile] = []
    with opened(target) as staged:
        for place, folder, found_here in output.walk(limits=limits):
            if _MANIFEST in place.split("/"):
                raise OutputMissing(f"{folder.path}: the name belongs to the platform; write another one")
            if not found_here:
                continue
            with staged.below(*(place.split("/") if place else ()), make=True) as there:
                for found in found_here:
                    if found.name == _MANIFEST:
                        where = folder.path / found.name
                        raise OutputMissing(f"{where}: the name belongs to the platform; write another one")
                    if found.status.st_nlink > 1:
                        raise foreign_link(folder, found)
                    path = f"{place}/{found.name}" if place else found.name
                    if len(os.fsencode(path)) > _LONGEST_PATH:
                        raise OutputMissing(
                            f"{output.path} holds a path longer than {_LONGEST_PATH} bytes: {path[:200]}"
                        )
                    digest = copy_found(folder, found, there)
                    files.append(ShelfFile(path, found.status.st_size, digest))
    return sorted(files, key=lambda file: file.path.split("/"))


def _manifest(origin: Origin, partition: str, fingerprint: str, files: Sequence[ShelfFile]) -> Manifest:
    return Manifest(
        workflow=origin.workflow,
        operator=origin.operator,
        partition=partition,
        fingerprint=fingerprint,
        run=origin.run,
        dagster_run_id=origin.dagster_run_id,
        created=origin.created,
        files=tuple(files),
    )


def _read(path: Path) -> Manifest:
    values = json.loads(path.read_bytes())
    values["files"] = tuple(ShelfFile(**file) for file in values["files"])
    return Manifest(**values)
