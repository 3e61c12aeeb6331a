"""A full disk: runs go on or fail in words that say what to do, and go on when there is room."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from security.disks import on_small_disk

PREPARE = """
import os, sys
from pathlib import Path
import dagster as dg
from workflows.conftest import Place
from workflows.platform import CHAIN, POOL, Platform
home, images, environments = map(Path, (os.environ["KAAPANA_HOME"], os.environ["KAAPANA_IMAGES"],
                                        os.environ["KAAPANA_ENVIRONMENTS"]))
images.mkdir(parents=True, exist_ok=True)
place = Place(home, images, environments)
(home / "workflows" / "dags").mkdir(parents=True, exist_ok=True)
for name in ("copy", "last"):
    place.each(name)
place.image("pool", POOL)

def fill(folder):
    with open(Path(folder, "filler"), "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
"""


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    return {
        "KAAPANA_HOME": str(tmp_path / "home"),
        "KAAPANA_IMAGES": str(tmp_path / "images"),
        "KAAPANA_ENVIRONMENTS": str(tmp_path / "environments"),
    }


def test_an_operator_that_prints_more_than_the_disk_holds_does_its_work(tmp_path, variables):
    logs = tmp_path / "logs"
    code = f"""{PREPARE}
place.each("copy", 'cat "$in"/* > "$out/all.bin"; yes 0123456789012345678901234567890123456789 | head -c 3000000')
logs = {str(logs)!r}
compute = {{"module": "dagster.core.storage.local_compute_log_manager", "class": "LocalComputeLogManager",
           "config": {{"base_dir": logs}}}}
with dg.DagsterInstance.local_temp({str(tmp_path)!r}, overrides={{"telemetry": {{"enabled": False}},
                                                               "compute_logs": compute}}) as instance:
    platform = Platform(place, instance)
    platform.workflow(CHAIN % "")
    platform.cohort("all", place.series("1", "2"))
    result = platform.run()
    full = os.statvfs(logs).f_bavail == 0
    print("succeeded", result.success, "full", full, platform.report()["status"])
"""
    said = on_small_disk(logs, code, **variables)
    assert "succeeded True full True success" in said


def test_lines_that_were_lost_are_said_when_there_is_room(tmp_path):
    disk = tmp_path / "disk"
    code = f"""
import os, sys
from kaapana_assets.execution.step_output import StepOutput
os.dup2(os.open({str(disk / "out")!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
output = StepOutput()
with open({str(disk / "filler")!r}, "wb", buffering=0) as file:
    try:
        while True:
            file.write(bytes(4096))
    except OSError:
        pass
for _ in range(300):
    output.print_line("x" * 50)
os.remove({str(disk / "filler")!r})
output.print_line("room again")
sys.stderr.write(open({str(disk / "out")!r}).read()[-300:])
assert "lines are missing here: the disk was full]\\nroom again\\n" in open({str(disk / "out")!r}).read()
"""
    on_small_disk(disk, code)


def test_a_run_on_a_full_disk_fails_in_words_and_goes_on_when_there_is_room(tmp_path, variables):
    data = tmp_path / "home" / "workflows" / "data"
    code = f"""{PREPARE}
from kaapana_assets.errors import StoreUnavailable
from kaapana_assets.workflows import ContainerOperator, Workflow
copy = ContainerOperator(name="copy", image="copy")
series = place.series("1", "2")
workflow = Workflow(name="full", operators=(copy,))
work = place.work(workflow, series)
data = {str(data)!r}
fill(data)
try:
    place.step(work)
except StoreUnavailable as exc:
    print("said:", exc)
os.remove(Path(data, "filler"))
print("done:", sorted(place.step(work).done) == series)
"""
    said = on_small_disk(data, code, **variables)
    assert "said: " in said
    assert "No space left" in said
    assert "done: True" in said


def test_a_step_on_a_full_disk_is_repeated_when_there_is_room(tmp_path, variables):
    data = tmp_path / "home" / "workflows" / "data"
    code = f"""{PREPARE}
import threading
data = {str(data)!r}
with dg.DagsterInstance.local_temp({str(tmp_path)!r}, overrides={{"telemetry": {{"enabled": False}}}}) as instance:
    platform = Platform(place, instance)
    platform.workflow(CHAIN % "")
    platform.cohort("all", place.series("1"))
    fill(data)
    threading.Timer(5, os.remove, [Path(data, "filler")]).start()
    result = platform.run()
    print("succeeded", result.success)
"""
    assert "succeeded True" in on_small_disk(data, code, **variables)


def test_records_on_a_full_disk_raise_no_raw_error_and_leave_nothing(tmp_path, variables):
    home = tmp_path / "home"
    code = f"""{PREPARE}
from kaapana_assets.cohorts.cohort import Cohort, list_digest, names, read, save
from kaapana_assets.image_builds.record import BuiltImage, BuiltImages
from kaapana_assets.durable import full_disk_told
from kaapana_assets.errors import KaapanaAssetsError
from kaapana_assets.settings import load_settings
from kaapana_assets.stores.factory import open_index
uids = place.series("1")
big = "x" * 300_000
cohort = Cohort("all", big, "2026-01-01T00:00:00+00:00", tuple(uids), list_digest(tuple(uids)))
image = BuiltImage(reference="a/b:1", name="b", image_id="sha256:1", content_digest=big)
index = open_index(load_settings())
from kaapana_assets.workflows import ContainerOperator, Workflow
workflow = Workflow(name="full", operators=(ContainerOperator(name="copy", image="copy"),))
work = place.work(workflow, uids)
from kaapana_assets.execution.report import Reported, RunState, write_report
state = RunState(reason=big)
reported = Reported(workflow=workflow, request=work.request, run="r", dagster_run_id="r", results={{}}, state=state)

source = Path(os.environ["KAAPANA_IMAGES"], "big")
source.write_text(big)

def act(kind):
    if kind == "image":
        with full_disk_told("images.json"):
            BuiltImages(home).add(image)
    elif kind == "conf":
        with full_disk_told("the run"):
            work.directory.write_conf({{"big": big}})
    elif kind == "cohort":
        save(home / "cohorts", cohort)
    elif kind == "report":
        write_report(reported, place.shelf)
    elif kind == "index":
        index.put([{{"SeriesInstanceUID": uids[0], "StudyDescription": big}}])
    else:
        work.stores.objects.put_file("bucket", "k", source)

for kind in ("image", "conf", "cohort", "report", "index", "objects"):
    fill(home)
    before = set(home.rglob("*"))
    try:
        act(kind)
        print(kind, "was written on a full disk")
    except KaapanaAssetsError as exc:
        print(kind, "said:", str(exc)[:200])
    left = [path.name for path in home.rglob("*") if path not in before and path.is_file() and path.stat().st_size]
    print(kind, "left:", [name for name in left if not name.startswith("index.sqlite")])
    os.remove(home / "filler")
    act(kind)
    print(kind, "done")
"""
    said = on_small_disk(home, code, size="4m", **variables)
    for kind in ("image", "conf", "cohort", "report", "index", "objects"):
        assert f"{kind} said:" in said, said
        assert f"{kind} left: []" in said, said
        assert f"{kind} done" in said, said


def test_a_command_on_a_full_disk_says_so_without_a_traceback(tmp_path):
    home = tmp_path / "home"
    code = f"""
import os, subprocess, sys
home = {str(home)!r}
os.chmod(home, 0o700)
with open(home + "/filler", "wb", buffering=0) as file:
    try:
        while True:
            file.write(bytes(4096))
    except OSError:
        pass
def images():
    return subprocess.run([sys.executable, "-m", "kaapana_assets", "import", home], capture_output=True, text=True,
                          env=os.environ | {{"KAAPANA_HOME": home}})
done = images()
print(done.returncode, done.stderr)
os.remove(home + "/filler")
print("then", images().returncode)
"""
    said = on_small_disk(home, code)
    assert said.startswith("2 "), said
    assert "Traceback" not in said
    assert "No space left" in said
    assert "then 0" in said


def test_a_console_on_a_full_disk_does_not_end_up_with_a_traceback(tmp_path, free_port):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KAAPANA_")}
    environment |= {
        "KAAPANA_HOME": str(tmp_path / "home"),
        "KAAPANA_POSTGRES_URL": f"postgresql://kaapana@127.0.0.1:{free_port}/none",
        "KAAPANA_POSTGRES_PATIENCE_S": "0",
    }
    argv = [sys.executable, "-m", "kaapana_assets", "up"]
    argv += ["--webserver-port=0", "--receiver-port=0", "--health-port=0"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            argv, env=environment, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=120
        )
    assert "does not answer" in done.stderr
    assert "Traceback" not in done.stderr
