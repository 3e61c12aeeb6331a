"""What every PACS promises, held by each implementation."""

import os
import stat
import subprocess
import sys

import pytest
from stores.instances import write

from kaapana_assets.dicom.digests import content_digest, series_digest
from kaapana_assets.errors import InvalidIdentifier, NotFound, StoreUnavailable
from kaapana_assets.settings import load_settings
from kaapana_assets.stores.factory import open_pacs
from kaapana_assets.stores.pacs.folder import FolderPacs
from kaapana_assets.stores.pacs.protocol import Pacs, StoreOutcome

KEEPING = [
    "folder",
    pytest.param("dicomweb", marks=pytest.mark.services),
    pytest.param("dicomweb with cache", marks=pytest.mark.services),
]


@pytest.fixture(params=[*KEEPING, pytest.param("dimse", marks=pytest.mark.services)])
def pacs(request, tmp_path) -> Pacs:
    return opened(request, tmp_path)


@pytest.fixture(params=KEEPING)
def keeping_pacs(request, tmp_path) -> Pacs:
    """One that keeps whole files; by C-STORE only the object goes over the network, without its file's header."""
    return opened(request, tmp_path)


def opened(request, tmp_path) -> Pacs:
    if request.param == "folder":
        return FolderPacs(tmp_path / "archive")
    settings = request.getfixturevalue("empty_orthanc").settings
    given = {name.removeprefix("KAAPANA_").lower(): value for name, value in settings.items()}
    cache_bytes = 10**9 if "cache" in request.param else 0
    changed = {"home": tmp_path / "home", "pacs": request.param.split()[0], "series_cache_bytes": cache_bytes}
    return open_pacs(load_settings(**(given | changed)))


def test_stored_series_lists_its_instances_with_sizes_and_digests(pacs, tmp_path):
    files = [write(tmp_path / "in", sop) for sop in ("1.3.2", "1.3.1")]
    assert [each.outcome for each in pacs.store(files)] == [StoreOutcome.STORED] * 2
    series = pacs.series("1.2")
    assert (series.study_instance_uid, series.series_instance_uid) == ("1.1", "1.2")
    assert [each.sop_instance_uid for each in series.instances] == ["1.3.1", "1.3.2"]
    digests = {"1.3.1": content_digest(files[1]), "1.3.2": content_digest(files[0])}
    assert {each.sop_instance_uid: each.content_digest for each in series.instances} == digests
    assert series.digest == series_digest(digests)
    pacs.retrieve("1.2", tmp_path / "out", writable_copy=True)
    assert series.size_bytes == sum(file.stat().st_size for file in (tmp_path / "out").iterdir())


def test_files_are_kept_as_they_are(keeping_pacs, tmp_path):
    files = [write(tmp_path / "in", sop) for sop in ("1.3.1", "1.3.2")]
    keeping_pacs.store(files)
    assert keeping_pacs.counts().size_bytes == sum(file.stat().st_size for file in files)
    keeping_pacs.retrieve("1.2", tmp_path / "out", writable_copy=True)
    assert [path.read_bytes() for path in sorted((tmp_path / "out").iterdir())] == [path.read_bytes() for path in files]


def test_outcomes_come_in_the_order_of_the_files(pacs, tmp_path):
    good, other = write(tmp_path / "in", "1.3.1"), write(tmp_path / "in", "1.3.1", pixels=b"\3\4")
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(b"nothing")
    outcomes = pacs.store([broken, good, good, other])
    assert [each.path for each in outcomes] == [broken, good, good, other]
    expected = [StoreOutcome.FAILED, StoreOutcome.STORED, StoreOutcome.ALREADY_THERE, StoreOutcome.CONFLICT]
    assert [each.outcome for each in outcomes] == expected
    assert outcomes[0].reason
    assert outcomes[3].reason


def test_other_content_never_replaces_what_is_stored(pacs, tmp_path):
    pacs.store([write(tmp_path / "in", "1.3.1")])
    before = pacs.series("1.2")
    (outcome,) = pacs.store([write(tmp_path / "in", "1.3.1", pixels=b"\3\4")])
    assert outcome.outcome is StoreOutcome.CONFLICT
    assert pacs.series("1.2") == before


def test_same_instance_uid_in_another_series_is_stored(pacs, tmp_path):
    pacs.store([write(tmp_path / "in", "1.3.1")])
    (outcome,) = pacs.store([write(tmp_path / "in", "1.3.1", series="1.9", pixels=b"\5\6")])
    assert outcome.outcome is StoreOutcome.STORED
    assert list(pacs.series_uids()) == ["1.2", "1.9"]


def test_series_cannot_belong_to_two_studies(pacs, tmp_path):
    pacs.store([write(tmp_path / "in", "1.3.1")])
    (outcome,) = pacs.store([write(tmp_path / "in", "1.3.2", study="1.7")])
    assert outcome.outcome is StoreOutcome.FAILED
    assert "1.7" in outcome.reason


def test_late_instance_changes_the_digest_of_the_series(pacs, tmp_path):
    pacs.store([write(tmp_path / "in", "1.3.1")])
    before = pacs.series("1.2").digest
    pacs.store([write(tmp_path / "in", "1.3.2")])
    assert pacs.series("1.2").digest != before


def test_unknown_series_is_not_found(pacs, tmp_path):
    with pytest.raises(NotFound, match=r"1\.2"):
        pacs.series("1.2")
    with pytest.raises(NotFound):
        pacs.retrieve("1.2", tmp_path / "out", writable_copy=True)
    with pytest.raises(InvalidIdentifier):
        pacs.series("../x")
    assert not (tmp_path / "out").exists()


