"""The receiver as a process, spoken to over real sockets by pynetdicom and DCMTK."""

import io
import os
import random
import shutil
import signal
import struct
import subprocess
import threading
from contextlib import contextmanager
from pathlib import Path

import pydicom
import pytest
from pydicom.filewriter import dcmwrite
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import Verification

from kaapana_assets.dicom.digests import content_digest
from kaapana_assets.ingest.dicom_folder import files_in, inspect
from kaapana_assets.stores.pacs.remote.dimse import Peer, send_files

# pynetdicom leaves sockets of refused or broken connections to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@contextmanager
def associated(receiver, *contexts, calling="TEST"):
    ae = AE(ae_title=calling)
    ae.dimse_timeout = 5  # a receiver that was killed does not answer
    contexts = contexts or (build_context(CTImageStorage, ExplicitVRLittleEndian), build_context(Verification))
    assoc = ae.associate(receiver.host, receiver.port, contexts=list(contexts), ae_title=receiver.aet)
    try:
        yield assoc
    finally:
        if assoc.is_established:
            assoc.release()


def dataset_bytes(ds) -> bytes:
    buffer = io.BytesIO()
    dcmwrite(buffer, ds, enforce_file_format=True)
    data = buffer.getvalue()
    return data[144 + struct.unpack_from("<L", data, 140)[0] :]


def send_raw(assoc, data: bytes, *, sop_class=CTImageStorage, sop_instance="1.2.3"):
    """C-STORE of bytes that no library would encode; gives the status."""
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = sop_class, sop_instance
    request.DataSet = io.BytesIO(data)
    context = next(cx for cx in assoc.accepted_contexts if cx.abstract_syntax != Verification)
    assoc._reactor_checkpoint.clear()
    try:
        assoc.dimse.send_msg(request, context.context_id)
        _, response = assoc.dimse.get_msg(block=True)
    finally:
        assoc._reactor_checkpoint.set()
    return None if response is None else response.Status


def stored(receiver) -> dict[str, Path]:
    return {
        file.stem: file for each in receiver.spool.series() for file in receiver.spool.files(each.series_instance_uid)
    }


def test_echo_is_answered(receiver):
    with associated(receiver) as assoc:
        assert assoc.send_c_echo().Status == 0x0000


def test_object_is_in_the_spool_as_it_was_sent_once_it_is_acknowledged(receiver, instance):
    ds = instance()
    with associated(receiver) as assoc:
        assert assoc.send_c_store(ds).Status == 0x0000
        path = stored(receiver)[ds.SOPInstanceUID]
        assert path.read_bytes().endswith(dataset_bytes(ds))
        read = pydicom.dcmread(path)
        assert read.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
        assert read == ds


def test_series_is_held_back_until_its_association_ends(receiver, instance, until):
    ds = instance()
    with associated(receiver) as assoc:
        assoc.send_c_store(ds)
        assert receiver.spool.ready(0) == []
    until(lambda: receiver.spool.ready(0) == [ds.SeriesInstanceUID])


def test_same_object_again_is_a_success_and_replaces_nothing(receiver, instance):
    ds = instance()
    with associated(receiver) as assoc:
        assoc.send_c_store(ds)
        before = stored(receiver)[ds.SOPInstanceUID].stat()
        assert assoc.send_c_store(ds).Status == 0x0000
    assert stored(receiver)[ds.SOPInstanceUID].stat().st_ino == before.st_ino
    assert list(receiver.spool.quarantined()) == []


def test_other_content_of_the_same_instance_is_kept_apart_and_reported(receiver, instance):
    ds = instance()
    with associated(receiver) as assoc:
        assoc.send_c_store(ds)
        ds.PixelData = bytes(len(ds.PixelData))
        assert assoc.send_c_store(ds).Status == 0x0000
    (kept,) = receiver.spool.quarantined()
    assert pydicom.dcmread(kept.path).PixelData == ds.PixelData
    assert pydicom.dcmread(stored(receiver)[ds.SOPInstanceUID]).PixelData != ds.PixelData
    assert f"instance {ds.SOPInstanceUID}" in receiver.log
    assert "Secret" not in receiver.log


