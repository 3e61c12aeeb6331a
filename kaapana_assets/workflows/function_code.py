"""What a Python function does, as text that changes when it may do something else.

The text of a function is not enough: helpers and constants beside it, the values that it closes over
and the modules that it imports decide as well. Installed packages are left out, as those of the
platform's own environment.
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
    """The function's name, the values bound to it, and the files that it is written in.

    Read when first asked, which is when workflows are loaded: a file that is edited while a run
    works does not change what the run stands for.

    Raises:
        OSError: there is no file with its source.
        TypeError: it is no plain function, or is bound to a value that has no lasting text.
        ValueError: a file is no Python text.
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
    """The text of a file and of all that it imports of its author's, each once."""
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
    """The top-level modules that are imported anywhere in a file."""
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
    except ValueError:  # a module that was made up, without a file
        return []
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return []
    origin = Path(spec.origin)
    if _INSTALLED & set(origin.parts):
        return []
    return sorted(origin.parent.rglob("*.py")) if spec.submodule_search_locations else [origin]
