"""The rules of the spool, held by writers and readers that run at once."""

import hashlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from kaapana_assets.errors import InvalidIdentifier, NotFound, SpoolUnavailable
from kaapana_assets.ingest.spool import Spool, SpoolOutcome


@contextmanager
def python(script: str, *arguments: object) -> Iterator[subprocess.Popen]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def test_object_is_stored_byte_for_byte(spool):
    assert spool.add("1.2", "1.2.3", [b"ab", memoryview(b"cd")], origin="test") is SpoolOutcome.STORED
    (file,) = spool.files("1.2")
    assert file == spool.incoming / "1.2" / "1.2.3.dcm"
    assert file.read_bytes() == b"abcd"


def test_nothing_stays_in_the_folder_of_temporary_files(spool):
    for content in (b"a", b"a", b"b"):
        spool.add("1.2", "1.2.3", [content], origin="test")
    assert list((spool.incoming / ".tmp").iterdir()) == []


def test_same_object_again_replaces_nothing(spool):
    spool.add("1.2", "1.2.3", [b"abcd"], origin="test")
    before = spool.files("1.2")[0].stat()
    assert spool.add("1.2", "1.2.3", [b"abcd"], origin="test") is SpoolOutcome.ALREADY_THERE
    after = spool.files("1.2")[0].stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_other_content_of_the_same_instance_is_kept_apart_with_the_reason(spool):
    spool.add("1.2", "1.2.3", [b"first"], origin="one")
    assert spool.add("1.2", "1.2.3", [b"second"], origin="two") is SpoolOutcome.CONFLICT
    assert spool.add("1.2", "1.2.3", [b"second"], origin="two") is SpoolOutcome.CONFLICT
    assert spool.files("1.2")[0].read_bytes() == b"first"
    (kept,) = spool.quarantined()
    assert kept.path.read_bytes() == b"second"
    assert (kept.series_instance_uid, kept.origin) == ("1.2", "two")
    assert "1.2.3" in kept.reason


@pytest.mark.parametrize("uid", ["../x", "", "1/2", "1.2\0", " 1.2", "a", "." * 3, "1" * 65, "1..2"])
def test_uid_that_is_none_never_reaches_the_file_system(spool, uid):
    for series, sop in ((uid, "1.2"), ("1.2", uid)):
        with pytest.raises(InvalidIdentifier):
            spool.add(series, sop, [b"x"], origin="test")
    assert spool.series() == []


def test_series_is_not_ready_while_an_association_that_sent_to_it_is_open(spool):
    spool.add("1.2", "1.2.3", [b"x"], origin="test")
    with spool.mark_association() as marker:
        marker.hold("1.2")
        assert spool.ready(0) == []
        assert [each.open for each in spool.series()] == [True]
    assert spool.ready(0) == ["1.2"]


def test_series_is_not_ready_before_it_was_quiet(spool):
    spool.add("1.2", "1.2.3", [b"x"], origin="test")
    assert spool.ready(60) == []
    old = spool.incoming / "1.2"
    os.utime(old, (old.stat().st_mtime - 61,) * 2)
    assert spool.ready(60) == ["1.2"]


HOLD = """
import sys, pathlib
from kaapana_assets.ingest.spool import Spool
marker = Spool(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[1])).mark_association()
marker.hold("1.2")
print("held", flush=True)
sys.stdin.read()
"""


def test_mark_of_a_killed_receiver_holds_nothing_back(spool):
    spool.add("1.2", "1.2.3", [b"x"], origin="test")
    with python(HOLD, spool.incoming) as holder:
        assert holder.stdout.readline() == b"held\n"
        assert spool.ready(0) == []
        holder.kill()
        holder.wait()
        assert spool.ready(0) == ["1.2"]
    assert list((spool.incoming / ".associations").iterdir()) == []


def test_empty_series_folder_is_not_ready(spool):
    (spool.incoming / "1.2").mkdir()
    assert spool.ready(0) == []
    assert spool.series() == []


def test_removing_forgets_only_the_files_named(spool):
    for sop in ("1", "2", "3"):
        spool.add("1.2", sop, [b"x"], origin="test")
    spool.remove("1.2", spool.files("1.2")[:2])
    assert [file.stem for file in spool.files("1.2")] == ["3"]
    spool.remove("1.2", spool.files("1.2"))
    assert not (spool.incoming / "1.2").exists()


def test_object_is_stored_into_a_folder_that_was_removed_meanwhile(spool):
    spool.add("1.2", "1", [b"x"], origin="test")
    spool.remove("1.2", spool.files("1.2"))
    assert spool.add("1.2", "2", [b"y"], origin="test") is SpoolOutcome.STORED
    assert [file.stem for file in spool.files("1.2")] == ["2"]


WRITE = """
import sys, pathlib
from kaapana_assets.ingest.spool import SpoolOutcome, Spool
spool = Spool(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), min_free_bytes=0)
for number in range(int(sys.argv[3]), int(sys.argv[3]) + 150):
    assert spool.add("1.2", str(number), [b"x"], origin="test") is SpoolOutcome.STORED
"""


def test_nothing_is_lost_when_a_series_is_removed_while_it_arrives(spool, tmp_path):
    taken: set[str] = set()
    with (
        python(WRITE, spool.incoming, tmp_path / "quarantine", 1000) as one,
        python(WRITE, spool.incoming, tmp_path / "quarantine", 2000) as two,
    ):
        while one.poll() is None or two.poll() is None or spool.files("1.2"):
            files = spool.files("1.2")
            taken.update(file.stem for file in files)
            spool.remove("1.2", files)
        assert (one.returncode, two.returncode) == (0, 0)
    assert taken == {str(number) for first in (1000, 2000) for number in range(first, first + 150)}


