"""An edited workflow never runs as the old one, nor half: real processes, through every door that launches."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from services.running import free_ports
from system.series import write_image, write_series

from kaapana_assets.graphql.answers import Run

pytestmark = pytest.mark.system

PROJECT_ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import os, sys, time
from pathlib import Path

run = Path("/", os.environ["WORKFLOW_DIR"])
switches = Path(os.environ["SWITCHES"])
(switches / ("began-" + os.environ["TASK_ID"])).touch()
while (switches / ("hold-" + os.environ["TASK_ID"])).exists():
    time.sleep(0.05)
if (switches / "fail").exists():
    sys.exit(3)
for series in (run / os.environ["BATCH_NAME"]).iterdir():
    out = series / os.environ["OPERATOR_OUT_DIR"]
    out.mkdir()
    (out / "said.txt").write_text(os.environ["GREETING"])
"""
FILE = """
from plan_words import GREETING
from kaapana_assets.workflows import ContainerOperator, Workflow
def step(name, **more):
    env_vars = {{"SWITCHES": "{switches}", "GREETING": GREETING}}
    return ContainerOperator(name=name, image="{name}", env_vars=env_vars, **more)
{operators}
workflow = Workflow(name="{name}", operators=({used}))
"""


class Site:
    """A platform with a cohort of one series, and workflow files that are edited."""

    def __init__(self, platform, images: Path, switches: Path) -> None:
        self.platform, self.images, self.switches = platform, images, switches
        self.dags = platform.home / "workflows" / "dags"
        self.plugins = platform.home / "workflows" / "plugins"
        self.series = ""

    @property
    def dagster(self):
        return self.platform.dagster

    def arrive(self, folder: Path) -> None:
        self.series = write_series(folder)
        self.platform.kaapana("send", folder)
        there = self.dagster.latest_materialization
        self.platform.wait_until(lambda: there("dicom_series", self.series), 200, "the series as an asset")
        self.platform.wait_until(lambda: there("series_metadata", self.series), 60, "its metadata")
        self.platform.kaapana("cohort", "create", "one", "--query", "*")

    def write(self, name: str, *operators: str) -> None:
        """A workflow of a chain of operators, with an image of its own."""
        write_image(self.images, name, SCRIPT)
        lines, before = [], "None"
        for operator in operators:
            lines.append(f'{operator} = step("{operator}", input_operator={before})')
            before = operator
        text = FILE.format(
            name=name, switches=self.switches, operators="\n".join(lines), used=", ".join(operators) + ","
        )
        (self.dags / f"{name}.py").write_text(text)

    def run(self, workflow: str, *args: str, check: bool = True) -> str:
        done = self.platform.kaapana("run", workflow, "--cohort", "one", *args, check=check)
        assert check or done.returncode != 0
        return done.stdout + done.stderr

    def launch_as_the_web_ui(self, workflow: str) -> Run:
        run = self.dagster.launch(workflow, partition="one")
        return self.dagster.wait(run, timeout_s=120)

    def backfill_runs(self, backfill: str) -> list[Run]:
        """The runs of a backfill that ended, at least one."""
        status = self.dagster.backfill_status
        self.platform.wait_until(lambda: status(backfill)[0] not in ("REQUESTED", "COMPLETING"), 180, "the backfill")
        _, runs = status(backfill)
        assert runs
        return [self.dagster.run(run_id) for run_id in runs]

    def shelf(self, workflow: str, operator: str) -> Path:
        return self.platform.home / "assets" / workflow / operator / self.series / "said.txt"

    def assert_refused(self, run: Run, *said: str) -> None:
        """That it failed with the reason, which the command line shows, too."""
        assert run.status == "FAILURE"
        reason = self.dagster.first_failure(run.run_id)
        for part in (*said, "othing was done"):
            assert part in reason
        assert not any("outside the execution context" in text for text in self.dagster.failures(run.run_id))

    def assert_nothing_made(self, workflow: str, *said: str) -> None:
        """That the shelf has nothing of it but, once a sensor has looked, the report of the refused run."""
        made = self.platform.home / "assets" / workflow
        if not made.exists():
            return
        assert [folder.name for folder in made.iterdir()] == ["report"]
        (path,) = made.glob("report/*/report.json")
        report = json.loads(path.read_text())
        assert report["status"] == "failed"
        assert report["operators"]
        for row in report["operators"]:
            assert (row["state"], row["done"]) == ("not begun", [])
            for part in said:
                assert part in row["reason"]


