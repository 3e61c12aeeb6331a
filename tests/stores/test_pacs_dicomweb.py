"""What the PACS on a server does beyond the contract: faults, refusals, and what others do in the archive."""

import inspect
import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import dicomweb_client
import dicomweb_client.web
import pydicom
import pytest
import requests
import retrying
import urllib3
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from services.plugin import service
from services.proxy import fault_proxy, http_answer
from stores.conftest import rest, until
from stores.instances import write

from kaapana_assets.dicom.digests import content_digest
from kaapana_assets.errors import ConfigurationError, KaapanaAssetsError, NotFound, StoreUnavailable
from kaapana_assets.settings import load_settings
from kaapana_assets.stores.factory import open_pacs
from kaapana_assets.stores.pacs.protocol import StoreOutcome
from kaapana_assets.stores.pacs.remote.connection import LIBRARY_ERRORS, ArchiveConnection, translated
from kaapana_assets.stores.pacs.remote.dicomweb import DicomwebArchive
from kaapana_assets.stores.pacs.remote.pacs import DicomwebPacs
from kaapana_assets.stores.pacs.remote.senders import StowSender

pytestmark = pytest.mark.services

STORED, THERE = StoreOutcome.STORED, StoreOutcome.ALREADY_THERE


def open_archive(running, home, **changed):
    given = {name.removeprefix("KAAPANA_").lower(): value for name, value in running.settings.items()}
    return open_pacs(load_settings(**(given | {"home": home, "dicomweb_attempts": 3} | changed)))


@pytest.fixture
def pacs(empty_orthanc, tmp_path):
    return open_archive(empty_orthanc, tmp_path / "home")


def through(proxy):
    return f"http://127.0.0.1:{proxy.port}/dicom-web"


def outcomes(results):
    return [each.outcome for each in results]


@pytest.mark.parametrize("cache_bytes", [0, 10**9], ids=["no cache", "cache"])
def test_what_others_do_in_the_archive_is_seen(empty_orthanc, tmp_path, cache_bytes):
    pacs = open_archive(empty_orthanc, tmp_path / "home", series_cache_bytes=cache_bytes)
    files = [write(tmp_path / "in", f"1.3.{number}") for number in range(4)]
    pacs.store(files[:3])
    pacs.retrieve("1.2", tmp_path / "out", writable_copy=False)
    for each in rest(empty_orthanc, "POST", "/tools/lookup", data="1.3.0").json():
        rest(empty_orthanc, "DELETE", each["Path"])
    rest(empty_orthanc, "POST", "/instances", data=files[3].read_bytes())
    rest(empty_orthanc, "POST", "/instances", data=write(tmp_path / "in", "1.3.4").read_bytes())
    expected = {
        f"1.3.{number}": content_digest(tmp_path / "in" / f"1.2-1.3.{number}-0102.dcm") for number in (1, 2, 3, 4)
    }
    series = pacs.series("1.2")
    assert {each.sop_instance_uid: each.content_digest for each in series.instances} == expected
    assert pacs.retrieve("1.2", tmp_path / "out", writable_copy=False) == series
    assert sorted(path.stem for path in (tmp_path / "out").iterdir()) == sorted(expected)
    rest(empty_orthanc, "DELETE", f"/patients/{rest(empty_orthanc, 'GET', '/patients').json()[0]}")
    with pytest.raises(NotFound):
        pacs.series("1.2")
    assert outcomes(pacs.store(files)) == [STORED] * 4


def test_a_forgotten_series_is_removed_from_the_archive_and_from_here(empty_orthanc, tmp_path):
    pacs = open_archive(empty_orthanc, tmp_path / "home", series_cache_bytes=10**9)
    gone, kept = write(tmp_path / "in", "1.3.1"), write(tmp_path / "in", "1.4.1", series="1.3")
    pacs.store([gone, kept])
    pacs.retrieve("1.2", tmp_path / "out", writable_copy=False)
    for _ in range(2):
        assert pacs.forget("1.2") == ""
        assert pacs.series_uids() == ["1.3"]
    with pytest.raises(NotFound):
        pacs.series("1.2")
    assert not list((tmp_path / "home").rglob("*1.3.1*"))
    assert outcomes(pacs.store([gone])) == [STORED]


