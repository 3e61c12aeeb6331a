"""Bringing DICOM files to a platform: over the network, or from a folder straight into the spool."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kaapana_assets.dicom.limits import limits_of
from kaapana_assets.errors import TemporaryError
from kaapana_assets.ingest.dicom_folder import FolderFile, files_in, inspect
from kaapana_assets.ingest.folder_import import ImportedFile, ImportOutcome, import_files
from kaapana_assets.ingest.spool import open_spool
from kaapana_assets.operations.progress import Progress, no_progress
from kaapana_assets.stores.pacs.remote.dimse import Echo, Peer, echo, send_files

if TYPE_CHECKING:
    from kaapana_assets.settings import Settings


@dataclass(frozen=True)
class FailedFile:
    """A file that was not sent, and why, for a person to read."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Sent:
    """What became of the files of a folder.

    Attributes:
        instances: how many the receiver has acknowledged.
        failed: DICOM files that it does not have.
        skipped: files that are no DICOM objects.
    """

    instances: int
    failed: tuple[FailedFile, ...]
    skipped: tuple[FolderFile, ...]


@dataclass(frozen=True)
class Imported:
    """What became of the files of a folder, one for each, in order."""

    files: tuple[ImportedFile, ...]

    @property
    def counts(self) -> Counter[ImportOutcome]:
        """How many files have each outcome."""
        return Counter(file.outcome for file in self.files)

    @property
    def is_whole(self) -> bool:
        """Whether no DICOM file was set aside."""
        return not {ImportOutcome.QUARANTINED, ImportOutcome.CONFLICT} & self.counts.keys()


def receiver_of(settings: Settings, *, calling_ae_title: str = "KAAPANA_SEND") -> Peer:
    """The platform's own receiver."""
    return Peer(
        host=settings.receiver_host,
        port=settings.receiver_port,
        called_ae_title=settings.receiver_ae_title,
        calling_ae_title=calling_ae_title,
    )


def send_folder(settings: Settings, folder: Path, *, peer: Peer, progress: Progress = no_progress) -> Sent:
    """Send the DICOM files of a folder, and below, to a receiver by C-STORE.

    Args:
        settings: limits of what is read.
        folder: a folder, or one file.
        peer: who takes them, see ``receiver_of``.
        progress: told of the stages ``reading`` and ``sending``.

    Raises:
        NotFound: there is no such folder.
        TemporaryError: no receiver answers there, or it does not take the sender.
    """
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)  # what it says is in the result
    paths = files_in(folder)
    if echo(peer) is not Echo.ANSWERS:
        raise TemporaryError(
            f"no DICOM receiver answers at {peer.host}:{peer.port} as {peer.called_ae_title}, or it does not take "
            f"{peer.calling_ae_title}: is the platform up?"
        )
    limits = limits_of(settings)
    found = []
    progress("reading", done=0, total=len(paths))
    for path in paths:
        found.append(inspect(path, limits=limits))
        progress("reading", done=len(found), total=len(paths))
    objects = [file for file in found if file.identity is not None]
    failed = [FailedFile(file.path, file.damage) for file in found if file.damage]
    instances = 0
    progress("sending", done=0, total=len(objects))
    for done, result in enumerate(send_files(peer, objects), start=1):
        if result.failure:
            failed.append(FailedFile(result.path, result.failure))
        else:
            instances += 1
        progress("sending", done=done, total=len(objects))
    return Sent(instances, tuple(failed), tuple(file for file in found if file.skipped))


def import_folder(settings: Settings, folder: Path, *, progress: Progress = no_progress) -> Imported:
    """Copy the DICOM files of a folder, and below, into the spool; those that cannot be read into the quarantine.

    Args:
        settings: the home, which is there, and limits of what is read.
        folder: a folder, or one file.
        progress: told of the stage ``importing``.

    Raises:
        NotFound: there is no such folder.
        SpoolUnavailable: no space left or not writable; what was told of before is in.
    """
    spool = open_spool(settings)
    spool.prepare()
    paths = files_in(folder)
    files = []
    progress("importing", done=0, total=len(paths))
    for file in import_files(spool, paths, limits=limits_of(settings)):
        files.append(file)
        progress("importing", done=len(files), total=len(paths))
    return Imported(tuple(files))