def test_large_object_goes_through_a_file(receiver, instance):
    ds = instance(pixels=60_000)
    ds.Rows, ds.PixelData = 200, os.urandom(12_000_000)
    with associated(receiver) as assoc:
        assert assoc.send_c_store(ds).Status == 0x0000
        assert assoc.send_c_store(ds).Status == 0x0000
    assert stored(receiver)[ds.SOPInstanceUID].read_bytes().endswith(dataset_bytes(ds))
    assert list((receiver.spool.incoming / ".tmp").iterdir()) == []


def test_unknown_and_private_storage_classes_are_taken(receiver, instance):
    for sop_class in ("1.2.840.10008.5.1.4.1.1.999.1", "1.3.46.670589.11.0.0.12.1"):
        ds = instance()
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = sop_class
        with associated(receiver, build_context(sop_class, ExplicitVRLittleEndian)) as assoc:
            assert assoc.send_c_store(ds).Status == 0x0000
        assert ds.SOPInstanceUID in stored(receiver)


@pytest.mark.parametrize("allowed", ["SCANNER", "OTHER, SCANNER"])
def test_only_allowed_titles_may_send(tmp_path, start_receiver, allowed, until):
    with start_receiver(tmp_path, tmp_path / "home", allowed_calling_ae_titles=allowed) as receiver:
        with associated(receiver, calling="SCANNER") as assoc:
            assert assoc.is_established
        with associated(receiver, calling="STRANGER") as assoc:
            assert assoc.is_rejected
            primitive = assoc.acceptor.primitive
            # PS3.8 9.3.4: rejected permanently, by the service user, calling AE title not recognised
            assert (primitive.result, primitive.result_source, primitive.diagnostic) == (1, 1, 3)
        until(lambda: "STRANGER" in receiver.log)


def _uid(tag: int, value: bytes) -> bytes:
    value += b"\0" * (len(value) % 2)
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, b"UI", len(value)) + value


def _dataset(*, sop_class=b"", sop=b"1.2.3", study=b"1.2", series=b"1.2.4") -> bytes:
    values = (0x00080016, sop_class or CTImageStorage.encode()), (0x00080018, sop), (0x0020000D, study)
    return b"".join(_uid(tag, value) for tag, value in (*values, (0x0020000E, series)))


REFUSED = {
    "zero bytes of identifiers": (b"\x08\x00\x05\x00CS\x00\x00", 0xC000),
    "no DICOM": (b"this is no DICOM at all" * 20, 0xC000),
    "cut short": (_dataset()[:-20], 0xC000),
    "series that leaves the folder": (_dataset(series=b"../../x"), 0xC000),
    "absolute series": (_dataset(series=b"/etc/passwd"), 0xC000),
    "instance that leaves the folder": (_dataset(sop=b"../../x"), 0xC000),
    "study that is no UID": (_dataset(study=b"a b"), 0xC000),
    "empty series": (_dataset(series=b""), 0xC000),
    "UID of 65 characters": (_dataset(series=b"1" * 65), 0xC000),
    "UID of a megabyte": (struct.pack("<HH2sHL", 8, 0x16, b"UN", 0, 1 << 20) + b"1" * (1 << 20), 0xC000),
    "other instance than requested": (_dataset(sop=b"1.2.9"), 0xC000),
    "other SOP class than requested": (_dataset(sop_class=MRImageStorage.encode()), 0xA900),
}


@pytest.mark.parametrize(("data", "status"), REFUSED.values(), ids=REFUSED.keys())
def test_object_that_cannot_be_taken_gets_its_status_and_a_log_line(receiver, instance, data, status):
    with associated(receiver) as assoc:
        assert send_raw(assoc, data) == status
        assert f"refused with 0x{status:04X}" in receiver.log
        # The association and the process go on.
        assert assoc.send_c_store(instance()).Status == 0x0000
    assert len(stored(receiver)) == 1
    assert list((receiver.spool.incoming / ".tmp").iterdir()) == []