def test_counts_say_how_much_is_stored(pacs, tmp_path):
    assert (pacs.counts().series, pacs.counts().instances) == (0, 0)
    files = [write(tmp_path / "in", "1.3.1"), write(tmp_path / "in", "1.3.2"), write(tmp_path / "in", "1", series="2")]
    pacs.store(files)
    counts = pacs.counts()
    assert (counts.series, counts.instances) == (2, 3)


@pytest.mark.parametrize("writable_copy", [True, False], ids=["writable", "shared"])
def test_retrieved_folder_holds_the_series_and_nothing_else(pacs, tmp_path, writable_copy):
    files = {sop: write(tmp_path / "in", sop) for sop in ("1.3.1", "1.3.2")}
    pacs.store(list(files.values()))
    into = tmp_path / "run" / "initial-input"
    into.mkdir(parents=True)
    (into / "left from before").touch()
    assert pacs.retrieve("1.2", into, writable_copy=writable_copy) == pacs.series("1.2")
    assert {path.name: content_digest(path) for path in into.iterdir()} == {
        f"{sop}.dcm": content_digest(path) for sop, path in files.items()
    }
    assert [path.name for path in into.parent.iterdir()] == ["initial-input"]


def test_writable_copy_does_not_change_what_is_stored(pacs, tmp_path):
    source = write(tmp_path / "in", "1.3.1")
    pacs.store([source])
    pacs.retrieve("1.2", tmp_path / "one", writable_copy=True)
    (tmp_path / "one" / "1.3.1.dcm").write_bytes(b"changed by an operator")
    pacs.retrieve("1.2", tmp_path / "two", writable_copy=True)
    assert content_digest(tmp_path / "two" / "1.3.1.dcm") == content_digest(source)


def test_change_of_the_file_that_was_stored_does_not_reach_the_pacs(pacs, tmp_path):
    source = write(tmp_path / "in", "1.3.1")
    content = content_digest(source)
    pacs.store([source])
    with source.open("r+b") as file:
        file.write(b"changed")
    pacs.retrieve("1.2", tmp_path / "out", writable_copy=False)
    assert content_digest(tmp_path / "out" / "1.3.1.dcm") == content


def test_folder_shares_read_only_files_by_hard_link(tmp_path):
    source = write(tmp_path / "in", "1.3.1")
    source.chmod(0o444)
    FolderPacs(tmp_path / "archive").store([source])
    stored = tmp_path / "archive" / "1.1" / "1.2" / "1.3.1.dcm"
    assert stored.stat().st_ino == source.stat().st_ino
    assert stat.S_IMODE(stored.stat().st_mode) == 0o444


@pytest.mark.parametrize(
    ("mode", "uid"),
    [pytest.param(0o400, None, id="not for all to read"), pytest.param(0o444, 1000, id="of another user")],
)
def test_folder_gives_copies_of_files_that_operators_could_not_read_or_could_open_again(tmp_path, mode, uid):
    if uid is not None and os.geteuid() != 0:
        pytest.skip("only root gives files away")
    pacs = FolderPacs(tmp_path / "archive")
    pacs.store([write(tmp_path / "in", "1.3.1")])
    (stored,) = (tmp_path / "archive").glob("*/*/*.dcm")
    stored.chmod(mode)
    if uid is not None:
        os.chown(stored, uid, uid)
    pacs.retrieve("1.2", tmp_path / "out", writable_copy=False)
    (given,) = (tmp_path / "out").iterdir()
    assert not given.samefile(stored)
    assert (stat.S_IMODE(given.stat().st_mode), given.stat().st_uid) == (0o444, os.geteuid())


def test_folder_makes_a_lost_catalog_again(tmp_path):
    pacs = FolderPacs(tmp_path / "archive")
    pacs.store([write(tmp_path / "in", "1.3.1"), write(tmp_path / "in", "1.3.2", series="1.9")])
    before = [pacs.series(uid) for uid in pacs.series_uids()]
    pacs.close()
    for path in (tmp_path / "archive").glob("catalog.sqlite*"):
        path.unlink()
    again = FolderPacs(tmp_path / "archive")
    assert [again.series(uid) for uid in again.series_uids()] == before


def test_folder_with_a_damaged_catalog_says_what_to_do(tmp_path):
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "catalog.sqlite").write_bytes(b"no database at all, but long enough" * 200)
    with pytest.raises(StoreUnavailable, match="delete it"):
        FolderPacs(tmp_path / "archive").counts()


STORE = """
import sys, pathlib
from kaapana_assets.stores.pacs.folder import FolderPacs
print("begin", flush=True)
FolderPacs(pathlib.Path(sys.argv[1])).store(sorted(pathlib.Path(sys.argv[2]).iterdir()))
"""


@pytest.mark.parametrize("delay_ms", [0, 5, 15, 40, 80], ids=lambda ms: f"{ms}ms")
def test_store_that_was_killed_is_finished_by_a_repeat(tmp_path, delay_ms):
    files = [write(tmp_path / "in", f"1.3.{number}", pixels=os.urandom(2000)) for number in range(60)]
    command = [sys.executable, "-c", STORE, str(tmp_path / "archive"), str(tmp_path / "in")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        try:
            process.wait(delay_ms / 1000)
        except subprocess.TimeoutExpired:
            process.kill()
    pacs = FolderPacs(tmp_path / "archive")
    assert {each.outcome for each in pacs.store(files)} <= {StoreOutcome.STORED, StoreOutcome.ALREADY_THERE}
    assert {each.sop_instance_uid: each.content_digest for each in pacs.series("1.2").instances} == {
        f"1.3.{number}": content_digest(path) for number, path in enumerate(files)
    }
    assert list((tmp_path / "archive" / ".tmp").iterdir()) == []