def test_what_another_machine_stored_is_compared_by_content(empty_orthanc, tmp_path):
    same, other = write(tmp_path / "in", "1.3.1"), write(tmp_path / "in", "1.3.2")
    open_archive(empty_orthanc, tmp_path / "one").store([same, other])
    changed = write(tmp_path / "in", "1.3.2", pixels=b"\7\7")
    second = open_archive(empty_orthanc, tmp_path / "two")
    assert outcomes(second.store([same, changed])) == [THERE, StoreOutcome.CONFLICT]
    assert {each.content_digest for each in second.series("1.2").instances} == {
        content_digest(same),
        content_digest(other),
    }


def test_an_object_that_the_archive_wrote_anew_is_the_same(empty_orthanc, tmp_path):
    path = write(tmp_path / "in", "1.3.1")
    ds = pydicom.dcmread(path)
    item = Dataset()
    item.CodeValue = "1"
    ds.ProcedureCodeSequence = Sequence([item])
    ds["ProcedureCodeSequence"].is_undefined_length = True
    ds.save_as(path)
    by_dimse = open_archive(empty_orthanc, tmp_path / "home", pacs="dimse")
    assert outcomes(by_dimse.store([path])) == [STORED]
    (kept,) = by_dimse.series("1.2").instances
    assert kept.content_digest != content_digest(path), "the archive kept the bytes: this test shows nothing"
    assert outcomes(by_dimse.store([path])) == [THERE]
    assert outcomes(open_archive(empty_orthanc, tmp_path / "new").store([path])) == [THERE]


def test_real_series_come_back_as_they_were(pacs, shared_data, tmp_path):
    folders = ("ct_j2k", "mr_epi", "compressed")
    files = [path for name in folders for path in sorted((shared_data / name).rglob("*")) if path.is_file()]
    results = pacs.store(files)
    sent = {each.sop_instance_uid: content_digest(each.path) for each in results if each.outcome is STORED}
    assert len(sent) > 60
    for uid in pacs.series_uids():
        for each in pacs.retrieve(uid, tmp_path / "out", writable_copy=False).instances:
            assert content_digest(tmp_path / "out" / f"{each.sop_instance_uid}.dcm") == each.content_digest
            sent.pop(each.sop_instance_uid, None)
    assert sent == {}


def test_a_damaged_file_fails_beside_good_ones_and_waits_alone(pacs, tmp_path):
    good, cut = write(tmp_path / "in", "1.3.1"), write(tmp_path / "in", "1.3.2", pixels=bytes(range(200)))
    cut.write_bytes(cut.read_bytes()[:-150])
    results = pacs.store([cut, good])
    assert outcomes(results) == [StoreOutcome.FAILED, STORED]
    assert "refuses it" in results[0].reason
    with pytest.raises(StoreUnavailable, match=r"1\.3\.2"):
        pacs.store([cut])


def test_a_file_that_is_refused_again_after_others_were_taken_is_at_fault(pacs, tmp_path):
    cut = write(tmp_path / "in", "1.3.2", pixels=bytes(range(200)))
    cut.write_bytes(cut.read_bytes()[:-150])
    for _ in range(2):  # nothing says yet that the archive takes anything
        with pytest.raises(StoreUnavailable, match=r"1\.3\.2"):
            pacs.store([cut])
    pacs.store([write(tmp_path / "in", "1.9.1", series="1.9")])
    (result,) = pacs.store([cut])
    assert result.outcome is StoreOutcome.FAILED
    assert "refuses it" in result.reason


def said(status, sop, reason, referenced=()):
    failed = {"00081155": {"vr": "UI", "Value": [sop]}, "00081197": {"vr": "US", "Value": [reason]}}
    body = {
        "00081198": {"vr": "SQ", "Value": [failed]},
        "00081199": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": [uid]}} for uid in referenced]},
    }  # fmt: skip
    return http_answer(status, json.dumps(body).encode(), "application/dicom+json")


REASONS = {
    "full": (0xA700, StoreUnavailable, "out of resources"),
    "not allowed": (0x0124, ConfigurationError, "KAAPANA_DICOMWEB_USER"),
    "unclear": (0x0110, StoreUnavailable, "0x0110"),
    "SOP class": (0x0122, StoreOutcome.FAILED, "SOP class not supported"),
    "wrong dataset": (0xA901, StoreOutcome.FAILED, "0xA901"),
    "not understood": (0xC122, StoreOutcome.FAILED, "cannot understand"),
}


