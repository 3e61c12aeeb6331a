"""A series goes PACS, index, out of the spool; killed anywhere, doing it again finishes it."""

import json
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from kaapana_assets.dicom.consistency import FindingKind
from kaapana_assets.dicom.digests import content_digest
from kaapana_assets.errors import NotFound, StoreUnavailable
from kaapana_assets.ingest.ingestor import IngestedSeries, Ingestor
from kaapana_assets.ingest.spool import Spool
from kaapana_assets.stores.pacs.folder import FolderPacs
from kaapana_assets.stores.query import parse
from kaapana_assets.stores.sqlite_index import SqliteIndex

SERIES = "1.2.3.4"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


class Killed(BaseException):
    """The end of the process, which no part of it can catch."""


class Mortal:
    """A store, all of whose calls are its own, that is killed before or after one of them."""

    def __init__(self, store: object, method: str, *, after: bool) -> None:
        self._store, self._method, self._after = store, method, after

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._store, name)
        if name != self._method:
            return call

        def killed(*args: object, **kwargs: object) -> None:
            if self._after:
                call(*args, **kwargs)
            raise Killed

        return killed


@pytest.fixture
def ingestor(tmp_path: Path, spool: Spool) -> Ingestor:
    index = SqliteIndex(tmp_path / "index.sqlite")
    return Ingestor(spool=spool, pacs=FolderPacs(tmp_path / "archive"), index=index, scratch=tmp_path / "scratch")


@pytest.fixture
def send(tmp_path: Path, spool: Spool, instance: Callable[..., Dataset]) -> Callable[..., None]:
    def send(*sops: str, series: str = SERIES, **attributes: object) -> None:
        for sop in sops:
            ds = instance(series=series, sop=f"{series}.{sop}")
            ds.PixelData = bytes(64)
            for keyword, value in attributes.items():
                setattr(ds, keyword, value)
            path = tmp_path / "sent.dcm"
            ds.save_as(path, enforce_file_format=True)
            spool.add_file(series, f"{series}.{sop}", path, origin="test")

    return send


def ingest(ingestor: Ingestor) -> IngestedSeries:
    """As the ingest assets do it, which record the series between the two."""
    ingested = ingestor.ingest(SERIES, now=NOW)
    ingestor.remove_from_spool(ingested)
    return ingested


def waiting(spool: Spool) -> list[str]:
    return sorted(path.name for path in spool.incoming.glob("[0-9]*/*"))


def stored(ingestor: Ingestor, series: str = SERIES) -> list[str]:
    try:
        return [each.sop_instance_uid for each in ingestor.pacs.series(series).instances]
    except NotFound:
        return []


def indexed(ingestor: Ingestor) -> list[str]:
    return list(ingestor.index.series(parse("Modality:CT")))


def test_series_is_in_the_pacs_and_the_index_and_no_more_in_the_spool(ingestor: Ingestor, send: Any) -> None:
    send("1", "2")
    ingested = ingest(ingestor)
    assert stored(ingestor) == [f"{SERIES}.1", f"{SERIES}.2"]
    assert indexed(ingestor) == [SERIES]
    assert waiting(ingestor.spool) == []
    assert (ingested.new_instances, ingested.quarantined) == (2, 0)
    assert ingested.document["Modality"] == "CT"


STEPS = {
    f"{when}-{method}": (store, method, when == "after")
    for store, method in [("pacs", "store"), ("index", "put"), ("spool", "remove")]
    for when in ("before", "after")
}


@pytest.mark.parametrize("step", STEPS)
def test_killed_between_two_steps_loses_nothing_and_a_repeat_finishes(ingestor: Ingestor, send: Any, step: str) -> None:
    store, method, after = STEPS[step]
    send("1", "2")
    parts = {"spool": ingestor.spool, "pacs": ingestor.pacs, "index": ingestor.index}
    parts[store] = Mortal(parts[store], method, after=after)
    with pytest.raises(Killed):
        ingest(Ingestor(**parts, scratch=ingestor.scratch))
    everywhere = set(stored(ingestor)) | {name.removesuffix(".dcm") for name in waiting(ingestor.spool)}
    assert everywhere == {f"{SERIES}.1", f"{SERIES}.2"}
    in_spool = bool(waiting(ingestor.spool))
    assert in_spool or (indexed(ingestor) == [SERIES] and len(stored(ingestor)) == 2)
    for _ in range(2):
        ingest(ingestor)
        assert len(stored(ingestor)) == 2
        assert indexed(ingestor) == [SERIES]
        assert waiting(ingestor.spool) == []


