"""The shape of the package: which module may know which, and that everything public is documented."""

import ast
import importlib
import inspect
import re
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
    "child_process",
    "clocks",
    "durable",
    "errors",
    "home",
    "home_paths",
    "home_record",
    "locks",
    "retry",
    "run_ends",
    "settings",
    "shown",
    "trusted_paths",
    "untrusted",
    "web_guard",
    "withheld",
}
MAY_IMPORT: dict[str, set[str]] = {
    **{name: set() for name in GROUND - {"__init__"}},
    "dicom": set(),
    "graphql": set(),
    "stores": {"dicom"},
    "cohorts": {"dicom", "stores"},
    "image_builds": {"dicom"},
    "containers": {"image_builds"},
    "workflows": {"dicom", "stores", "containers"},
    "execution": {"cohorts", "containers", "stores", "workflows"},
    "ingest": {"dicom", "stores"},
    "supervision": {"graphql"},
    "health": {"stores", "ingest", "containers", "graphql"},
    "backups": {"dicom", "stores", "ingest", "supervision"},
    "forgetting": {"dicom", "stores", "cohorts", "ingest", "graphql", "supervision"},
    "defs": {"dicom", "stores", "cohorts", "containers", "ingest", "workflows", "execution"},
    "definitions": {"defs"},
    "operations": {
        "dicom",
        "stores",
        "cohorts",
        "containers",
        "workflows",
        "execution",
        "ingest",
        "graphql",
        "supervision",
        "health",
    },
    "cli": {
        "operations",
        "dicom",
        "stores",
        "containers",
        "image_builds",
        "ingest",
        "graphql",
        "supervision",
        "health",
        "backups",
        "forgetting",
    },
    "__main__": {"cli"},
}
DAGSTER_IN = {"defs", "definitions"}

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


@pytest.mark.parametrize("path", [m for m in MODULES if layer_of(m) != "__init__"], ids=name_of)
def test_modules_import_only_what_lies_before_their_layer(path: Path):
    layer = layer_of(path)
    allowed = MAY_IMPORT[layer] | GROUND | {layer}
    used = {name.split(".")[1] for name in imports(path) if name.startswith("kaapana_assets.")}
    assert used - allowed - {"__version__"} == set()


def test_every_layer_has_a_rule():
    assert {layer_of(path) for path in MODULES} - {"__init__"} == MAY_IMPORT.keys()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_dagster_is_imported_in_one_room_only(path: Path):
    if layer_of(path) in DAGSTER_IN:
        return
    used = {name for name in imports(path) if name.split(".")[0].startswith("dagster")}
    assert used == set()


def test_layers_have_no_circle():
    below = {layer: set(allowed) for layer, allowed in MAY_IMPORT.items()}
    while below:
        free = {layer for layer, allowed in below.items() if not allowed & below.keys()}
        assert free, f"a circle among {sorted(below)}"
        below = {layer: allowed for layer, allowed in below.items() if layer not in free}


def rooms_imported() -> dict[str, set[str]]:
    """By room: the other rooms that its modules import; without the ground."""
    rooms = MAY_IMPORT.keys() - GROUND - {"__main__"}
    found: dict[str, set[str]] = {room: set() for room in rooms}
    for path in MODULES:
        if (room := layer_of(path)) in rooms:
            used = {name.split(".")[1] for name in imports(path) if name.startswith("kaapana_assets.")}
            found[room] |= (used & rooms) - {room}
    return found


def reachable(arrows: dict[str, set[str]], first: str) -> set[str]:
    seen: set[str] = set()
    todo = [first]
    while todo:
        new = arrows.get(todo.pop(), set()) - seen
        seen |= new
        todo += new
    return seen


def test_drawing_of_the_architecture_is_what_is_imported():
    text = (ROOT / "docs" / "architecture.md").read_text()
    drawn: dict[str, set[str]] = {}
    for before, after in re.findall(r"^ +(\w+) --> (\w+)$", text, re.MULTILINE):
        drawn.setdefault(before, set()).add(after)
    imported = rooms_imported()
    assert {
        room: used - reachable(drawn, room) for room, used in imported.items() if used - reachable(drawn, room)
    } == {}
    assert {room: drawn[room] - imported[room] for room in drawn if drawn[room] - imported[room]} == {}
    described = set(re.findall(r"`(\w+)/`", text.partition("## The rooms")[2].partition("## The way")[0]))
    assert imported.keys() - described - {"definitions"} == set()


@pytest.mark.parametrize("name", re.findall(r"`((?:\w+/)*\w+\.py)`", (ROOT / "docs" / "architecture.md").read_text()))
def test_modules_that_the_architecture_names_are_there(name: str):
    assert (PACKAGE / name).exists() or (ROOT / name).exists() or list(PACKAGE.glob(f"*/{name}"))


def reached_from(module: str) -> dict[str, set[str]]:
    """All modules of the package that importing one imports, also in its functions, with what each imports."""
    reached: dict[str, set[str]] = {}
    todo = [module]
    while todo:
        name = todo.pop()
        file = PACKAGE.parent / (name.replace(".", "/") + ".py")
        package = PACKAGE.parent / name.replace(".", "/") / "__init__.py"
        file = file if file.exists() else package
        if name in reached or not file.exists():
            continue
        reached[name] = set(imports(file))
        ours = [each for each in reached[name] if each.startswith("kaapana_assets.")]
        todo += [*ours, *(each.rpartition(".")[0] for each in ours)]
    return reached


WITHOUT_DAGSTER = [
    "ingest.receiver",
    "ingest.spool",
    *(f"operations.{path.stem}" for path in sorted((PACKAGE / "operations").glob("*.py")) if path.stem != "__init__"),
]


@pytest.mark.parametrize("name", WITHOUT_DAGSTER)
def test_nothing_that_is_reached_from_the_receiver_and_operations_knows_dagster(name: str):
    reached = reached_from(f"kaapana_assets.{name}")
    assert f"kaapana_assets.{name}" in reached, f"there is no module {name}: it was renamed"
    with_dagster = {
        module for module, used in reached.items() if any(each.split(".")[0].startswith("dagster") for each in used)
    }
    assert with_dagster == set()


SPELL_PATHS = {"home_paths.py", "image_builds/package_index.py"}  # the second one: those of pip, in a person's home


@pytest.mark.parametrize("path", [path for path in MODULES if name_of(path) not in SPELL_PATHS], ids=name_of)
def test_paths_below_a_home_are_spelled_in_one_module(path: Path):
    spelled = [
        ast.unparse(node)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.BinOp)
        and isinstance(node.op, ast.Div)
        and isinstance(node.right, (ast.Constant, ast.JoinedStr))
        and ast.unparse(node.left).rpartition(".")[2] in ("home", "_home")
    ]
    assert [each for each in spelled if "dagster.yaml" not in each and "'postgres'" not in each] == []


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
