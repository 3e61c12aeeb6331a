"""A user's file that cannot be loaded is told of beside the workflows that can, and takes nothing down."""

import os
from pathlib import Path

import dagster as dg
import pytest

from kaapana_assets.defs.assembly import build_definitions
from kaapana_assets.settings import Settings

GOOD = """
from kaapana_assets.workflows import ContainerOperator, Workflow
copy = ContainerOperator(name="copy", image="copy")
good = Workflow(name="good", operators=(copy,))
"""


@pytest.fixture
def dags(place) -> Path:
    """The folder of the user's files, with one that works."""
    place.each("copy")
    folder = place.home / "workflows" / "dags"
    folder.mkdir(parents=True)
    (folder / "m_good.py").write_text(GOOD)
    return folder


def load(place) -> tuple[set[str], dict[str, str]]:
    """The jobs that can be run, and why files could not be loaded."""
    settings = Settings(home=place.home, images=place.images, environments=place.environments)
    for name in ("extract-study-id", "pool-jsons", "dcm2nrrd", "bash-template", "python-template", "zip-files"):
        place.each(name)
    definitions = build_definitions(settings)
    repository = definitions.get_repository_def()
    errors = {
        spec.key.path[1]: spec.description or ""
        for spec in definitions.resolve_all_asset_specs()
        if spec.key.path[0] == "workflow_errors"
    }
    return set(repository.job_names), errors


def test_file_whose_name_is_no_text_is_told_of_and_takes_nothing_down(place, dags):
    (dags / os.fsdecode(b"bad\xe9\n.py")).write_text("x = 1 / 0")
    (dags / os.fsdecode(b"good\xe9.py")).write_text(GOOD.replace('"good"', '"odd"'))
    jobs, errors = load(place)
    assert {"good", "odd"} <= jobs
    assert list(errors) == ["bad\\xe9\\n.py"]
    errors["bad\\xe9\\n.py"].encode("utf-8")


FILES = {
    "syntax-error": ("def broken(:\n", ["SyntaxError", "broken.py"]),
    "exception": ("x = 1\ny = x / 0\n", ["ZeroDivisionError", "line 2"]),
    "sys-exit": ("import sys\nsys.exit('not today')\n", ["SystemExit", "not today"]),
    "no-such-import": ("import no_such_module_anywhere\n", ["ModuleNotFoundError", "no_such_module_anywhere"]),
    "not-text": ("\0", ["broken.py"]),
    "mistake": (
        GOOD.replace("good", "bad").replace('image="copy"', 'image="copy", input_operator="none"'),
        ["broken.py", "workflow 'bad'", "operator 'copy'", "'none'"],
    ),
    "image-not-there": (
        GOOD.replace("good", "bad").replace('image="copy"', 'image="gone"'),
        ["workflow 'bad'", "gone"],
    ),
    "duplicate-name": (GOOD, ["'good' is defined in", "already"]),
    "same-name-for-dagster": (
        GOOD.replace("good", "pool_study_ids"),
        ["'pool_study_ids' is defined in study_ids.py already"],
    ),
    "name-of-the-platform": (GOOD.replace("good", "ingest"), ["'ingest'", "platform uses this name itself"]),
    "word-of-dagster": (
        GOOD.replace("good", "bad").replace('name="copy"', 'name="output"'),
        ["output"],
    ),
    "function-without-source": (
        "from kaapana_assets.workflows import PythonOperator, Workflow\n"
        "names = {}\nexec('def f(context): pass', names)\n"
        "bad = Workflow(name='bad', operators=(PythonOperator(name='odd', function=names['f']),))\n",
        ["odd", "source"],
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_file_that_cannot_be_loaded_stands_as_an_asset_that_says_why(place, dags: Path, case: str) -> None:
    text, expected = FILES[case]
    dags.joinpath("z_broken.py").write_text(text)
    jobs, errors = load(place)
    assert {"good", "pool_study_ids", "dcm2nrrd", "ingest"} <= jobs
    assert set(errors) == {"z_broken.py"}
    for part in expected:
        assert part in errors["z_broken.py"]


def test_workflows_whose_steps_have_one_name_do_not_take_the_others_down(place, dags: Path) -> None:
    text = GOOD.replace("good =", "workflow =")
    dags.joinpath("n_one.py").write_text(text.replace('"good"', '"a-b"').replace('name="copy"', 'name="c"'))
    dags.joinpath("o_two.py").write_text(text.replace('"good"', '"a"').replace('name="copy"', 'name="b-c"'))
    jobs, errors = load(place)
    assert {"good", "a_b"} <= jobs
    assert set(errors) == {"o_two.py"}
    assert "a_b_c" in errors["o_two.py"]


def test_file_with_an_odd_name_is_told_of_too(place, dags: Path) -> None:
    dags.joinpath("my file (2).py").write_text("1/0")
    _, errors = load(place)
    assert "ZeroDivisionError" in errors["my file (2).py"]


def test_file_may_import_what_is_in_the_plugins_folder(place, dags: Path) -> None:
    plugins = place.home / "workflows" / "plugins"
    plugins.mkdir()
    plugins.joinpath("own_names_for_tests.py").write_text("NAME = 'planned'\n")
    dags.joinpath("n.py").write_text(
        "from own_names_for_tests import NAME\n" + GOOD.replace('name="good"', "name=NAME")
    )
    jobs, errors = load(place)
    assert "planned" in jobs
    assert not errors


def test_built_in_workflows_load_without_any_folder_of_the_user(place) -> None:
    jobs, errors = load(place)
    assert {"pool_study_ids", "dcm2nrrd", "template_showcase", "download_selected_files"} <= jobs
    assert not errors


def test_series_operators_are_assets_by_series_and_pooled_ones_by_cohort(place, dags: Path) -> None:
    del dags
    load(place)
    settings = Settings(home=place.home, images=place.images, environments=place.environments)
    graph = build_definitions(settings).resolve_asset_graph()
    extract = graph.get(dg.AssetKey(["pool_study_ids", "extract_study_id"]))
    pool = graph.get(dg.AssetKey(["pool_study_ids", "pool_jsons"]))
    assert (extract.partitions_def.name, pool.partitions_def.name) == ("series", "cohorts")
    assert extract.parent_keys == {dg.AssetKey("dicom_series")}
    assert extract.key in pool.parent_keys
