"""What is loaded is what the plan's digest speaks of, and every edit makes another plan."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from dagster._core.definitions.utils import DISALLOWED_NAMES

from kaapana_assets.containers.pinned import PinnedRunner
from kaapana_assets.containers.process.runner import ProcessRunner
from kaapana_assets.errors import NotFound, OperatorFailed
from kaapana_assets.workflows.file_states import _is_word
from kaapana_assets.workflows.loader import Loaded, load_workflow_files
from kaapana_assets.workflows.plan import Plan, read_plan_files

FILE = """
from kaapana_assets.workflows import ContainerOperator, Workflow
from plan_helper import NAME

copy = ContainerOperator(name="copy", image="copy", env_vars={"GREETING": "a"})
study = Workflow(name=NAME, operators=(copy,))
"""


class Site:
    """The folders of a platform whose workflow files are loaded as a new process would."""

    def __init__(self, place) -> None:
        self.place = place
        self.dags = place.home / "workflows" / "dags"
        self.plugins = place.home / "workflows" / "plugins"
        self.dags.mkdir(parents=True)
        self.plugins.mkdir()
        place.each("copy")
        self.runner = ProcessRunner(place.images, place.environments)

    def load(self) -> Loaded:
        return load_workflow_files(self.place.home, self.runner)

    def problems(self) -> dict[str, str]:
        # The images of the built-in workflows are not there.
        return {name: text for name, text in self.load().problems.items() if not name.startswith("built_in/")}


@pytest.fixture
def site(place) -> Site:
    made = Site(place)
    (made.dags / "study.py").write_text(FILE)
    (made.plugins / "plan_helper.py").write_text('NAME = "study"\n')
    (made.plugins / "table.csv").write_text("1,2\n")
    return made


def _replace(path: str, old: str, new: str) -> Callable[[Site], None]:
    def edit(site: Site) -> None:
        file = site.place.home / "workflows" / path
        before = file.stat()
        file.write_text(file.read_text().replace(old, new))
        # Neither the size nor the time of change has to tell of it.
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))

    return edit


EDITS: dict[str, tuple[Callable[[Site], None], str]] = {
    "operator-added": (
        _replace("dags/study.py", "(copy,)", '(copy, ContainerOperator(name="b", image="copy"))'),
        "dags/study.py changed",
    ),
    "same-size": (_replace("dags/study.py", '"a"', '"b"'), "dags/study.py changed"),
    "plugin": (_replace("plugins/plan_helper.py", "study", "other"), "plugins/plan_helper.py changed"),
    "data-of-plugin": (_replace("plugins/table.csv", "1", "3"), "plugins/table.csv changed"),
    "file-removed": (lambda site: (site.plugins / "table.csv").unlink(), "plugins/table.csv is gone"),
    "file-added": (lambda site: (site.dags / "b.py").touch(), "dags/b.py is new"),
    "image": (lambda site: site.place.each("copy", "true") and None, "image copy changed"),
    "image-removed": (lambda site: (site.place.images / "copy" / "Dockerfile").unlink(), "image copy is gone"),
}


@pytest.mark.parametrize("case", EDITS)
def test_every_edit_makes_another_plan_and_is_named(site: Site, case: str) -> None:
    edit, said = EDITS[case]
    before = site.load().plan
    assert site.load().plan.digest == before.digest
    edit(site)
    after = site.load().plan
    assert after.digest != before.digest
    assert said in before.changes_to(after)


def test_plan_is_the_same_in_another_process_and_after_a_way_as_text(site: Site) -> None:
    plan = site.load().plan
    environment = {
        "KAAPANA_HOME": str(site.place.home),
        "KAAPANA_IMAGES": str(site.place.images),
        "KAAPANA_ENVIRONMENTS": str(site.place.environments),
    }
    script = (
        "from kaapana_assets.containers.factory import open_runner\n"
        "from kaapana_assets.settings import load_settings\n"
        "from kaapana_assets.workflows.loader import load_workflow_files\n"
        "print(load_workflow_files(load_settings().home, open_runner(load_settings())).plan.digest)\n"
    )
    other = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | environment, capture_output=True, text=True, check=True
    )
    assert other.stdout.strip() == plan.digest
    assert Plan.from_text(plan.as_text()).digest == plan.digest


@pytest.mark.parametrize("name", ["__pycache__/x.pyc", "x.pyc", ".study.py.swp", "study.py~", ".#study.py"])
def test_what_python_and_editors_leave_is_no_part_of_the_plan(site: Site, name: str) -> None:
    before = site.load().plan.digest
    left = site.dags / name
    left.parent.mkdir(exist_ok=True)
    left.write_text("left")
    assert site.load().plan.digest == before


def test_plugins_that_were_edited_are_imported_anew_in_the_same_process(site: Site) -> None:
    assert "study" in site.load().workflows
    _replace("plugins/plan_helper.py", "study", "other")(site)
    assert "other" in site.load().workflows
    assert not list(site.place.home.rglob("*.pyc"))


def test_plugin_that_is_imported_late_is_the_one_that_was_loaded(site: Site) -> None:
    (site.plugins / "plan_late.py").write_text("VALUE = 1\n")
    (site.plugins / "plan_package" / "inner").mkdir(parents=True)
    (site.plugins / "plan_package" / "__init__.py").write_text("")
    (site.plugins / "plan_package" / "inner" / "deep.py").write_text("VALUE = 1\n")
    (site.dags / "late.py").write_text(
        FILE.replace("from plan_helper import NAME", "").replace("NAME", '"late"')
        + "def late():\n    import plan_late\n    from plan_package.inner import deep\n"
        + "    return plan_late.VALUE, deep.VALUE\n"
        + "def new():\n    import plan_new\n"
    )
    site.load()
    module = sys.modules["kaapana_assets_workflow_files.dags.late"]
    (site.plugins / "plan_late.py").write_text("VALUE = 2\n")
    (site.plugins / "plan_package" / "inner" / "deep.py").write_text("VALUE = 2\n")
    (site.plugins / "plan_new.py").write_text("")
    assert module.late() == (1, 1)
    with pytest.raises(ModuleNotFoundError):
        module.new()
    site.load()
    assert sys.modules["kaapana_assets_workflow_files.dags.late"].late() == (2, 2)


def test_files_that_change_while_they_are_loaded_are_loaded_again(site: Site) -> None:
    edits = site.place.home / "edits"
    edits.write_text("1")
    (site.dags / "restless.py").write_text(
        "from pathlib import Path\nfrom kaapana_assets.workflows import ContainerOperator, Workflow\n"
        f"edits, helper = Path({str(edits)!r}), Path({str(site.plugins / 'plan_helper.py')!r})\n"
        "if edits.exists():\n    edits.unlink()\n    helper.write_text('NAME = \"later\"')\n"
        'restless = Workflow(name="restless", operators=(ContainerOperator(name="copy", image="copy"),))\n'
    )
    loaded = site.load()
    assert {"later", "restless"} <= loaded.workflows.keys()
    assert loaded.plan.files == read_plan_files(site.place.home).digests


def test_files_that_never_rest_make_a_plan_that_no_other_process_has(site: Site) -> None:
    helper = site.plugins / "plan_helper.py"
    (site.dags / "restless.py").write_text(
        f"from pathlib import Path\nhelper = Path({str(helper)!r})\n"
        "helper.write_text(helper.read_text() + '# again' + chr(10))\n"
    )
    assert site.load().plan.digest != site.load().plan.digest


def test_image_that_changed_after_the_plan_was_made_is_not_launched(site: Site) -> None:
    loaded = site.load()
    pinned = PinnedRunner(site.runner, loaded.images)
    assert pinned.image_digest("copy") == loaded.images["copy"]
    site.place.each("copy", "true")
    with pytest.raises(OperatorFailed, match=r"image copy .* changed"):
        pinned.image_digest("copy")


@pytest.mark.parametrize("name", sorted(DISALLOWED_NAMES))
def test_words_that_dagster_refuses_as_names_are_known(name: str) -> None:
    assert _is_word(name)


GOOD = FILE.replace("from plan_helper import NAME", "").replace("NAME", '"bad"')
STATES = {
    "in-a-function-that-is-called": (
        GOOD.replace("study = Workflow", "def make():\n    return Workflow") + "made = [make()]\n",
        ["workflow 'bad', made in line 7, is not found", "bad = ..."],
    ),
    "in-a-function-that-nobody-calls": (
        GOOD.replace("study = Workflow", "def make():\n    return Workflow"),
        ["the workflow in line 7 is not found", "function make"],
    ),
    "one-found-and-one-hidden": (
        GOOD + 'def make():\n    return Workflow(name="hidden", operators=(copy,))\n',
        ["the workflow in line 8 is not found", "function make"],
    ),
    "none-at-all": ("import json\n", ["it defines no workflow"]),
    "empty": ("", ["it defines no workflow"]),
    "image-not-there": (GOOD.replace('image="copy"', 'image="gone"'), ["workflow 'bad'", "image 'gone'"]),
    "broken": ("def broken(:\n", ["SyntaxError"]),
    "name-that-is-taken": (GOOD.replace('"bad"', '"study"'), ["'study' is defined in study.py already"]),
}


@pytest.mark.parametrize("case", STATES)
def test_file_with_which_something_is_wrong_says_what(site: Site, case: str) -> None:
    text, expected = STATES[case]
    (site.dags / "z.py").write_text(text)
    problems = site.problems()
    assert set(problems) == {"z.py"}
    for part in expected:
        assert part in problems["z.py"]


def test_workflow_that_cannot_be_run_says_which_file_and_why(site: Site) -> None:
    (site.dags / "z.py").write_text(STATES["image-not-there"][0])
    with pytest.raises(NotFound, match=r"(?s)'bad' cannot be run.*image 'gone'.*z\.py"):
        site.load().named("bad")


def test_name_that_two_files_have_is_run_from_neither(site: Site) -> None:
    (site.dags / "z.py").write_text(STATES["name-that-is-taken"][0])
    with pytest.raises(NotFound, match=r"(?s)'study' cannot be run.*defined in study\.py already.*z\.py"):
        site.load().named("study")


def test_workflow_made_by_a_function_and_named_at_the_top_level_is_well(site: Site) -> None:
    (site.dags / "z.py").write_text(
        GOOD.replace("study = Workflow", "def make():\n    return Workflow") + "made = make()\n"
    )
    assert site.problems() == {}
    assert "bad" in site.load().workflows


def test_workflow_in_a_folder_below_is_told_of_and_a_helper_there_is_not(site: Site) -> None:
    below = site.dags / "below"
    below.mkdir()
    (below / "study.py").write_text(GOOD)
    (below / "helper.py").write_text("x = 1\n")
    assert list(site.problems()) == ["below/study.py"]
    assert "is not loaded" in site.problems()["below/study.py"]


def test_link_that_runs_in_a_circle_and_a_pipe_do_no_harm(site: Site) -> None:
    (site.plugins / "circle").symlink_to(site.plugins)
    (site.plugins / "self").symlink_to(site.plugins / "self")
    os.mkfifo(site.plugins / "pipe")
    assert site.problems() == {}


def test_plugins_linked_from_elsewhere_are_imported_and_count(site: Site, tmp_path: Path) -> None:
    package = tmp_path / "elsewhere" / "plan_linked"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('NAME = "linked"\n')
    (site.plugins / "plan_linked").symlink_to(package)
    (site.dags / "study.py").write_text(FILE.replace("plan_helper", "plan_linked"))
    before = site.load()
    assert "linked" in before.workflows
    (package / "__init__.py").write_text('NAME = "again"\n')
    assert "again" in site.load().workflows
