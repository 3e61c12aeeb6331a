"""The whole main job as a program does it: by ``operations`` alone, on a platform that is up."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from system.series import write_image, write_series

from kaapana_assets.errors import InputError, NotFound, ParameterError
from kaapana_assets.ingest.folder_import import ImportOutcome
from kaapana_assets.operations import arrivals, cohorts, runs
from kaapana_assets.operations.cleaning import Cleaned, clean
from kaapana_assets.operations.health import open_health_check
from kaapana_assets.operations.runs import StepChange
from kaapana_assets.operations.series import facet_from_text, preview, search, sort_from_text
from kaapana_assets.operations.session import Session, settings_to_change
from kaapana_assets.operations.workflows import load_workflows

pytestmark = pytest.mark.system

COUNTS = """
import os
from pathlib import Path

for series in Path(os.environ["WORKFLOW_DIR"], "batch").iterdir():
    out = series / os.environ["OPERATOR_OUT_DIR"]
    out.mkdir()
    count = len(list((series / os.environ["OPERATOR_IN_DIR"]).iterdir()))
    (out / "count.txt").write_text(f"{os.environ['UNIT']}{count}")
"""
WAITS = """
import os, sys, time
from pathlib import Path

what = Path(os.environ["SIGNAL"]).read_text()
while what == "wait":
    time.sleep(0.1)
