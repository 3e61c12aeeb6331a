"""From the network to pooled results, as a user drives it: real processes, sockets and files."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from services.running import free_ports
from system.processes import has_argument, is_run_worker
from system.series import write_image, write_series

from kaapana_assets.stores.sqlite_index import SqliteIndex

pytestmark = pytest.mark.system

PROJECT_ROOT = Path(__file__).resolve().parents[2]

DELICATE = '''
"""Copies each series' file names; fails for the series named in broken.txt, slowly if told so."""
import os, sys, time
from pathlib import Path

run = Path("/", os.environ["WORKFLOW_DIR"])
here = Path(os.environ["SWITCHES"])
broken = here.joinpath("broken.txt").read_text().split() if here.joinpath("broken.txt").exists() else []
failed = False
for series in sorted((run / os.environ["BATCH_NAME"]).iterdir()):
    if series.name in broken:
        print(f"series {series.name} is broken")
        failed = True
        continue
    out = series / os.environ["OPERATOR_OUT_DIR"]
    out.mkdir()
    with open(out / "names.txt", "w") as file:
        for path in sorted((series / os.environ["OPERATOR_IN_DIR"]).iterdir()):
            file.write(path.name + " " + os.environ["GREETING"] + chr(10))
            file.flush()
            time.sleep(float(os.environ.get("PAUSE", "0")))