def test_series_waits_until_its_arrival_is_recorded(ingestor: Ingestor, send: Any) -> None:
    send("1")
    ingested = ingestor.ingest(SERIES, now=NOW)
    assert waiting(ingestor.spool) == [f"{SERIES}.1.dcm"]
    send("2")
    ingestor.remove_from_spool(ingested)
    assert waiting(ingestor.spool) == [f"{SERIES}.2.dcm"]


def test_index_that_is_away_keeps_the_series_in_the_spool(ingestor: Ingestor, send: Any) -> None:
    send("1")

    class Away(Mortal):
        def put(self, documents: Sequence[object]) -> None:
            raise StoreUnavailable("the index does not answer")

    away = Ingestor(
        spool=ingestor.spool,
        pacs=ingestor.pacs,
        index=Away(ingestor.index, "", after=False),  # type: ignore[arg-type]
        scratch=ingestor.scratch,
    )
    with pytest.raises(StoreUnavailable):
        away.ingest(SERIES, now=NOW)
    assert waiting(ingestor.spool) == [f"{SERIES}.1.dcm"]


def test_unreadable_files_are_set_aside_with_the_reason_and_the_others_go_on(
    ingestor: Ingestor, send: Any, tmp_path: Path
) -> None:
    send("1")
    for name, content in (("8", b""), ("9", b"no DICOM at all")):
        (tmp_path / "odd").write_bytes(content)
        ingestor.spool.add_file(SERIES, f"{SERIES}.{name}", tmp_path / "odd", origin="test")
    ingested = ingest(ingestor)
    assert (ingested.new_instances, ingested.quarantined) == (1, 2)
    assert waiting(ingestor.spool) == []
    kept = list(ingestor.spool.quarantined())
    assert len(kept) == 2
    assert all(each.reason and each.series_instance_uid == SERIES for each in kept)


def test_file_of_another_series_is_set_aside(ingestor: Ingestor, send: Any, instance: Any, tmp_path: Path) -> None:
    send("1")
    instance(series="9.9", sop="9.9.1").save_as(tmp_path / "x.dcm", enforce_file_format=True)
    ingestor.spool.add_file(SERIES, "9.9.1", tmp_path / "x.dcm", origin="test")
    assert ingest(ingestor).quarantined == 1
    assert [each.reason for each in ingestor.spool.quarantined()] == [f"it belongs to series 9.9, not {SERIES}"]


def test_other_content_under_the_same_uid_is_set_aside_and_the_stored_one_stays(ingestor: Ingestor, send: Any) -> None:
    send("1")
    before = ingest(ingestor).stored.digest
    send("1", PatientID="P2")
    ingested = ingest(ingestor)
    assert (ingested.stored.digest, ingested.new_instances, ingested.quarantined) == (before, 0, 1)
    assert "other content is stored" in next(ingestor.spool.quarantined()).reason


@pytest.mark.parametrize("when", ["waiting", "stored"])
def test_same_object_in_another_transfer_syntax_is_no_other_content(
    ingestor: Ingestor, instance: Callable[..., Dataset], tmp_path: Path, when: str
) -> None:
    ds = instance(series=SERIES, sop=f"{SERIES}.1")
    path = tmp_path / "sent.dcm"
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        ds.file_meta.TransferSyntaxUID = syntax
        ds.save_as(path, enforce_file_format=True)
        ingestor.spool.add_file(SERIES, f"{SERIES}.1", path, origin="test")
        if when == "stored":
            ingested = ingest(ingestor)
    ingested = ingest(ingestor)
    assert list(ingestor.spool.quarantined()) == []
    assert ingested.document["TransferSyntaxUID"] == ExplicitVRLittleEndian
    assert len(ingested.stored.instances) == 1
    ingestor.pacs.retrieve(SERIES, tmp_path / "out", writable_copy=True)
    (kept,) = (tmp_path / "out").iterdir()
    assert kept.stat().st_size == ingested.stored.size_bytes
    assert content_digest(kept) == ingested.stored.instances[0].content_digest