sys.exit(what == "fail")
"""
FLOW = """
from kaapana_assets.workflows import ContainerOperator, Parameter, Workflow
count = ContainerOperator(name="count", image="counts", output_patterns=("count.txt",))
last = ContainerOperator(
    name="last", image="waits", input_operator=count, env_vars={{"SIGNAL": {signal!r}}}, parameters=(), outputs=None
)
workflow = Workflow(name="count", operators=(count, last), parameters=(Parameter("unit", "files: "),))
"""


@pytest.fixture(scope="module")
def place(module_platforms, tmp_path_factory) -> Iterator[tuple[Session, Path]]:
    """A session on a platform that is up, and the folder of the test."""
    folder = tmp_path_factory.mktemp("operations")
    for name, script in {"counts": COUNTS, "waits": WAITS}.items():
        write_image(folder / "images", name, script)
    home = module_platforms.new_home()
    (home / "workflows" / "dags").mkdir(parents=True)
    (home / "workflows" / "dags" / "count.py").write_text(FLOW.format(signal=str(folder / "signal")))
    (folder / "signal").write_text("go")
    module_platforms.start(home, KAAPANA_IMAGES=str(folder / "images"))
    with Session(settings_to_change(home=home)) as session:
        yield session, folder


def until(holds, timeout_s: float = 120):
    deadline = time.monotonic() + timeout_s
    while not (found := holds()):
        assert time.monotonic() < deadline, holds
        time.sleep(0.1)
    return found


def test_whole_main_job_from_files_to_results(place, tmp_path):
    session, folder = place
    sent = {write_series(folder / "sent", SeriesDescription="job") for _ in range(2)}
    (folder / "sent" / "note.txt").write_text("no DICOM")
    told = []
    result = arrivals.send_folder(
        session.settings,
        folder / "sent",
        peer=arrivals.receiver_of(session.settings),
        progress=lambda stage, **counts: told.append((stage, *counts.values())),
    )
    assert (result.instances, result.failed, len(result.skipped)) == (6, (), 1)
    assert told[0] == ("reading", 0, 7)
    assert told[-1] == ("sending", 6, 6)
    imported = write_series(folder / "imported", instances=2, SeriesDescription="job")
    assert arrivals.import_folder(session.settings, folder / "imported").counts == {ImportOutcome.STORED: 2}

    query = 'SeriesDescription:"job"'
    until(lambda: search(session, query, limit=0).page.total == 3)
    found = search(session, query, facets=[facet_from_text("Modality")], sort=sort_from_text("-InstanceCount"), limit=2)
    assert [document["InstanceCount"] for document in found.page.documents] == [3, 3]
    (last_page,) = search(
        session, query, sort=sort_from_text("-InstanceCount"), limit=2, after=found.page.next_cursor
    ).page.documents
    assert last_page["SeriesInstanceUID"] == imported
    assert [(bucket.key, bucket.count) for bucket in found.facets[0]] == [("MR", 3)]
    assert search(session, "Modalty:MR").hints
    assert preview(session, imported, size=32).startswith(b"\x89PNG")

    frozen, path = cohorts.freeze(session, "job", query)
    assert set(frozen.series) == {*sent, imported}
    assert cohorts.record(session, "job").succeeded
    assert cohorts.read(session, "job") == cohorts.all_cohorts(session)[0][0] == frozen
    assert path.exists()
    assert [each.name for each in load_workflows(session).named("count").parameters] == ["unit"]

    run = runs.start(session, "count", "job", parameters={"unit": "slices: "})
    changes: list[StepChange] = []
    ended = runs.follow(session, run, on_step=changes.append)
    assert ended.run.succeeded
    assert StepChange("count", "SUCCESS") in changes
    assert [len(row["done"]) for row in ended.report["operators"]] == [3, 3]
    assert json.loads(ended.report_path.read_text()) == ended.report == runs.result(session, run).report
    made = runs.output(session, "count", "count", imported)
    assert (made.folder / "count.txt").read_text() == "slices: 2"
    fetched = runs.fetch(session, "count", "count", imported, tmp_path / "fetched")
    assert [file.path for file in fetched.manifest.files] == ["count.txt"]
    assert runs.output(session, "count", "count", "1.2.3") is None

    again = runs.follow(session, runs.start(session, "count", "job", mode="single", parameters={"unit": "slices: "}))
    assert [len(row["reused"]) for row in again.report["operators"]] == [3, 0]  # the last one only acts
    forced = runs.follow(session, runs.start(session, "count", "job", force=True))
    assert [len(row["reused"]) for row in forced.report["operators"]] == [0, 0]
    assert (made.folder / "count.txt").read_text() == "files: 2"
    assert open_health_check(session.settings).report().is_up
    assert clean(session, days=365) == Cleaned((), (), 365)


def test_run_is_cancelled_repeated_and_found_by_its_id(place):
    session, folder = place
    series = write_series(folder / "cancelled", SeriesDescription="cancelled")
    arrivals.import_folder(session.settings, folder / "cancelled")
    until(lambda: search(session, 'SeriesDescription:"cancelled"', limit=0).page.total)
    cohorts.freeze(session, "cancelled", 'SeriesDescription:"cancelled"')
    (folder / "signal").write_text("wait")
    run = runs.start(session, "count", "cancelled")
    with pytest.raises(InputError, match="goes on"):
        runs.reexecute(session, run)
    until(lambda: any(step.key.endswith("count_last") for step in session.dagster.run(run.run_id).steps))
    runs.cancel(session, runs.find(session, run.run_id))
    ended = runs.follow(session, run)
    assert (ended.run.status, ended.report["status"]) == ("CANCELED", "cancelled")
    runs.cancel(session, run)  # it has ended: nothing happens

    for what, succeeds in (("fail", False), ("go", True)):
        (folder / "signal").write_text(what)
        run = runs.reexecute(session, run)
        repeated = runs.follow(session, run)
        assert repeated.run.succeeded == succeeds
        assert set(repeated.report["failed"]) == (set() if succeeds else {series})
    with pytest.raises(InputError, match="nothing of it is left to repeat"):
        runs.reexecute(session, run)
    newest = runs.latest(session, workflow="count", limit=3)
    assert newest[0][0] == run
    assert [now.status for _, now in newest] == ["SUCCESS", "FAILURE", "CANCELED"]


@pytest.mark.parametrize(
    ("act", "error", "said"),
    [
        (lambda session: runs.start(session, "no-such", "job"), NotFound, "no workflow 'no-such'"),
        (lambda session: runs.start(session, "count", "no-such"), NotFound, "no cohort 'no-such'"),
        (lambda session: runs.find(session, "no-such"), NotFound, "no-such"),
        (lambda session: search(session, "Modality:(CT"), InputError, r"Modality"),
        (lambda _: facet_from_text("PatientAge:often"), InputError, "the step is a number"),
        (lambda session: preview(session, "1.2.3"), NotFound, "1.2.3"),
        (lambda session: cohorts.freeze(session, "none", "Modality:XX"), NotFound, "no series matches"),
    ],
)
def test_mistake_is_an_error_of_the_tree_that_names_it(place, act, error, said):
    with pytest.raises(error, match=said):
        act(place[0])


def test_wrong_parameter_is_refused_before_anything_is_launched(place):
    session, folder = place
    write_series(folder / "refused", SeriesDescription="refused")
    arrivals.import_folder(session.settings, folder / "refused")
    until(lambda: search(session, 'SeriesDescription:"refused"', limit=0).page.total)
    cohorts.freeze(session, "refused", 'SeriesDescription:"refused"')
    before = runs.latest(session)
    with pytest.raises(ParameterError, match="no parameter named units"):
        runs.start(session, "count", "refused", parameters={"units": "x"})
    assert runs.latest(session) == before


def test_commands_show_list_follow_cancel_and_repeat_runs(place, module_platforms):
    session, folder = place
    platform = module_platforms.newest
    write_series(folder / "commands", SeriesDescription="commands")
    arrivals.import_folder(session.settings, folder / "commands")
    until(lambda: search(session, 'SeriesDescription:"commands"', limit=0).page.total)
    platform.kaapana("cohort", "create", "commands", "--query", 'SeriesDescription:"commands"')
    (folder / "signal").write_text("wait")
    platform.kaapana("run", "count", "--cohort", "commands", "--no-wait")
    run_id, *_ = platform.kaapana("runs", "list", "--limit", "1").stdout.split()
    refused = platform.kaapana("runs", "show", run_id, check=False)
    assert (refused.returncode, "goes on" in refused.stderr) == (2, True)
    until(lambda: any(step.key.endswith("count_last") for step in session.dagster.run(run_id).steps))
    assert "is asked to end" in platform.kaapana("runs", "cancel", run_id).stdout
    followed = platform.kaapana("runs", "follow", run_id, check=False)
    assert (followed.returncode, "last: cancelled" in followed.stdout) == (1, True)
    assert "canceled   count on commands" in platform.kaapana("runs", "list", "--workflow", "count").stdout
    (folder / "signal").write_text("go")
    assert "last: 1 done" in platform.kaapana("runs", "repeat", run_id).stdout
    shown = platform.kaapana("runs", "show", run_id).stdout
    assert "the run was cancelled" in shown
    assert "a later run of the cohort wrote the report" in shown