print("delicate saw", os.environ["RUN_ID"])
sys.exit(1 if failed else 0)
'''

WORKFLOW = """
from kaapana_assets.workflows import ContainerOperator, Parameter, Workflow

delicate = ContainerOperator(
    name="delicate", image="delicate", output_patterns=("names.txt",), env_vars={"SWITCHES": %r, "PAUSE": "%s"}
)
pool = ContainerOperator(
    name="count", image="count", input_operator=delicate, level="cohort", env_vars=delicate.env_vars
)
workflow = Workflow(name="%s", operators=(delicate, pool), parameters=(Parameter("greeting", "hello"),))
"""

COUNT = """
import json, os
from pathlib import Path

if Path(os.environ["SWITCHES"], "count-fails.txt").exists():
    raise SystemExit(3)
run = Path("/", os.environ["WORKFLOW_DIR"])
out = run / os.environ["OPERATOR_OUT_DIR"]
out.mkdir()
names = {p.parent.parent.name: p.read_text() for p in (run / "batch").glob("*/" + os.environ["OPERATOR_IN_DIR"] + "/*")}
(out / "count.json").write_text(json.dumps(names))
"""


class Site:
    """A platform with images and workflows of its own, and words for what a user does with it."""

    def __init__(self, platform, images: Path, switches: Path, folder: Path):
        self.platform, self.images, self.switches, self.folder = platform, images, switches, folder

    @property
    def dagster(self):
        return self.platform.dagster

    def send(self, *, count: int, mark: str, instances: int = 3) -> list[str]:
        """Sends that many new series over the network, waits until they are assets, in partition order."""
        folder = self.folder / mark
        series = [write_series(folder, instances=instances, SeriesDescription=mark) for _ in range(count)]
        self.platform.kaapana("send", folder)
        self.wait_for(series)
        return sorted(series)

    def wait_for(self, series: list[str], since: dict[str, str] | None = None) -> None:
        def there() -> bool:
            return all(self.version(uid) not in (None, (since or {}).get(uid)) for uid in series)

        self.platform.wait_until(there, 200, "series as assets")

    def version(self, uid: str, asset: object = "dicom_series") -> str | None:
        found = self.dagster.latest_materialization(asset, uid)
        return found.data_version if found else None

    def freeze(self, mark: str) -> str:
        self.platform.kaapana("cohort", "create", mark, "--query", f'SeriesDescription:"{mark}"')
        return mark

    def shelf(self, workflow: str, operator: str, partition: str) -> Path:
        return self.platform.home / "assets" / workflow / operator / partition

    def report(self, workflow: str, cohort: str) -> dict:
        return json.loads((self.shelf(workflow, "report", cohort) / "report.json").read_text())


@pytest.fixture(scope="module", params=["up", "dagster dev"])
def site(request, module_platforms, tmp_path_factory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    images, switches = folder / "images", folder / "switches"
    shutil.copytree(PROJECT_ROOT / "images", images)
    switches.mkdir()
    write_image(images, "delicate", DELICATE)
    write_image(images, "count", COUNT)
    home = module_platforms.new_home()
    dags = home / "workflows" / "dags"
    dags.mkdir(parents=True)
    (dags / "delicate.py").write_text(WORKFLOW % (str(switches), "0", "delicate"))
    (dags / "slow.py").write_text(WORKFLOW % (str(switches), "0.02", "slow"))
    (dags / "mistake.py").write_text("from kaapana_assets.workflows import Workflow\nworkflow = Workflow(\n")
    if request.param == "up":
        platform = module_platforms.start(home, KAAPANA_IMAGES=str(images))
    else:
        platform = module_platforms.start_dev(home, free_ports(2), KAAPANA_IMAGES=str(images))
    return Site(platform, images, switches, folder)


def test_series_sent_over_the_network_are_stored_indexed_and_shown_as_assets(site):
    series = site.send(count=3, mark="arrivals")

    status = site.dagster.partition_status("dicom_series")
    assert set(series) <= status.materialized
    # Recorded a moment later than the series itself.
    indexed = site.dagster.partition_status
    site.platform.wait_until(lambda: set(series) <= indexed("series_metadata").materialized, 60, "their metadata")
    document = SqliteIndex(site.platform.home / "index.sqlite").get(series[0])
    assert document["InstanceCount"] == 3
    shown = site.dagster.latest_materialization("dicom_series", series[0]).metadata
    assert shown["instances"] == 3
    assert shown["modality"] == "MR"
    assert "preview" not in shown
    assert not [path for path in (site.platform.home / "incoming").glob("*/*.dcm") if path.parent.name in series]
    found = site.platform.kaapana("query", "SeriesDescription:arrivals", "--json")
    assert all(uid in found.stdout for uid in series)


def test_a_broken_workflow_file_is_shown_as_an_asset_and_the_others_work(site):
    keys = site.dagster.asset_keys()
    assert ("workflow_errors", "mistake.py") in keys
    assert ("delicate", "delicate") in keys
    assert ("pool_study_ids", "pool_jsons") in keys


def test_a_batch_pools_what_its_operators_made_and_records_each_series(site):
    series = site.send(count=3, mark="batch")
    site.freeze("batch")

    said = site.platform.kaapana("run", "pool-study-ids", "--cohort", "batch", "--batch").stdout

    pooled = json.loads((site.shelf("pool-study-ids", "pool-jsons", "batch") / "pooled.json").read_text())
    assert sorted(record["series_uid"] for record in pooled) == series
    assert {record["study_id"] for record in pooled} == {uid + ".1" for uid in series}
    assert set(series) <= site.dagster.partition_status(("pool_study_ids", "extract_study_id")).materialized
    assert "batch" in site.dagster.partition_status(("pool_study_ids", "pool_jsons")).materialized
    assert "batch" in site.dagster.partition_status("cohort").materialized
    assert str(site.shelf("pool-study-ids", "pool-jsons", "batch").parent) in said
    rows = {row["operator"]: row for row in site.report("pool-study-ids", "batch")["operators"]}
    assert rows["extract-study-id"]["launches"] == 1
    assert not list((site.platform.home / "workflows" / "data").glob("pool-study-ids-*"))


def test_single_mode_launches_each_series_on_its_own(site):
    series = site.send(count=3, mark="single")
    site.freeze("single")

    site.platform.kaapana("run", "extract-multiple-study-ids", "--cohort", "single", "--single")

    rows = {row["operator"]: row for row in site.report("extract-multiple-study-ids", "single")["operators"]}
    assert rows["extract-study-id-one"]["launches"] == rows["extract-study-id-two"]["launches"] == 3
    for uid in series:
        assert list(site.shelf("extract-multiple-study-ids", "extract-study-id-two", uid).glob("*.json"))


def test_a_second_run_computes_nothing_and_force_computes_all(site):
    site.send(count=2, mark="again")
    site.freeze("again")
    site.platform.kaapana("run", "delicate", "--cohort", "again")

    site.platform.kaapana("run", "delicate", "--cohort", "again")
    reused = {row["operator"]: row["launches"] for row in site.report("delicate", "again")["operators"]}
    site.platform.kaapana("run", "delicate", "--cohort", "again", "--force")
    forced = {row["operator"]: row["launches"] for row in site.report("delicate", "again")["operators"]}

    assert reused == {"delicate": 0, "count": 0}
    assert forced == {"delicate": 1, "count": 1}


def test_one_bad_series_fails_alone_and_a_re_execution_mends_it(site):
    series = site.send(count=4, mark="onebad")
    site.freeze("onebad")
    bad, good = series[1], {series[0], *series[2:]}
    (site.switches / "broken.txt").write_text(bad)

    failed = site.platform.kaapana("run", "delicate", "--cohort", "onebad", check=False)

    assert failed.returncode == 1
    assert bad in failed.stdout
    assert f"series {bad} is broken" in site.report("delicate", "onebad")["failed"][bad]["reason"]
    status = site.dagster.partition_status(("delicate", "delicate"))
    assert bad in status.failed
    assert good <= status.materialized
    assert set(json.loads((site.shelf("delicate", "count", "onebad") / "count.json").read_text())) == good
    run = site.dagster.runs(job="delicate", limit=1)[0]

    (site.switches / "broken.txt").unlink()
    mended = site.dagster.wait(site.dagster.reexecute_from_failure(run.run_id), timeout_s=90)

    assert mended.succeeded
    assert [step.key.rpartition(".")[2] for step in mended.steps] == ["delicate_report"]
    assert set(series) <= site.dagster.partition_status(("delicate", "delicate")).materialized
    assert set(json.loads((site.shelf("delicate", "count", "onebad") / "count.json").read_text())) == set(series)


def test_re_execution_repeats_just_the_failed_operator_on_the_files_of_the_run(site):
    series = site.send(count=2, mark="poolfails")
    site.freeze("poolfails")
    site.platform.kaapana("run", "delicate", "--cohort", "poolfails")
    fails = site.switches / "count-fails.txt"
    fails.touch()
    try:
        failed = site.platform.kaapana("run", "delicate", "--cohort", "poolfails", "--force", check=False)
        run = site.dagster.runs(job="delicate", limit=1)[0]
    finally:
        fails.unlink()
    assert failed.returncode == 1
    assert "exit code 3" in failed.stdout
    kept = list((site.platform.home / "workflows" / "data").glob("delicate-*/batch/*/delicate/names.txt"))
    assert {path.parent.parent.name for path in kept} >= set(series)

    repeated = site.dagster.wait(site.dagster.reexecute_from_failure(run.run_id), timeout_s=90)

    assert repeated.succeeded
    assert {step.key.rpartition(".")[2] for step in repeated.steps} == {"delicate_count", "delicate_report"}


def test_a_backfill_over_a_range_of_series_is_one_run_and_one_launch_per_operator(site):
    series = site.send(count=3, mark="backfill")

    backfill = site.dagster.launch_backfill([("delicate", "delicate")], series)
    site.platform.wait_until(
        lambda: site.dagster.backfill_status(backfill)[0] not in ("REQUESTED", "COMPLETING"), 120, "the backfill"
    )

    status, runs = site.dagster.backfill_status(backfill)
    assert status == "COMPLETED_SUCCESS"
    assert len(runs) == 1
    for uid in series:
        assert (site.shelf("delicate", "delicate", uid) / "names.txt").exists()
        assert site.version(uid, ("delicate", "delicate"))


def test_what_came_from_a_series_is_out_of_date_after_a_late_slice_and_only_that(site):
    series = site.send(count=2, mark="late")
    site.freeze("late")
    site.platform.kaapana("run", "delicate", "--cohort", "late")
    asset = ("delicate", "delicate")
    assert set(site.dagster.asset_staleness(asset, series).values()) == {"FRESH"}

    before = {series[0]: site.version(series[0])}
    write_series(site.folder / "slice", series=series[0], first=9, instances=1, SeriesDescription="late")
    site.platform.kaapana("send", site.folder / "slice")
    site.wait_for([series[0]], since=before)

    assert site.dagster.asset_staleness(asset, series) == {series[0]: "STALE", series[1]: "FRESH"}
    site.platform.kaapana("run", "delicate", "--cohort", "late")
    row = site.report("delicate", "late")["operators"][0]
    assert row["reused"] == [series[1]]
    assert set(site.dagster.asset_staleness(asset, series).values()) == {"FRESH"}
    assert len((site.shelf("delicate", "delicate", series[0]) / "names.txt").read_text().splitlines()) == 4


def test_a_changed_image_or_parameter_shows_as_out_of_date(site):
    series = site.send(count=1, mark="changes")
    site.freeze("changes")
    asset = ("slow", "delicate")
    site.platform.kaapana("run", "slow", "--cohort", "changes")
    assert site.dagster.asset_staleness(asset, series)[series[0]] == "FRESH"

    site.platform.kaapana("run", "slow", "--cohort", "changes", "--param", "greeting=good morning")
    assert "good morning" in (site.shelf("slow", "delicate", series[0]) / "names.txt").read_text()
    # Made with another value than the workflow's own.
    assert site.dagster.asset_staleness(asset, series)[series[0]] == "STALE"
    site.platform.kaapana("run", "slow", "--cohort", "changes")
    assert site.dagster.asset_staleness(asset, series)[series[0]] == "FRESH"

    write_image(site.images, "delicate", DELICATE + "\n# a new version\n")
    site.dagster.reload()
    assert site.dagster.asset_staleness(asset, series)[series[0]] == "STALE"


def test_a_killed_run_leaves_nothing_half_on_the_shelf_and_a_repeat_finishes(site):
    series = site.send(count=6, mark="killed", instances=10)
    site.freeze("killed")
    said = site.platform.kaapana("run", "slow", "--cohort", "killed", "--single", "--no-wait").stdout
    run = site.dagster.runs(job="slow", limit=1)[0].run_id
    assert run in said
    data = site.platform.home / "workflows" / "data"
    site.platform.wait_until(lambda: list(data.glob("slow-*/**/batch/*/delicate/names.txt")), 60, "work")

    killed = [p for p in psutil.process_iter() if is_run_worker(p, run)]
    for process in killed:
        os.kill(process.pid, signal.SIGKILL)
    assert killed
    ended = site.dagster.wait(run, timeout_s=120)

    assert ended.status == "FAILURE"
    for uid in series:
        entry = site.shelf("slow", "delicate", uid)
        assert not entry.exists() or len((entry / "names.txt").read_text().splitlines()) == 10
    delicate = str(site.images / "delicate")
    site.platform.wait_until(
        lambda: not [p for p in psutil.process_iter() if has_argument(p, delicate)], 30, "the end of its operators"
    )
    site.platform.kaapana("run", "slow", "--cohort", "killed", "--single")
    for uid in series:
        assert len((site.shelf("slow", "delicate", uid) / "names.txt").read_text().splitlines()) == 10


@pytest.mark.parametrize("mode", ["batch", "single"])
def test_a_cancelled_run_leaves_no_operator_and_nothing_half_and_a_repeat_finishes(site, mode):
    mark = f"cancelled-{mode}"
    series = site.send(count=4, mark=mark, instances=10)
    site.freeze(mark)
    site.platform.kaapana("run", "slow", "--cohort", mark, f"--{mode}", "--no-wait")
    run = site.dagster.runs(job="slow", limit=1)[0].run_id
    data = site.platform.home / "workflows" / "data"
    site.platform.wait_until(
        lambda: [path for uid in series for path in data.glob(f"slow-*/**/batch/{uid}/delicate/names.txt")], 60, "work"
    )
    site.dagster.terminate(run)
    assert site.dagster.wait(run, timeout_s=60).status == "CANCELED"
    assert not [p for p in psutil.process_iter() if has_argument(p, str(site.images / "delicate"))]
    for uid in series:
        entry = site.shelf("slow", "delicate", uid)
        assert not entry.exists() or len((entry / "names.txt").read_text().splitlines()) == 10
    site.platform.kaapana("run", "slow", "--cohort", mark, f"--{mode}")
    for uid in series:
        assert len((site.shelf("slow", "delicate", uid) / "names.txt").read_text().splitlines()) == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "pool-study-ids", "--cohort", "nobody"), "no cohort 'nobody'"),
        (("run", "nothing", "--cohort", "batch"), "nothing"),
        (("run", "delicate", "--cohort", "batch", "--param", "greetin=x"), "greetin"),
        (("run", "delicate", "--cohort", "../batch"), "not a valid name"),
        (("cohort", "create", "empty", "--query", "Modality:ZZ"), "no series matches"),
        (("cohort", "create", "wrong", "--query", "Modality:"), "character"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_users_mistake_is_told_in_one_message(site, arguments, message):
    site.platform.kaapana("send", site.folder / "batch", check=False)
    if not (site.platform.home / "cohorts" / "batch.json").exists():
        site.send(count=1, mark="batch")
        site.freeze("batch")

    done = site.platform.kaapana(*arguments, check=False)

    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
