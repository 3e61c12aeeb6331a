"""The shelf keeps verified outputs as assets: each entry is whole and has one fingerprint.

    <folder>/<workflow>/<operator>/<series or cohort>/<files> and .manifest.json

An entry is replaced in one step. Files on the shelf share no writable blocks with run directories, so
no operator can change them.
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
"""Longest path inside an output, in bytes. Linux opens paths of up to 4,095 bytes, including the folders above."""
_STAGING = ".staging"


@dataclass(frozen=True)
class ShelfFile:
    """One file of an entry: its path inside the entry, its size in bytes and its digest ``sha256:<hex>``."""

    path: str
    size_bytes: int
    digest: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The files of an entry, and the run that made them."""

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
        """The total size of its files."""
        return sum(file.size_bytes for file in self.files)


@dataclass(frozen=True)
class Origin:
    """The run and the operator that made an output."""

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
        """The folder of an entry, whether it exists or not.

        Raises:
            InvalidIdentifier: a name is not safe as a path component.
        """
        return self.entries_of(workflow, operator) / checked_name(partition, kind="shelf name")

    def entries_of(self, workflow: str, operator: str) -> Path:
        """The folder of all entries of an operator, whether it exists or not.

        Raises:
            InvalidIdentifier: a name is not safe as a path component.
        """
        parts = [checked_name(part, kind="shelf name") for part in (workflow, operator)]
        return self.folder.joinpath(*parts)

    def manifest(self, workflow: str, operator: str, partition: str) -> Manifest | None:
        """The manifest of an entry; None if there is no entry or its files are not complete.

        Only the sizes of files are compared here; ``fetch`` compares their content.
        """
        folder = self.entry(workflow, operator, partition)
        try:
            manifest = _read(folder / _MANIFEST)
            whole = all((folder / file.path).lstat().st_size == file.size_bytes for file in manifest.files)
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
            return None
        except OSError as exc:
            if exc.errno != errno.ENAMETOOLONG:  # an entry made before paths had a limit
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
        """Put outputs on the shelf, each in one step; all of them are durable on return.

        The files of all outputs are synced before the first entry appears.

        Args:
            origin: the operator and run that made them.
            outputs: the folder and the fingerprint of each output, by partition.
            within: a folder above all outputs that operators cannot replace; no link below it is followed. Without
                it, this holds for the folder of each output.
            limits: how large each output may be.

        Returns:
            The manifests of the published outputs by partition, and the reasons why others were refused (such as
            a link in the output) by partition.

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
        """Copy the files of an entry into a new folder and compare each with its digest.

        Raises:
            NotFound: there is no such entry, or it is damaged and has to be made again.
        """
        folder = self.entry(workflow, operator, partition)
        while True:
            before = _identity(folder)
            manifest = self.manifest(workflow, operator, partition)
            # The entry was replaced meanwhile: the files that were seen may be of the old and of the new one.
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
        """The manifests of the entries that exist, by partition."""
        found = {partition: self.manifest(workflow, operator, partition) for partition in partitions}
        return {partition: manifest for partition, manifest in found.items() if manifest is not None}

    def abandoned(self, *, older_than_days: float) -> list[Path]:
        """Unfinished outputs that killed runs left behind and nobody wrote to for that many days."""
        staging = self.folder / _STAGING
        return sorted(path for path in staging.glob("*") if is_untouched(path, for_s=older_than_days * 86_400))


def _identity(folder: Path) -> tuple[int, int] | None:
    """A value that differs between an entry and its replacement; None if there is no entry."""
    try:
        stat = folder.stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_mtime_ns


def _copy(folder: Path, manifest: Manifest, into: Path) -> Path | None:
    """Copy the files of an entry to a new folder. Returns the first that differs from the manifest, else None."""
    into.mkdir(parents=True)
    for file in manifest.files:
        target = into / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            _, digest = duplicate(folder / file.path, target)
        except FileNotFoundError:
            return folder / file.path
        target.chmod(0o644)  # whatever the umask: operators of another user must read it
        if digest != file.digest:
            return folder / file.path
    return None


def _stage(output: Folder, target: Path, limits: Limits | None) -> list[ShelfFile]:
    """Copy an output to a new folder of the platform. Returns its files, sorted by path."""
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
