"""An entry of the shelf is always whole, the old one or the new one, whatever happens to who writes it."""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kaapana_assets.errors import InvalidIdentifier, NotFound
from kaapana_assets.stores.files.shelf import Manifest, Origin, Shelf

ORIGIN = Origin(workflow="w", operator="op", run="w-1", dagster_run_id="r", created="2026-01-01T00:00:00+00:00")


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "assets")


@pytest.fixture
def output(tmp_path: Path) -> Callable[..., Path]:
    def make(name: str, **files: str) -> Path:
        folder = tmp_path / "made" / name
        folder.mkdir(parents=True)
        for path, content in files.items():
            target = folder / path.replace("__", "/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(content)
        return folder

    return make


def fetched(shelf: Shelf, partition: str, into: Path) -> tuple[dict[str, str], Manifest]:
    manifest = shelf.fetch("w", "op", partition, into)
    return {p.relative_to(into).as_posix(): p.read_text() for p in into.rglob("*") if p.is_file()}, manifest


def test_published_output_is_fetched_as_it_was(shelf: Shelf, output: Callable[..., Path], tmp_path: Path) -> None:
    manifests, refused = shelf.publish(ORIGIN, {"1.2": (output("a", x="one", deep__er__y="two"), "f1")})
    assert refused == {}
    files, manifest = fetched(shelf, "1.2", tmp_path / "into")
    assert files == {"x": "one", "deep/er/y": "two"}
    assert manifest == manifests["1.2"] == shelf.manifest("w", "op", "1.2")
    assert (manifest.fingerprint, manifest.run, manifest.size_bytes) == ("f1", "w-1", 6)


def test_published_again_replaces_all_of_the_former(shelf: Shelf, output: Callable[..., Path], tmp_path: Path) -> None:
    shelf.publish(ORIGIN, {"1.2": (output("a", x="one", only_before="x"), "f1")})
    shelf.publish(ORIGIN, {"1.2": (output("b", x="other"), "f2")})
    files, manifest = fetched(shelf, "1.2", tmp_path / "into")
    assert (files, manifest.fingerprint) == ({"x": "other"}, "f2")
    assert list((shelf.folder / ".staging").iterdir()) == []


def test_nothing_of_the_shelf_is_shared_with_who_gave_or_got_it(
    shelf: Shelf, output: Callable[..., Path], tmp_path: Path
) -> None:
    source = output("a", x="one")
    shelf.publish(ORIGIN, {"1.2": (source, "f1")})
    shelf.fetch("w", "op", "1.2", tmp_path / "into")
    for path in (source / "x", tmp_path / "into" / "x"):
        path.chmod(0o666)
        path.write_text("vandalized")
    assert fetched(shelf, "1.2", tmp_path / "again")[0] == {"x": "one"}


DAMAGES: dict[str, Callable[[Path], object]] = {
    "other-content-of-the-same-size": lambda entry: (entry / "x").write_text("eno"),
    "cut": lambda entry: (entry / "x").write_text("o"),
    "file-gone": lambda entry: (entry / "x").unlink(),
    "manifest-gone": lambda entry: (entry / ".manifest.json").unlink(),
    "manifest-cut": lambda entry: (entry / ".manifest.json").write_text("{"),
    "manifest-of-another-kind": lambda entry: (entry / ".manifest.json").write_text('{"files": []}'),
    "entry-gone": shutil.rmtree,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_entry_is_found_when_it_is_fetched_and_mended_by_the_next(
    shelf: Shelf, output: Callable[..., Path], tmp_path: Path, damage: str
) -> None:
    shelf.publish(ORIGIN, {"1.2": (output("a", x="one"), "f1")})
    DAMAGES[damage](shelf.entry("w", "op", "1.2"))
    with pytest.raises(NotFound, match="run"):
        shelf.fetch("w", "op", "1.2", tmp_path / "into")
    assert not (tmp_path / "into").exists()
    shelf.publish(ORIGIN, {"1.2": (output("b", x="one"), "f1")})
    assert fetched(shelf, "1.2", tmp_path / "into")[0] == {"x": "one"}


def test_output_with_a_link_is_refused_and_the_others_are_published(shelf: Shelf, output: Callable[..., Path]) -> None:
    bad = output("bad", x="one")
    (bad / "link").symlink_to("/etc/hostname")
    manifests, refused = shelf.publish(ORIGIN, {"1.1": (bad, "f"), "1.2": (output("good", x="one"), "f")})
    assert set(manifests) == {"1.2"}
    assert "link" in refused["1.1"]
    assert shelf.manifest("w", "op", "1.1") is None


def test_sparse_file_takes_no_more_room_than_before(shelf: Shelf, output: Callable[..., Path], tmp_path: Path) -> None:
    source = output("sparse")
    with (source / "hole").open("wb") as file:
        file.seek(200 << 20)
        file.write(b"end")
        file.truncate(300 << 20)
    shelf.publish(ORIGIN, {"1.2.3": (source, "f1")})
    shelf.fetch("w", "op", "1.2.3", tmp_path / "fetched")
    for copy in (shelf.entry("w", "op", "1.2.3"), tmp_path / "fetched"):
        status = (copy / "hole").stat()
        assert (status.st_size, status.st_blocks * 512 < 10 << 20) == (300 << 20, True)
        with (copy / "hole").open("rb") as file:
            file.seek(200 << 20)
            assert file.read(4) == b"end\0"


def test_file_with_the_name_of_the_manifest_is_refused(shelf: Shelf, output: Callable[..., Path]) -> None:
    bad = output("bad", x="one")
    (bad / ".manifest.json").write_text("{}")
    assert set(shelf.publish(ORIGIN, {"1.1": (bad, "f")})[1]) == {"1.1"}


@pytest.mark.parametrize("name", ["../x", "/etc", "", "a/b", ".hidden"])
def test_names_that_lead_elsewhere_are_refused(shelf: Shelf, name: str) -> None:
    with pytest.raises(InvalidIdentifier):
        shelf.entry("w", "op", name)


def test_threads_that_publish_one_entry_end_with_one_of_them_while_readers_see_only_whole_ones(
    shelf: Shelf, output: Callable[..., Path], tmp_path: Path
) -> None:
    sources = [output(f"s{n}", **{f"file{i}": f"{n}" for i in range(5)}) for n in range(4)]
    shelf.publish(ORIGIN, {"1.2": (sources[0], "0")})
    ended = threading.Event()
    problems: list[str] = []

    def publish(number: int) -> None:
        for _ in range(10):
            shelf.publish(ORIGIN, {"1.2": (sources[number], str(number))})

    def read() -> None:
        at = 0
        while not ended.is_set():
            at += 1
            files, manifest = fetched(shelf, "1.2", tmp_path / "read" / str(at))
            if set(files.values()) != {manifest.fingerprint}:
                problems.append(f"{files} of {manifest.fingerprint}")

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=publish, args=(number,)) for number in range(4)]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    ended.set()
    reader.join()
    assert problems == []
    files, manifest = fetched(shelf, "1.2", tmp_path / "last")
    assert set(files.values()) == {manifest.fingerprint}