@pytest.fixture(scope="module", params=["up", "dagster dev"])
def site(request, module_platforms, tmp_path_factory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    images, switches = folder / "images", folder / "switches"
    shutil.copytree(PROJECT_ROOT / "images", images)
    switches.mkdir()
    home = module_platforms.new_home()
    (home / "workflows" / "dags").mkdir(parents=True)
    (home / "workflows" / "plugins").mkdir()
    (home / "workflows" / "plugins" / "plan_words.py").write_text("GREETING = 'hello'\n")
    if request.param == "up":
        platform = module_platforms.start(home, KAAPANA_IMAGES=str(images))
    else:
        platform = module_platforms.start_dev(home, free_ports(2), KAAPANA_IMAGES=str(images))
    made = Site(platform, images, switches)
    made.arrive(folder / "sent")
    return made


def test_run_loads_an_edited_file_first_and_says_so(site: Site) -> None:
    site.write("added", "a")
    site.run("added")
    assert "loading them again" not in site.run("added")

    site.write("added", "a", "b")
    said = site.run("added")

    assert "loading them again" in said
    assert "a: 1 done, 1 reused" in said, said
    assert "b: 1 done" in said
    assert site.shelf("added", "b").read_text() == "hello"


def test_run_loads_an_edited_plugin_first(site: Site) -> None:
    site.write("words", "a")
    site.run("words")
    words = site.plugins / "plan_words.py"
    words.write_text("GREETING = 'olleh'\n")
    try:
        said = site.run("words")
        assert "loading them again" in said
        assert site.shelf("words", "a").read_text() == "olleh"
    finally:
        words.write_text("GREETING = 'hello'\n")
        site.dagster.reload()


EDITS: dict[str, tuple[Callable[[Site, str], None], str]] = {
    "operator-added": (lambda site, name: site.write(name, "a", "b"), "changed"),
    "all-operators-replaced": (lambda site, name: site.write(name, "c"), "changed"),
    "file-removed": (lambda site, name: (site.dags / f"{name}.py").unlink(), "is gone"),
    "file-broken": (lambda site, name: (site.dags / f"{name}.py").write_text("def broken(:"), "SyntaxError"),
    "image": (lambda site, name: write_image(site.images, name, SCRIPT + "#"), "changed"),
}


@pytest.mark.timeout(600)  # ten runs on two cores
def test_runs_and_backfills_of_the_web_ui_on_an_old_plan_end_with_the_reason(site: Site) -> None:
    # All at once: Dagster's daemon looks for new backfills only every 30 s.
    edits = {edit.replace("-", "_"): change_and_said for edit, change_and_said in EDITS.items()}
    for name in edits:
        site.write(name, "a")
    site.dagster.reload()
    for name, (change, _) in edits.items():
        change(site, name)

    backfills = {name: site.dagster.launch_backfill([(name, "a")], [site.series]) for name in edits}
    runs = {name: site.dagster.launch(name, partition="one") for name in edits}

    for name, (_, said) in edits.items():
        site.assert_refused(site.dagster.wait(runs[name], timeout_s=120), said)
    for name, (_, said) in edits.items():
        for run in site.backfill_runs(backfills[name]):
            site.assert_refused(run, said)
        site.assert_nothing_made(name, said)


def test_run_and_backfill_of_the_web_ui_under_old_plugins_end_with_the_reason(site: Site) -> None:
    site.write("plugin", "a")
    site.dagster.reload()
    (site.plugins / "other.py").write_text("# new")

    backfill = site.dagster.launch_backfill([("plugin", "a")], [site.series])
    site.assert_refused(site.launch_as_the_web_ui("plugin"), "plugins/other.py")
    for run in site.backfill_runs(backfill):
        site.assert_refused(run, "plugins/other.py")
    site.assert_nothing_made("plugin", "plugins/other.py")


def test_status_shows_why_a_run_was_refused(site: Site) -> None:
    if getattr(site.platform, "receiving", None) is not None:
        pytest.skip("`status` knows only the Dagster of `kaapana-assets up`")
    site.write("shown", "a")
    site.dagster.reload()
    site.write("shown", "c")
    site.launch_as_the_web_ui("shown")
    errors = json.loads(site.platform.kaapana("status", "--json", check=False).stdout)["errors"]
    (mine,) = [error for error in errors if error["what"].startswith("shown ")]
    assert "dags/shown.py changed" in mine["reason"]


def hold(site: Site, workflow: str, operator: str) -> tuple[str, Path]:
    """A run that works at its operator until the file given is removed."""
    held = site.switches / f"hold-{operator}"
    held.touch()
    began = site.switches / f"began-{operator}"
    began.unlink(missing_ok=True)
    site.run(workflow, "--no-wait")
    site.platform.wait_until(began.exists, 120, "the operator")
    return site.dagster.runs(job=workflow, limit=1)[0].run_id, held


def test_edit_while_a_run_works_does_not_change_it(site: Site) -> None:
    site.write("working", "a1", "b1")
    run, held = hold(site, "working", "a1")
    site.write("working", "a1", "c1")
    (site.plugins / "other.py").write_text("while a run works")
    site.dagster.reload()
    held.unlink()
    assert site.dagster.wait(run, timeout_s=120).succeeded
    assert site.shelf("working", "b1").exists()
    assert not site.shelf("working", "c1").exists()


def test_image_that_is_edited_while_a_run_works_is_not_launched(site: Site) -> None:
    site.write("imaged", "a2", "b2")
    run, held = hold(site, "imaged", "a2")
    write_image(site.images, "imaged", SCRIPT + "# later")
    held.unlink()
    assert not site.dagster.wait(run, timeout_s=120).succeeded
    assert any("image" in said and "changed" in said for said in site.dagster.failures(run))
    assert not site.shelf("imaged", "b2").exists()


def test_failed_run_is_not_repeated_under_another_plan(site: Site) -> None:
    site.write("repeated", "a3")
    (site.switches / "fail").touch()
    site.run("repeated", check=False)
    (site.switches / "fail").unlink()
    failed = site.dagster.runs(job="repeated", limit=1)[0].run_id
    text = (site.dags / "repeated.py").read_text()
    site.write("repeated", "a3", "b3")
    site.dagster.reload()

    again = site.dagster.wait(site.dagster.reexecute_from_failure(failed), timeout_s=120)
    site.assert_refused(again, "dags/repeated.py changed", "send the cohort anew")

    (site.dags / "repeated.py").write_text(text)
    site.dagster.reload()
    assert site.dagster.wait(site.dagster.reexecute_from_failure(failed), timeout_s=120).succeeded


def test_file_says_the_same_to_the_command_line_and_in_dagster(site: Site) -> None:
    site.write("nowhere", "a")
    shutil.rmtree(site.images / "nowhere")
    site.dagster.reload()
    try:
        refused = site.run("nowhere", check=False)
        assert "image 'nowhere'" in refused
        assert "nowhere.py" in refused
        assert "image 'nowhere'" in site.platform.kaapana("workflows", check=False).stderr
        assert ("workflow_errors", "nowhere.py") in site.dagster.asset_keys()
    finally:
        (site.dags / "nowhere.py").unlink()
        site.dagster.reload()
