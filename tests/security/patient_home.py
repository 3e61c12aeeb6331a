"""A home in which one person's name is everywhere that a sender, a file or a user can put it."""

import subprocess
import sys
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path

import dagster as dg
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from kaapana_assets.cohorts import cohort as cohorts
from kaapana_assets.defs.assembly import build_definitions
from kaapana_assets.ingest.dicom_folder import files_in
from kaapana_assets.ingest.folder_import import import_files
from kaapana_assets.ingest.spool import open_spool
from kaapana_assets.settings import load_settings
from kaapana_assets.stores.factory import open_index

NAME = "Zyxander"
PATIENT = "ZYX-77193"


def write_dicom(
    path: Path, *, series: str, instance: int = 1, study: str = "1.2.3", name: str = NAME, patient: str = PATIENT
) -> Path:
    """A whole DICOM file that names a person in many places."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = f"{series}.{instance}"
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = MRImageStorage, f"{series}.{instance}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study, series
    ds.PatientName, ds.PatientID, ds.OtherPatientNames = f"{name}^Quill", patient, f"{name}^Other"
    ds.ReferringPhysicianName, ds.OperatorsName = f"{name}^Physician", f"{name}^Operator"
    ds.StudyDescription, ds.SeriesDescription = f"knee of {name}", f"{name} axial"
    ds.PatientComments = f"{name} said " + "much " * 60
    ds.Modality, ds.InstanceNumber = "MR", instance
    ds.PixelSpacing, ds.ImageOrientationPatient = [1, 1], [1, 0, 0, 0, 1, 0]
    ds.ImagePositionPatient = [0, 0, 2.0 * instance]
    ds.Rows = ds.Columns = 16
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.PixelData = (bytes(range(256)) * 2)[: 16 * 16 * 2]
    item = Dataset()
    item.RequestedProcedureDescription = f"for {name}"
    ds.RequestAttributesSequence = Sequence([item])
    block = ds.private_block(0x0009, f"{name} LABS", create=True)
    block.add_new(1, "LO", f"private {name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    dcmwrite(path, FileDataset(str(path), ds, preamble=b"\0" * 128, file_meta=meta), enforce_file_format=True)
    return path


def take_in(instance: dg.DagsterInstance, folder: Path) -> None:
    """Import a folder and run the ingest of all that waits then."""
    settings = load_settings()
    spool = open_spool(settings)
    spool.prepare()
    list(import_files(spool, files_in(folder)))
    waiting = sorted(each.series_instance_uid for each in spool.series())
    known = instance.get_dynamic_partitions("series")
    instance.add_dynamic_partitions("series", [uid for uid in waiting if uid not in known])
    job = build_definitions(settings).resolve_job_def("ingest")
    for uid in waiting:
        tags = {"dagster/asset_partition_range_start": uid, "dagster/asset_partition_range_end": uid}
        job.execute_in_process(instance=instance, tags=tags, raise_on_error=False)


def freeze(instance: dg.DagsterInstance, name: str, query: str) -> cohorts.Cohort:
    """A cohort, recorded as an asset."""
    settings = load_settings()
    index = open_index(settings)
    frozen = cohorts.freeze(index, name=name, query=query, now=datetime.now(timezone.utc))
    index.close()
    cohorts.save(settings.home / "cohorts", frozen)
    instance.add_dynamic_partitions("cohorts", [name])
    job = build_definitions(settings).resolve_job_def("record_cohort")
    job.execute_in_process(instance=instance, partition_key=name)
    return frozen


def kaapana(*args: str, code: int = 0) -> str:
    """A command as a user types it; what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "kaapana_assets", *args], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == code, f"{args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def files_with(folder: Path, text: str, *, but: Iterable[str] = ()) -> list[str]:
    """The files and folders below ``folder`` that hold a text, in their name or bytes, capitals or not."""
    wanted = text.lower()
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if any(name == each or name.startswith(f"{each}/") for each in but):
            continue
        if wanted in name.lower() or (path.is_file() and wanted.encode() in path.read_bytes().lower()):
            found.append(name)
    return found
