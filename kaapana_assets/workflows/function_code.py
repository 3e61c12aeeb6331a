"""Collects the code of a Python function as text that changes whenever the function may behave differently.

The function's own source is not enough: its behaviour also depends on helpers and constants beside it, on the
values that it closes over and on the modules that it imports. Installed packages are left out, because they
belong to the platform's environment.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

_INSTALLED = {"site-packages", "dist-packages"}
_OURS = __name__.partition(".")[0]


@functools.cache
def code_of(function: Callable[..., Any]) -> str:
    """Return the function's name, the values bound to it, and the text of the files that define it.

    The files are read at the first call, while workflows are loaded, and the result is cached: editing a file
    during a run does not change the run's fingerprints.

    Raises:
        OSError: the function has no source file.
        TypeError: it is not a plain function, or it is bound to a value without a stable text.
        ValueError: a file is not valid Python.
    """
    if not inspect.isfunction(function):
        raise TypeError(f"{type(function).__name__} is no plain function")
    own = inspect.getsourcefile(function)
    if own is None:
        raise OSError("there is no file")
    bound = (inspect.getclosurevars(function).nonlocals, function.__defaults__, function.__kwdefaults__)
    return "\n".join([f"{function.__module__}.{function.__qualname__}", *map(_text, bound), *_files(Path(own))])


def _text(value: object) -> str:
    if inspect.isfunction(value):
        return code_of(value)
    if isinstance(value, Mapping):
        return _text([(key, value[key]) for key in value])
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, (set, frozenset)):
        return f"{{{', '.join(sorted(map(_text, value)))}}}"
    if value is None or isinstance(value, (str, bytes, int, float, PurePath)):
        return repr(value)
    raise TypeError(f"it is bound to a {type(value).__name__}, which no text stands for")


def _files(first: Path) -> Iterator[str]:
    """Yield the text of a file and of all files of the author that it imports, each once."""
    waiting, seen = [first], {first}
    while waiting:
        text = waiting.pop().read_text(encoding="utf-8")
        yield text
        for name in sorted(_imported(text)):
            for path in _of_author(name):
                if path not in seen:
                    seen.add(path)
                    waiting.append(path)


def _imported(text: str) -> set[str]:
    """Return the top-level modules that a file imports, without the standard library and this package."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names - sys.stdlib_module_names - {_OURS}


def _of_author(name: str) -> list[Path]:
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # a module that was created at run time, without a file
        return []
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return []
    origin = Path(spec.origin)
    if _INSTALLED & set(origin.parts):
        return []
    return sorted(origin.parent.rglob("*.py")) if spec.submodule_search_locations else [origin]
