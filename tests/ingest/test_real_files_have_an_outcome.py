"""Every real file that there is, the broken ones too: stored, or set aside with the reason; none is dropped."""

import hashlib
import importlib.util
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path

import pytest

from kaapana_assets.dicom.digests import content_digest
from kaapana_assets.errors import NotFound
from kaapana_assets.ingest.dicom_folder import files_in, inspect
from kaapana_assets.ingest.folder_import import ImportOutcome, import_files
from kaapana_assets.ingest.ingestor import Ingestor
from kaapana_assets.ingest.spool import Spool
from kaapana_assets.stores.pacs.folder import FolderPacs
from kaapana_assets.stores.query import parse
from kaapana_assets.stores.sqlite_index import SqliteIndex


def folder_of(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "data"


def digest_of_dataset(path: Path) -> str:
    """Of the bytes that a file has; import writes file meta information before those of a bare dataset."""
    found = inspect(path)
    if found.dataset_offset is None or found.identity is None:
        return content_digest(path)
    dataset = path.read_bytes()[found.dataset_offset :]
    return f"sha256:{hashlib.sha256(found.identity.transfer_syntax_uid.encode() + bytes(1) + dataset).hexdigest()}"


@pytest.mark.parametrize("package", ["pydicom", "data_store"])
def test_every_file_of_a_package_is_in_the_pacs_or_set_aside_with_the_reason(package: str, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "incoming", tmp_path / "quarantine", min_free_bytes=0)
    spool.prepare()
    index = SqliteIndex(tmp_path / "index.sqlite")
    pacs = FolderPacs(tmp_path / "archive")
    ingestor = Ingestor(spool=spool, pacs=pacs, index=index, scratch=tmp_path / "scratch")
    given = files_in(folder_of(package))

    outcomes = {each.path: each for each in import_files(spool, given)}
    assert set(outcomes) == set(given)
    assert all(each.reason for each in outcomes.values() if each.outcome is ImportOutcome.SKIPPED)
    for waiting in spool.series():
        try:
            ingestor.remove_from_spool(ingestor.ingest(waiting.series_instance_uid, now=datetime.now(timezone.utc)))
        except NotFound as exc:
            assert "could not be read" in str(exc)

    assert spool.series() == []
    counts = Counter(each.outcome for each in outcomes.values())
    assert counts[ImportOutcome.STORED] > 30
    aside = list(spool.quarantined())
    assert all(each.reason for each in aside)
    entered = sum(counts[outcome] for outcome in ImportOutcome) - counts[ImportOutcome.SKIPPED]
    stored = pacs.counts()
    assert stored.instances + len(aside) + counts[ImportOutcome.ALREADY_THERE] == entered
    assert sorted(index.series(parse("*"))) == sorted(pacs.series_uids())
    originals = {digest_of_dataset(path) for path, each in outcomes.items() if each.outcome is ImportOutcome.STORED}
    for uid in pacs.series_uids():
        assert {instance.content_digest for instance in pacs.series(uid).instances} <= originals
