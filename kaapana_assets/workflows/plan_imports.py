"""Imports workflow files and plugins from the content that the plan has read, not from the disk.

A plugin that is imported late, inside a function, is therefore the version that the plan's digest covers, even
if its file was edited meanwhile. Bytecode is neither written nor read: Python checks it by size and mtime, and
would use outdated bytecode for a file that was edited twice within a second.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import CodeType, ModuleType

from kaapana_assets.errors import WorkflowError
from kaapana_assets.workflows.plan import PlanFiles, file_digest

_FILES = "kaapana_assets_workflow_files"


class _ReadSource(importlib.machinery.SourceFileLoader):
    """Loads a module from source that was read before."""

    def __init__(self, fullname: str, path: Path, source: bytes) -> None:
        super().__init__(fullname, str(path))
        self._source = source

    def get_data(self, path: str) -> bytes:
        """Return the source that was read; read other files of a package, which are data, from the disk."""
        return self._source if path == self.path else super().get_data(path)

    def get_code(self, fullname: str) -> CodeType:
        """Compile the source, without any bytecode cache."""
        code: CodeType = self.source_to_code(self._source, self.path)
        return code


class _Plugins(MetaPathFinder):
    """Finds plugins as they were read; an installed package of the same name takes precedence."""

    def __init__(self, files: PlanFiles) -> None:
        self._files = files
        self._libraries = {
            path: files.digests[name] for name, path in files.paths.items() if path.suffix in (".so", ".pyd")
        }

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        place = self._files.plugins.joinpath(*fullname.split("."))
        if path is None:
            if importlib.machinery.PathFinder.find_spec(fullname) is not None:
                return None
        elif str(place.parent) not in path:
            return None
        return (
            self._source_spec(fullname, place) or self._library_spec(fullname, place) or self._folder(fullname, place)
        )

    def _source_spec(self, fullname: str, place: Path) -> importlib.machinery.ModuleSpec | None:
        for file in (place / "__init__.py", place.with_name(place.name + ".py")):
            if file in self._files.sources:
                loader = _ReadSource(fullname, file, self._files.sources[file])
                return importlib.util.spec_from_file_location(fullname, file, loader=loader)
        return None

    def _library_spec(self, fullname: str, place: Path) -> importlib.machinery.ModuleSpec | None:
        for suffix in importlib.machinery.EXTENSION_SUFFIXES:
            file = place.with_name(place.name + suffix)
            if file in self._libraries:
                if file_digest(file) != self._libraries[file]:
                    raise WorkflowError(f"plugin {file} changed after the workflow files were loaded")
                return importlib.util.spec_from_file_location(fullname, file)
        return None

    def _folder(self, fullname: str, place: Path) -> importlib.machinery.ModuleSpec | None:
        if not any(place in path.parents for path in (*self._files.sources, *self._libraries)):
            return None
        spec = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
        spec.submodule_search_locations = [str(place)]
        return spec


def use_plugins(files: PlanFiles) -> None:
    """Let imports find the plugins that were read; forget those of an earlier reading."""
    roots = {files.plugins, *(each._files.plugins for each in sys.meta_path if isinstance(each, _Plugins))}
    for name, module in list(sys.modules.items()):
        if _is_below(module, roots) or name.startswith(_FILES + "."):
            del sys.modules[name]
    sys.meta_path[:] = [each for each in sys.meta_path if not isinstance(each, _Plugins)]
    before = next(
        (at for at, each in enumerate(sys.meta_path) if each is importlib.machinery.PathFinder), len(sys.meta_path)
    )
    sys.meta_path.insert(before, _Plugins(files))


def execute(path: Path, source: bytes) -> ModuleType:
    """Execute a workflow file and return its module.

    Raises:
        WorkflowError: the path has no form that Python can load.
    """
    name = f"{_FILES}.{path.parent.name}.{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path, loader=_ReadSource(name, path, source))
    if spec is None or spec.loader is None:
        raise WorkflowError(f"{path} cannot be loaded as Python")
    module = importlib.util.module_from_spec(spec)
    # inspect.getsource and dataclasses look modules up here.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _is_below(module: ModuleType, roots: set[Path]) -> bool:
    spec = getattr(module, "__spec__", None)
    if spec is None:
        return False
    places = [spec.origin] if spec.has_location else list(spec.submodule_search_locations or ())
    return any(root in Path(place).parents for place in places if isinstance(place, str) for root in roots)