PUBLISHER = """
import sys
from pathlib import Path
from kaapana_assets.stores.files.shelf import Origin, Shelf
shelf, made = Shelf(Path(sys.argv[1])), Path(sys.argv[2])
origin = Origin(workflow="w", operator="op", run="w-1", dagster_run_id="r", created="now")
number, rounds = int(sys.argv[3]), int(sys.argv[4])
for _ in range(rounds):
    number += 1
    for path in made.iterdir():
        path.write_text(str(number) * 1000)
    shelf.publish(origin, {uid: (made, str(number)) for uid in ("1.1", "1.2")})
    print(number, flush=True)
"""


def test_publisher_killed_at_any_moment_leaves_whole_entries_the_old_or_the_new(
    shelf: Shelf, output: Callable[..., Path], tmp_path: Path
) -> None:
    made = output("made", **{f"file{i}": "0" for i in range(8)})
    shelf.publish(ORIGIN, dict.fromkeys(("1.1", "1.2"), (made, "0")))
    number, chance = 0, random.Random(1)
    for attempt in range(6):
        command = [sys.executable, "-c", PUBLISHER, str(shelf.folder), str(made), str(number), "1000000"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        number = int(process.stdout.readline())
        time.sleep(chance.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        number = max([number, *(int(line) for line in process.communicate()[0].split() if line.isdigit())])
        for uid in ("1.1", "1.2"):
            files, manifest = fetched(shelf, uid, tmp_path / f"{attempt}-{uid}")
            assert set(files.values()) == {manifest.fingerprint * 1000} or manifest.fingerprint == "0"
            assert int(manifest.fingerprint) in (number, number + 1)
        number += 1
    left = list((shelf.folder / ".staging").iterdir())
    assert shelf.abandoned(older_than_days=1) == []
    for path in left:
        os.utime(path, (1, 1))
    assert shelf.abandoned(older_than_days=1) == sorted(left)


def test_processes_that_publish_one_entry_end_with_one_of_them(
    shelf: Shelf, output: Callable[..., Path], tmp_path: Path
) -> None:
    sources = [output(f"s{n}", a=str(n), b=str(n)) for n in range(2)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PUBLISHER, str(shelf.folder), str(source), str(1000 * n), "20"],
            stdout=subprocess.DEVNULL,
        )
        for n, source in enumerate(sources)
    ]
    assert [process.wait(60) for process in processes] == [0, 0]
    for uid in ("1.1", "1.2"):
        files, manifest = fetched(shelf, uid, tmp_path / uid)
        assert manifest.fingerprint in ("20", "1020")
        assert files == dict.fromkeys(("a", "b"), manifest.fingerprint * 1000)