@pytest.mark.parametrize("status", [200, 202, 409])
@pytest.mark.parametrize(("reason", "expected", "text"), REASONS.values(), ids=REASONS)
def test_failure_reasons_of_single_instances_are_read(empty_orthanc, tmp_path, status, reason, expected, text):
    file = write(tmp_path / "in", "1.3.1")
    with fault_proxy(empty_orthanc.ports[0]) as proxy:
        pacs = open_archive(empty_orthanc, tmp_path / "home", dicomweb_url=through(proxy))
        search = http_answer(200, b"[]", "application/dicom+json")
        proxy.answers += [search, said(status, "1.3.1", reason), said(status, "1.3.1", reason)]
        if isinstance(expected, StoreOutcome):
            (result,) = pacs.store([file])
            assert result.outcome is expected
            assert text in result.reason
        else:
            with pytest.raises(expected, match=text):
                pacs.store([file])


def test_what_is_not_listed_afterwards_is_not_stored(empty_orthanc, tmp_path):
    with fault_proxy(empty_orthanc.ports[0]) as proxy:
        user, password = (empty_orthanc.settings[f"KAAPANA_DICOMWEB_{each}"] for each in ("USER", "PASSWORD"))
        archive = DicomwebArchive(ArchiveConnection(url=through(proxy), user=user, password=password))
        sender = StowSender(archive, batch_bytes=10**6, batch_instances=10)
        pacs = DicomwebPacs(archive, sender, tmp_path / "home", indexed_within_s=1.0)
        liar = said(200, "9.9", 0x0110, referenced=["1.3.1"])
        proxy.answers += [http_answer(200, b"[]", "application/dicom+json"), liar]
        with pytest.raises(StoreUnavailable, match="does not list"):
            pacs.store([write(tmp_path / "in", "1.3.1")])


@pytest.mark.parametrize("fault", [http_answer(503), http_answer(429), b"", b"HTTP/1.1 200 OK\r\nContent-Le"])
def test_passing_faults_are_waited_out(empty_orthanc, tmp_path, fault):
    files = [write(tmp_path / "in", f"1.3.{number}") for number in range(3)]
    with fault_proxy(empty_orthanc.ports[0]) as proxy:
        pacs = open_archive(empty_orthanc, tmp_path / "home", dicomweb_url=through(proxy))
        proxy.answers += [fault, fault]
        assert outcomes(pacs.store(files)) == [STORED] * 3
    with fault_proxy(empty_orthanc.ports[0]) as proxy:
        pacs = open_archive(empty_orthanc, tmp_path / "home", dicomweb_url=through(proxy))
        proxy.answers += [fault] * 3
        with pytest.raises(StoreUnavailable, match=r"1\.2"):
            pacs.retrieve("1.2", tmp_path / "out", writable_copy=True)
    assert not list(tmp_path.glob(".out*"))


def test_a_retrieval_that_is_cut_begins_again(empty_orthanc, tmp_path):
    files = [write(tmp_path / "in", f"1.3.{number}", pixels=bytes(60000)) for number in range(5)]
    with fault_proxy(empty_orthanc.ports[0]) as proxy:
        pacs = open_archive(empty_orthanc, tmp_path / "home", dicomweb_url=through(proxy))
        pacs.store(files)
        pacs = open_archive(empty_orthanc, tmp_path / "home", dicomweb_url=through(proxy))
        before = proxy.connections
        proxy.cuts += [100_000]
        pacs.retrieve("1.2", tmp_path / "out", writable_copy=True)
        assert proxy.connections > before + 1
    assert [path.read_bytes() for path in sorted((tmp_path / "out").iterdir())] == [path.read_bytes() for path in files]


def test_an_archive_that_is_killed_and_started_again_has_all_once(tmp_path, caplog):
    files = [write(tmp_path / "in", f"1.3.{number}", pixels=bytes(30000)) for number in range(40)]
    with service("orthanc", tmp_path / "server") as running:
        pacs = open_archive(running, tmp_path / "home", dicomweb_attempts=10, dicomweb_batch_instances=3)
        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(pacs.store, files)
            until(lambda: rest(running, "GET", "/statistics").json()["CountInstances"])
            running.kill()
            until(lambda: "trying again" in caplog.text)
            running.start()
            assert set(outcomes(done.result())) <= {STORED, THERE}
        assert rest(running, "GET", "/statistics").json()["CountInstances"] == len(files)
        pacs.retrieve("1.2", tmp_path / "out", writable_copy=False)
        assert len(list((tmp_path / "out").iterdir())) == len(files)
        assert outcomes(pacs.store(files)) == [THERE] * len(files)
        running.kill()
        short = open_archive(running, tmp_path / "home", dicomweb_attempts=2)
        for use in (lambda: short.store(files), lambda: short.series("1.2"), short.counts, short.series_uids):
            with pytest.raises(StoreUnavailable, match="does not answer"):
                use()


