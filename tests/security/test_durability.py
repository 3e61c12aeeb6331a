"""Durable records are synced, file and folder, before whoever wrote them goes on: what a power cut leaves.

A child process writes each by its public door and notes, in order, what it made, renamed and synced.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]

CHILD = """
import json, os, sys
from datetime import datetime, timezone
from pathlib import Path

events = []
synced = os.fsync

def fsync(fd):
    synced(fd)
    events.append(["sync", os.readlink(f"/proc/self/fd/{fd}")])

def whole(path, folder):
    above = os.readlink(f"/proc/self/fd/{folder}") if folder != -1 else os.getcwd()
    return os.path.normpath(os.path.join(above, os.fsdecode(path)))

def heard(name, arguments):
    if name in ("os.rename", "os.link"):
        source, target, source_folder, target_folder = arguments
        events.append(["place", whole(source, source_folder), whole(target, target_folder)])
    elif name == "os.mkdir":
        events.append(["make", whole(arguments[0], arguments[2])])

os.fsync = fsync
sys.addaudithook(heard)

from kaapana_assets import home_record
from kaapana_assets.cohorts.cohort import Cohort, list_digest, save
from kaapana_assets.image_builds.record import BuiltImage, BuiltImages
from kaapana_assets.home import make_home
from kaapana_assets.stores.files.run_directory import RunDirectories
from kaapana_assets.stores.files.shelf import Origin, Shelf
from kaapana_assets.supervision.instance import write_instance

home = Path(sys.argv[1])
make_home(home)
home_record.platform_id(home)
home_record.settle(home)
BuiltImages(home).add(BuiltImage(reference="a/b:1", name="b", image_id="sha256:1", content_digest="sha256:2"))
save(home / "cohorts", Cohort("all", "*", "2026-01-01T00:00:00+00:00", ("1.2",), list_digest(("1.2",))))
now = datetime(2026, 1, 1, tzinfo=timezone.utc)
directory = RunDirectories(home / "workflows" / "data").create("flow", "run-1", now)
directory.write_conf({"a": 1})
directory.write_result("copy", {"a": 1})
made = directory.path / "made"
made.mkdir()
(made / "file").write_text("x")
origin = Origin("flow", "copy", directory.name, "run-1", "2026-01-01T00:00:00+00:00")
for number in (1, 2):
    Shelf(home / "assets").publish(origin, {"1.2": (made, f"sha256:{number}")})
write_instance(home / "dagster", storage={}, code_socket=home / "socket", launching={})
print(json.dumps(events))
"""

RUN = "workflows/data/flow-260101000000000000"
RECORD = "workflows/data/.runs/.records/flow-260101000000000000"
FILES = [
    ".kaapana-home",
    "home.json",
    "platform-id",
    "images.json",
    "cohorts/all.json",
    f"{RECORD}/conf.json",
    f"{RECORD}/results/copy.json",
    "workflows/data/.runs/run-1",
    "dagster/dagster.yaml",
]
FOLDERS = ["", "cohorts", RUN, RECORD, f"{RECORD}/results", "workflows/data/.runs", "assets/flow/copy"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("durability").resolve() / "deep" / "home"


@pytest.fixture(scope="module")
def events(home: Path) -> list[list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(home)],
        env=os.environ | {"PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found: list[list[str]] = json.loads(done.stdout)
    return found


def places(events: list[list[str]], what: str, path: str) -> list[int]:
    """The places in the list of the events of that kind that ended at the path."""
    return [number for number, event in enumerate(events) if event[0] == what and event[-1] == path]


@pytest.mark.parametrize("name", FILES)
def test_a_record_is_synced_before_it_is_put_in_place_and_its_folder_after_that(events, home, name):
    target = str(home / name)
    placed = places(events, "place", target)[-1]
    staged = events[placed][1]
    written = [event for event in events[:placed] if event[0] == "sync"]
    # A record that was put together aside, as cohorts are, is placed twice.
    sources = {staged} | {event[1] for event in events[:placed] if event[0] == "place" and event[-1] == staged}
    assert any(event[1] in sources for event in written), f"{staged} was not synced"
    assert ["sync", str(home / name).rpartition("/")[0]] in events[placed:]


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_of_records_is_synced_in_the_one_above_it(events, home, name):
    folder = home / name
    while folder != home.parent.parent:
        above = str(folder.parent)
        assert ["sync", above] in events[places(events, "make", str(folder))[0] :], folder
        folder = folder.parent


def test_the_shelf_is_synced_after_an_output_was_put_there(events, home):
    entry = home / "assets" / "flow" / "copy" / "1.2"
    placed = places(events, "place", str(entry))
    syncs = places(events, "sync", str(entry.parent))
    # The second output changes places with the first, which is no rename that a hook hears of.
    assert len(placed) == 1
    assert len([number for number in syncs if number > placed[0]]) == 2


def test_what_survives_is_said_in_the_docs():
    text = (TESTS.parent / "docs" / "durability.md").read_text()
    names = [*(name for name in FILES if "/" not in name), "conf.json", "cohorts/", ".runs/", "assets/", "dagster.yaml"]
    assert [name for name in names if f"`{name}" not in text and f"/{name}" not in text] == []
