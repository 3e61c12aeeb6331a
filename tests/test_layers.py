"""The shape of the package: which module may know which, and that everything public is documented."""

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

from kaapana_assets import cli, errors
from kaapana_assets.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "kaapana_assets"
MODULES = sorted(PACKAGE.rglob("*.py"))

# What a layer may import of this package besides itself; the ground is for all.
GROUND = {
    "__init__",
    "accounts",
    "addresses",
    "clocks",
    "durable",
    "errors",
    "home",
    "home_record",
    "locks",
    "run_ends",
    "settings",
    "shown",
    "tree_limits",
    "trusted_paths",
    "untrusted",
    "withheld",
}
MAY_IMPORT = {
    "dicom": set(),
    "stores": {"dicom"},
    "cohorts": {"dicom", "stores"},
    "containers": {"dicom"},
    "supervision": {"graphql"},
    "health": {"stores", "ingest", "containers", "graphql", "web_guard"},
    "web_guard": set(),
    "webserver": {"web_guard"},
    "graphql": set(),
    "backups": {"dicom", "stores", "ingest", "supervision"},
    "forgetting": {"dicom", "stores", "cohorts", "ingest", "graphql", "supervision"},
    "events": {"partitions"},
    "partitions": set(),
    "abandoned_runs": set(),
    "dagster_storage": set(),
    "forgotten_events": set(),
    "dagster_logs": set(),
    "patient_storage": set(),
    "resources": {"dicom", "stores", "containers", "cohorts", "workflows"},
    "ingest": {"dicom", "stores", "partitions", "resources", "events"},
    "workflows": {"dicom", "stores", "cohorts", "containers", "partitions", "resources", "events", "dagster_logs"},
    **{name: set() for name in GROUND - {"__init__"}},
    "cli": {
        "dicom",
        "stores",
        "cohorts",
        "containers",
        "workflows",
        "ingest",
        "graphql",
        "supervision",
        "health",
        "backups",
        "forgetting",
    },
}
DAGSTER_IN = {
    "partitions",
    "events",
    "resources",
    "definitions",
    "abandoned_runs",
    "dagster_storage",
    "forgotten_events",
    "dagster_logs",
    "patient_storage",
    "webserver",
    "workflows",
}
DAGSTER_IN_FILES = {"ingest/assets.py", "ingest/sensors.py", "cohorts/assets.py"}

# Never seen by a caller of the package that raises them.
CAUGHT_IN_THEIR_PACKAGE = {"StopAsked", "DamagedFile"}


def imports(path: Path) -> Iterator[str]:
    """Full names of all modules that the file imports, also inside functions, but not for types only."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", [m for m in MODULES if layer_of(m) in MAY_IMPORT], ids=name_of)
def test_modules_import_only_what_lies_before_their_layer(path: Path):
    layer = layer_of(path)
    allowed = MAY_IMPORT[layer] | GROUND | {layer}
    if layer == "cli":
        allowed.add("cli")
    used = {name.split(".")[1] for name in imports(path) if name.startswith("kaapana_assets.")}
    assert used - allowed - {"__version__"} == set()


def test_every_layer_has_a_rule():
    layers = {layer_of(path) for path in MODULES} - {"__init__", "__main__", "definitions"}
    assert layers - MAY_IMPORT.keys() == set()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_dagster_is_imported_only_where_assets_are_made(path: Path):
    if layer_of(path) in DAGSTER_IN or name_of(path) in DAGSTER_IN_FILES:
        return
    used = {name for name in imports(path) if name.split(".")[0].startswith("dagster")}
    assert used == set()


@pytest.mark.parametrize("name", ["receiver", "spool"])
def test_the_receiver_knows_nothing_of_dagster(name: str):
    path = PACKAGE / "ingest" / f"{name}.py"
    if not path.exists():
        pytest.skip(f"there is no {path.name}")
    reached, todo = set(), [f"kaapana_assets.ingest.{name}"]
    while todo:
        module = todo.pop()
        if module in reached:
            continue
        reached.add(module)
        file = PACKAGE.parent / (module.replace(".", "/") + ".py")
        if file.exists():
            used = set(imports(file))
            todo += [name for name in used if name.startswith("kaapana_assets.")]
            todo += [name.rpartition(".")[0] for name in used if name.startswith("kaapana_assets.")]
            assert {name for name in used if name.split(".")[0].startswith("dagster")} == set(), module


def test_every_setting_is_in_the_docs():
    text = (ROOT / "docs" / "settings.md").read_text()
    missing = [name for name in Settings.model_fields if f"`KAAPANA_{name.upper()}`" not in text]
    assert missing == []


def test_every_error_is_in_the_tree_of_the_errors_module():
    tree = errors.__doc__ or ""
    ours = [name for name, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)]
    assert [name for name in ours if name not in tree] == []


@pytest.mark.parametrize("path", [m for m in MODULES if layer_of(m) != "errors"], ids=name_of)
def test_errors_of_other_modules_belong_to_the_tree(path: Path):
    module = "kaapana_assets." + name_of(path).removesuffix(".py").replace("/", ".")
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef) and any(
            ast.unparse(base) in {"Exception", "ValueError"} for base in node.bases
        ):
            private = node.name.startswith("_") or node.name in CAUGHT_IN_THEIR_PACKAGE
            assert private, f"{module}.{node.name} is no KaapanaAssetsError"


def test_every_command_is_in_the_readme():
    text = (ROOT / "README.md").read_text()
    assert [name for name in cli._COMMANDS if f"`kaapana-assets {name}" not in text] == []


@pytest.mark.parametrize("command", sorted(cli._COMMANDS))
def test_every_command_says_what_it_does(command: str):
    module = importlib.import_module(f"kaapana_assets.cli.{cli._MODULES.get(command, command)}")
    assert module.command.help