def test_document_is_of_what_the_pacs_holds_and_not_of_what_it_refused(ingestor: Ingestor, send: Any) -> None:
    send("1")
    ingest(ingestor)
    send("1", PatientID="P2")
    ingested = ingest(ingestor)
    assert ingested.document["PatientID"] == "P1"
    assert ingestor.index.get(SERIES)["PatientID"] == "P1"


def test_late_slice_gives_the_series_another_digest_and_a_document_of_all(ingestor: Ingestor, send: Any) -> None:
    send("1", "2")
    first = ingest(ingestor)
    send("3", InstanceNumber=3)
    second = ingest(ingestor)
    assert second.stored.digest != first.stored.digest
    assert (second.new_instances, len(second.stored.instances)) == (1, 3)
    assert not ingestor.scratch.exists() or not list(ingestor.scratch.iterdir())


def test_same_slices_again_change_nothing(ingestor: Ingestor, send: Any) -> None:
    send("1", "2")
    first = ingest(ingestor)
    send("1", "2")
    second = ingest(ingestor)
    assert (second.stored.digest, second.new_instances, second.quarantined) == (first.stored.digest, 0, 0)
    assert waiting(ingestor.spool) == []


def test_series_of_which_nothing_can_be_read_is_not_found_and_says_where_it_is(
    ingestor: Ingestor, tmp_path: Path
) -> None:
    (tmp_path / "odd").write_bytes(b"nothing")
    ingestor.spool.add_file(SERIES, f"{SERIES}.1", tmp_path / "odd", origin="test")
    with pytest.raises(NotFound, match=r"its 1 files could not be read.*status"):
        ingest(ingestor)
    assert len(list(ingestor.spool.quarantined())) == 1


def test_series_that_is_known_nowhere_is_not_found(ingestor: Ingestor) -> None:
    with pytest.raises(NotFound, match=SERIES):
        ingest(ingestor)


def test_findings_of_the_series_come_with_it(ingestor: Ingestor, send: Any) -> None:
    for number, position in enumerate((0, 1, 2, 5), start=1):
        send(
            str(number),
            ImagePositionPatient=[0, 0, position],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            PixelSpacing=[1, 1],
        )
    ingested = ingest(ingestor)
    assert [finding.kind for finding in ingested.findings]
    assert all(isinstance(finding.kind, FindingKind) for finding in ingested.findings)


def test_number_that_is_none_keeps_no_series_out(
    ingestor: Ingestor, instance: Callable[..., Dataset], tmp_path: Path
) -> None:
    ds = instance(series=SERIES, sop=f"{SERIES}.1")
    ds.InstanceNumber = 123456
    path = tmp_path / "odd.dcm"
    ds.save_as(path, enforce_file_format=True)
    path.write_bytes(path.read_bytes().replace(b"123456", b"1e400 "))
    ingestor.spool.add_file(SERIES, f"{SERIES}.1", path, origin="test")
    assert ingest(ingestor).document["InstanceNumber_text"] == "1e400"


def test_reasons_beside_quarantined_files_are_json(ingestor: Ingestor, tmp_path: Path) -> None:
    (tmp_path / "odd").write_bytes(b"nothing")
    ingestor.spool.add_file(SERIES, f"{SERIES}.1", tmp_path / "odd", origin="test")
    with pytest.raises(NotFound):
        ingest(ingestor)
    (kept,) = ingestor.spool.quarantined()
    note = json.loads(kept.path.with_name(f"{kept.path.name}.json").read_text())
    assert note["reason"] == kept.reason
