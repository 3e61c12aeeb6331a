"""Sends DICOM files to a platform over the network, or imports them from a folder straight into the spool."""

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
    """A file that was not sent, and the reason in words."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Sent:
    """The result of sending the files of a folder.

    Attributes:
        instances: number of instances that the receiver acknowledged.
        failed: DICOM files that could not be read or sent.
        skipped: files that are not DICOM objects.
    """

    instances: int
    failed: tuple[FailedFile, ...]
    skipped: tuple[FolderFile, ...]


@dataclass(frozen=True)
class Imported:
    """The result of importing the files of a folder: the outcome of each file, in order."""

    files: tuple[ImportedFile, ...]

    @property
    def counts(self) -> Counter[ImportOutcome]:
        """The number of files with each outcome."""
        return Counter(file.outcome for file in self.files)

    @property
    def is_whole(self) -> bool:
        """Whether no DICOM file went to the quarantine or was in conflict."""
        return not {ImportOutcome.QUARANTINED, ImportOutcome.CONFLICT} & self.counts.keys()


def receiver_of(settings: Settings, *, calling_ae_title: str = "KAAPANA_SEND") -> Peer:
    """Return the network address and AE titles of the platform's own receiver."""
    return Peer(
        host=settings.receiver_host,
        port=settings.receiver_port,
        called_ae_title=settings.receiver_ae_title,
        calling_ae_title=calling_ae_title,
    )


def send_folder(settings: Settings, folder: Path, *, peer: Peer, progress: Progress = no_progress) -> Sent:
    """Send the DICOM files in a folder and its subfolders to a receiver by C-STORE.

    Args:
        settings: settings with the limits for reading DICOM.
        folder: a folder, or a single file.
        peer: the receiver; see ``receiver_of``.
        progress: called for the stages ``reading`` and ``sending``.

    Raises:
        NotFound: there is no such folder.
        TemporaryError: no receiver answers, or it rejects the sender.
    """
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)  # the result has the same information
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
    """Copy the DICOM files in a folder and its subfolders into the spool, or into the quarantine if unreadable.

    Args:
        settings: settings with an existing home and the limits for reading DICOM.
        folder: a folder, or a single file.
        progress: called for the stage ``importing``.

    Raises:
        NotFound: there is no such folder.
        SpoolUnavailable: the spool is full or not writable; the files reported to ``progress`` are imported.
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
