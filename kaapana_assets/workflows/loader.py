"""Workflows read from Python files: the built-in ones and the user's, by the same way.

A file that cannot be loaded takes nothing down with it; it is told of beside those that can.
"""

from __future__ import annotations

import importlib.util
import sys
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from kaapana_assets.errors import NotFound, WorkflowError
from kaapana_assets.shown import shown, shown_lines
from kaapana_assets.workflows.model import Workflow
from kaapana_assets.workflows.operators import name_in_dagster

BUILT_IN = Path(__file__).parent / "built_in"


@dataclass
class Loaded:
    """The workflows of some folders, and the files that could not be loaded, with the reason."""

    workflows: dict[str, Workflow] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    def named(self, name: str) -> Workflow:
        """The workflow of that name, written with hyphens or underscores.

        Raises:
            NotFound: there is none; says which there are and which files cannot be loaded.
        """
        for workflow in self.workflows.values():
            if workflow.job_name == name_in_dagster(name):
                return workflow
        broken = "".join(f"\n{reason.strip().splitlines()[-1]} ({file})" for file, reason in self.errors.items())
        raise NotFound(f"no workflow {name!r}; there is: {', '.join(sorted(self.workflows))}{broken}")


def load_platform_workflows(home: Path) -> Loaded:
    """The built-in workflows and those of the user's folder in ``home``."""
    folder = home / "workflows"
    return load_workflows([BUILT_IN, folder / "dags"], plugins=folder / "plugins")


def load_workflows(folders: list[Path], *, plugins: Path | None = None) -> Loaded:
    """Every workflow that stands at the top level of a file ``*.py`` of the folders.

    Args:
        folders: later ones must not repeat a name of earlier ones.
        plugins: folder of what the files may import.
    """
    if plugins is not None and str(plugins) not in sys.path:
        sys.path.append(str(plugins))
    loaded = Loaded()
    for path in (path for folder in folders for path in sorted(folder.glob("*.py"))):
        if path.stem == "__init__":
            continue
        try:
            module = _execute(path)
            for workflow in _workflows_of(module):
                _add(loaded, workflow, path)
        except (SystemExit, Exception) as exc:  # noqa: BLE001 - the file is its author's code, it may raise anything
            loaded.errors[shown(path.name)] = shown_lines(_explained(exc, path))
    return loaded


def _execute(path: Path) -> ModuleType:
    name = f"kaapana_assets_workflow_files.{path.parent.name}.{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise WorkflowError(f"{path} cannot be loaded as Python")
    module = importlib.util.module_from_spec(spec)
    # inspect.getsource and dataclasses look modules up here.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _workflows_of(module: ModuleType) -> list[Workflow]:
    return [value for value in vars(module).values() if isinstance(value, Workflow)]


def _add(loaded: Loaded, workflow: Workflow, path: Path) -> None:
    same = [name for name in loaded.workflows if name_in_dagster(name) == workflow.job_name]
    if same and loaded.workflows[same[0]] is not workflow:
        first = loaded.workflows[same[0]].source
        raise WorkflowError(f"{path.name}: a workflow named {workflow.name!r} is defined in {first} already")
    loaded.workflows[workflow.name] = workflow


def _explained(exc: BaseException, path: Path) -> str:
    if isinstance(exc, WorkflowError):
        return str(exc)
    lines = traceback.format_exception(type(exc), exc, exc.__traceback__)
    mine = [line for line in lines if f'"{__file__}"' not in line and "importlib" not in line]
    return f"{path.name} cannot be loaded:\n\n" + "".join(mine)