RACE = """
import sys, pathlib
from kaapana_assets.ingest.spool import Spool
spool = Spool(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), min_free_bytes=0)
sys.stdin.readline()
for number in range(50):
    print(spool.add("1.2", str(number), [sys.argv[3].encode()], origin="test").name)
"""


def test_of_two_writers_of_one_instance_one_stores_and_one_conflicts(spool, tmp_path):
    with (
        python(RACE, spool.incoming, tmp_path / "quarantine", "one") as one,
        python(RACE, spool.incoming, tmp_path / "quarantine", "two") as two,
    ):
        for each in (one, two):
            each.stdin.write(b"go\n")
            each.stdin.flush()
        outcomes = [each.stdout.read().split() for each in (one, two)]
    assert len(outcomes[0]) == 50
    assert all(sorted(pair) == [b"CONFLICT", b"STORED"] for pair in zip(*outcomes, strict=True))
    kept = {(file.path.name.split("-")[0], file.path.read_bytes()) for file in spool.quarantined()}
    stored = {(file.stem, file.read_bytes()) for file in spool.files("1.2")}
    assert len(kept) == len(stored) == 50
    assert not kept & stored


def test_file_of_the_spool_goes_to_the_quarantine_with_its_reason(spool):
    spool.add("1.2", "1", [b"x"], origin="test")
    kept = spool.move_to_quarantine(spool.files("1.2")[0], "cut short")
    assert kept.read_bytes() == b"x"
    assert [each.reason for each in spool.quarantined()] == ["cut short"]
    assert spool.series() == []
    with pytest.raises(NotFound):
        spool.move_to_quarantine(spool.incoming / "1.2" / "1.dcm", "again")


def test_quarantined_copy_is_independent_of_the_file(spool, tmp_path):
    source = tmp_path / "name with spaces & more.dcm"
    source.write_bytes(b"broken")
    kept = spool.quarantine_copy(source, "no DICOM")
    source.write_bytes(b"changed")
    assert kept.read_bytes() == b"broken"
    (found,) = spool.quarantined()
    assert (found.series_instance_uid, found.origin) == ("unknown", "import")
    assert "spaces" not in kept.name


def test_too_little_free_space_refuses_objects(tmp_path):
    spool = Spool(tmp_path / "incoming", tmp_path / "quarantine", min_free_bytes=1 << 60)
    spool.prepare()
    with pytest.raises(SpoolUnavailable, match="KAAPANA_MIN_FREE_BYTES"):
        spool.add("1.2", "1", [b"x"], origin="test")


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip("needs root to mount a small file system")
    if subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=False).returncode != 0:
        pytest.skip("this machine does not allow a small file system to be mounted")
    yield folder
    # Lazily: a process that another test forked at this moment may still hold its open files.
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_full_disk_refuses_the_object_and_keeps_what_is_there(small_disk):
    spool = Spool(small_disk / "incoming", small_disk / "quarantine", min_free_bytes=0)
    spool.prepare()
    spool.add("1.2", "1", [b"x" * 500_000], origin="test")
    with pytest.raises(SpoolUnavailable):
        spool.add("1.2", "2", [b"y" * 900_000], origin="test")
    assert [file.stem for file in spool.files("1.2")] == ["1"]
    assert list((spool.incoming / ".tmp").iterdir()) == []
    assert spool.add("1.2", "3", [b"z" * 1000], origin="test") is SpoolOutcome.STORED


def test_copy_of_a_file_has_its_content(spool, tmp_path):
    source = tmp_path / "big"
    source.write_bytes(os.urandom(3_000_001))
    spool.add_file("1.2", "1", source, origin="test")
    assert hashlib.sha256(spool.files("1.2")[0].read_bytes()).digest() == hashlib.sha256(source.read_bytes()).digest()
    with pytest.raises(NotFound):
        spool.add_file("1.2", "2", tmp_path / "missing", origin="test")


COME_AND_GO = """
import sys
from pathlib import Path
from kaapana_assets.ingest.spool import Spool
spool = Spool(Path(sys.argv[1]), Path(sys.argv[2]), min_free_bytes=0)
for _ in range(300):
    spool.add("1.2", "1.2.3", [b"x"], origin="test")
    spool.remove("1.2", spool.files("1.2"))
print("ended", flush=True)
"""


def test_series_that_goes_while_the_spool_is_looked_at_is_not_there(spool, tmp_path):
    with python(COME_AND_GO, spool.incoming, tmp_path / "quarantine") as other:
        while other.poll() is None:
            assert {series.series_instance_uid for series in spool.series()} <= {"1.2"}
            assert set(spool.ready(0)) <= {"1.2"}
        assert other.stdout.read() == b"ended\n"


TAKER = """
import sys
from pathlib import Path
from kaapana_assets.ingest.spool import Spool
with Spool(Path(sys.argv[1]), Path(sys.argv[2])).ingest_lock():
    print("in", flush=True)
    sys.stdin.read()
"""


def test_one_at_a_time_takes_files_out_and_one_that_was_killed_hinders_nobody(spool, tmp_path):
    entered = threading.Event()

    def enter():
        with spool.ingest_lock():
            entered.set()

    assert not spool.is_ingest_locked()
    with python(TAKER, spool.incoming, tmp_path / "quarantine") as other:
        assert other.stdout.readline() == b"in\n"
        assert spool.is_ingest_locked()
        thread = threading.Thread(target=enter)
        thread.start()
        assert not entered.wait(0.2)
        other.kill()
        thread.join(10)
    assert entered.is_set()
    assert not spool.is_ingest_locked()