def test_a_full_archive_is_waited_for_and_nothing_is_set_aside(tmp_path):
    files = [
        write(tmp_path / "in", f"1.3.{number}", series=f"1.{number}", pixels=os.urandom(60_000)) for number in range(30)
    ]
    with service("orthanc", tmp_path / "server", full_at_mb=1) as running:
        pacs = open_archive(running, tmp_path / "home")
        stored = []
        with pytest.raises(StoreUnavailable):
            for file in files:
                stored += pacs.store([file])
        assert 10 < len(stored) < 20
        assert set(outcomes(stored)) == {STORED}
        waiting = files[len(stored)]
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                pacs.store([waiting])
        running.stop()
        running.service.full_at_mb = 0  # the administrator gave it room
        running.start()
        assert outcomes(pacs.store([waiting])) == [STORED]


def test_an_archive_that_hangs_is_left_after_the_timeout(tmp_path):
    with service("orthanc", tmp_path / "server") as running:
        pacs = open_archive(running, tmp_path / "home", dicomweb_attempts=2, dicomweb_timeout_s=0.5)
        running.pause()
        begin = time.monotonic()
        with pytest.raises(StoreUnavailable):
            pacs.store([write(tmp_path / "in", "1.3.1")])
        assert time.monotonic() - begin < 5
        running.resume()
        patient = open_archive(running, tmp_path / "home")
        assert outcomes(patient.store([write(tmp_path / "in", "1.3.1")]))[0] in (STORED, THERE)


def test_wrong_credentials_name_the_setting_and_not_the_password(empty_orthanc, tmp_path):
    pacs = open_archive(empty_orthanc, tmp_path / "home", dicomweb_password="not-this-one")
    with pytest.raises(ConfigurationError, match="KAAPANA_DICOMWEB_PASSWORD") as caught:
        pacs.counts()
    assert "not-this-one" not in repr(caught.value)
    assert "not-this-one" not in repr(load_settings(dicomweb_user="u", dicomweb_password="not-this-one"))


def test_series_are_retrieved_by_many_threads_at_once(pacs, tmp_path):
    for number in range(6):
        pacs.store([write(tmp_path / "in", f"1.3.{number}.{each}", series=f"1.2.{number}") for each in range(3)])
    start = threading.Barrier(6)

    def retrieve(number):
        start.wait()
        return pacs.retrieve(f"1.2.{number}", tmp_path / f"out{number}", writable_copy=True)

    with ThreadPoolExecutor(6) as pool:
        assert [len(each.instances) for each in pool.map(retrieve, range(6))] == [3] * 6


def exceptions_of(*modules):
    found = {kind for module in modules for _, kind in inspect.getmembers(module, inspect.isclass)}
    return sorted((kind for kind in found if issubclass(kind, Exception) and not issubclass(kind, Warning)), key=repr)


LIBRARIES = exceptions_of(requests.exceptions, urllib3.exceptions, dicomweb_client, dicomweb_client.web, retrying)


@pytest.mark.parametrize("kind", LIBRARIES, ids=lambda kind: f"{kind.__module__}.{kind.__qualname__}")
def test_every_error_of_the_libraries_is_translated(kind):
    assert issubclass(kind, LIBRARY_ERRORS)
    error, _ = translated(kind.__new__(kind), what="series 1.2", where="the archive")
    assert isinstance(error, KaapanaAssetsError)
    assert "series 1.2" in str(error) or "DICOMWEB" in str(error)


def test_an_archive_that_gives_its_first_page_again_and_again_is_said(empty_orthanc, tmp_path):
    listed = [
        {"0020000D": {"vr": "UI", "Value": ["1.1"]}, "0020000E": {"vr": "UI", "Value": [f"1.2.{number}"]}}
        for number in range(500)
    ]
    page = http_answer(200, json.dumps(listed).encode(), "application/dicom+json")
    with fault_proxy(empty_orthanc.ports[0]) as proxy:
        pacs = open_archive(empty_orthanc, tmp_path / "home", dicomweb_url=through(proxy))
        proxy.answers += [page, page]
        with pytest.raises(ConfigurationError, match="limit and offset"):
            pacs.series_uids()