def test_hostile_instance_in_the_request_never_reaches_the_file_system(receiver):
    with associated(receiver) as assoc:
        assert send_raw(assoc, _dataset(sop=b"../../x"), sop_instance="../../x") == 0x0117
    assert stored(receiver) == {}
    with associated(receiver) as assoc:
        assert assoc.send_c_echo().Status == 0x0000


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "x", folder], check=False).returncode
    ):
        pytest.skip("needs to be root and allowed to mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("size", [1_000_000, 8_000_000], ids=["in memory", "through a file"])
def test_full_disk_is_out_of_resources_until_there_is_room(tmp_path, small_disk, start_receiver, instance, size):
    filler = small_disk / "filler"
    with start_receiver(tmp_path, small_disk / "home", min_free_bytes="0") as receiver, associated(receiver) as assoc:
        filler.write_bytes(bytes(20_500_000))
        ds = instance()
        ds.PixelData = bytes(size)
        assert assoc.send_c_store(ds).Status == 0xA700
        assert "0xA700" in receiver.log
        filler.unlink()
        assert assoc.send_c_store(ds).Status == 0x0000
        assert set(stored(receiver)) == {ds.SOPInstanceUID}


def test_read_only_disk_is_out_of_resources(tmp_path, small_disk, start_receiver, instance):
    with start_receiver(tmp_path, small_disk / "home", min_free_bytes="0") as receiver:
        subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
        with associated(receiver) as assoc:
            assert assoc.send_c_store(instance()).Status == 0xA700
            assert assoc.send_c_echo().Status == 0x0000


def test_free_space_below_the_limit_is_out_of_resources(tmp_path, start_receiver, instance):
    with start_receiver(tmp_path, tmp_path / "home", min_free_bytes=str(1 << 60)) as receiver:
        with associated(receiver) as assoc:
            assert assoc.send_c_store(instance()).Status == 0xA700
        assert "KAAPANA_MIN_FREE_BYTES" in receiver.log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_receiver_stops_cleanly(receiver, instance, number):
    with associated(receiver) as assoc:
        assoc.send_c_store(instance())
        receiver.process.send_signal(number)
        assert receiver.process.wait(20) == 0
    assert len(stored(receiver)) == 1


def send_until_killed(receiver, datasets, acknowledged: list) -> None:
    with associated(receiver) as assoc:
        for ds in datasets:
            if not assoc.is_established:
                return
            try:
                status = assoc.send_c_store(ds)
            except (RuntimeError, ValueError):
                return
            if "Status" in status and status.Status == 0x0000:
                acknowledged.append(ds)


@pytest.mark.parametrize("seed", range(4))
def test_killed_receiver_has_lost_nothing_that_it_acknowledged(tmp_path, start_receiver, instance, seed, until):
    after = random.Random(seed).randrange(1, 60)
    acknowledged: list = []
    with start_receiver(tmp_path, tmp_path / "home") as receiver:
        senders = []
        for number in range(2):
            datasets = [instance(series=f"1.2.{number}", pixels=20_000) for _ in range(200)]
            senders.append(threading.Thread(target=send_until_killed, args=(receiver, datasets, acknowledged)))
        for sender in senders:
            sender.start()
        until(lambda: len(acknowledged) >= after)
        receiver.process.kill()
        for sender in senders:
            sender.join()
        files = stored(receiver)
        for ds in acknowledged:
            assert files[ds.SOPInstanceUID].read_bytes().endswith(dataset_bytes(ds))
        for path in files.values():  # nor is anything there by half
            assert len(pydicom.dcmread(path).PixelData) == 20_000
        until(lambda: sorted(receiver.spool.ready(0)) == sorted({ds.SeriesInstanceUID for ds in acknowledged}))


def needs(tool: str) -> str:
    found = shutil.which(tool)
    if found is None:
        pytest.skip(f"needs {tool} of DCMTK, which this machine does not have")
    return found


def test_dcmtk_echo_is_answered(receiver):
    subprocess.run([needs("echoscu"), "-aec", receiver.aet, receiver.host, str(receiver.port)], check=True, timeout=60)


@pytest.mark.parametrize("name", ["", "_j2k", "_jpeg", "_jpegls", "_rle"])
def test_dcmtk_sends_every_transfer_syntax_and_nothing_is_decoded(receiver, shared_data, name):
    """DCMTK itself encodes the header anew (group lengths, padding); the pixel data it sends as it is."""
    dcmsend = needs("dcmsend")
    sources = [path for path in files_in(shared_data / "compressed" / f"compressed{name}") if inspect(path).identity]
    command = [dcmsend, "-q", "--decompress-never", receiver.host, str(receiver.port), *map(str, sources)]
    subprocess.run(command, timeout=120, check=True)
    files = stored(receiver)
    assert len(files) == len(sources) == 4
    for source in sources:
        sent = pydicom.dcmread(source)
        kept = pydicom.dcmread(files[sent.SOPInstanceUID])
        assert kept.file_meta.TransferSyntaxUID == sent.file_meta.TransferSyntaxUID
        assert kept.PixelData == sent.PixelData


def test_dcmtk_storescu_is_understood(receiver, instance, tmp_path):
    path = tmp_path / "x.dcm"
    ds = instance()
    ds.save_as(path, enforce_file_format=True)
    command = [needs("storescu"), "-aec", receiver.aet, receiver.host, str(receiver.port), str(path)]
    subprocess.run(command, check=True, timeout=60)
    assert set(stored(receiver)) == {ds.SOPInstanceUID}


def test_sender_sends_every_transfer_syntax_and_the_bytes_stay(receiver, shared_data):
    found = [inspect(path) for path in files_in(shared_data / "compressed")]
    objects = [file for file in found if file.identity is not None]
    peer = Peer(receiver.host, receiver.port, receiver.aet)
    assert [result.failure for result in send_files(peer, objects)] == [""] * len(objects)
    kept = {content_digest(path) for path in stored(receiver).values()}
    kept |= {content_digest(each.path) for each in receiver.spool.quarantined()}
    assert {content_digest(file.path) for file in objects} == kept


def test_sender_groups_more_kinds_than_one_association_can_hold(receiver, instance, tmp_path):
    for number in range(150):
        ds = instance(series="1.2.3")
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = f"1.3.46.670589.9.{number}"
        ds.save_as(tmp_path / f"{number}.dcm", enforce_file_format=True)
    objects = [inspect(path) for path in sorted(tmp_path.glob("*.dcm"))]
    results = list(send_files(Peer(receiver.host, receiver.port, receiver.aet), objects))
    assert {result.failure for result in results} == {""}
    assert len(stored(receiver)) == 150


def test_sender_says_that_nobody_answers(free_port, instance, tmp_path):
    for number in range(3):
        instance().save_as(tmp_path / f"{number}.dcm", enforce_file_format=True)
    objects = [inspect(path) for path in sorted(tmp_path.glob("*.dcm"))]
    results = list(send_files(Peer("127.0.0.1", free_port, "NOBODY"), objects))
    assert len(results) == 3
    assert all("is the receiver running" in result.failure for result in results)


def test_sender_says_which_file_names_itself_otherwise_than_its_dataset_does(receiver, instance, tmp_path):
    ds = instance()
    ds.preamble, ds.file_meta.MediaStorageSOPInstanceUID = bytes(128), "1.2.3.4.5"
    pydicom.dcmwrite(tmp_path / "x.dcm", ds, enforce_file_format=False)
    (result,) = send_files(Peer(receiver.host, receiver.port, receiver.aet), [inspect(tmp_path / "x.dcm")])
    assert "0xC000" in result.failure
    assert "1.2.3.4.5" in result.failure
    assert ds.SOPInstanceUID in result.failure
