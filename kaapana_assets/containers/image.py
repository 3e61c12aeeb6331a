"""An image folder, ``images/<name>/{Dockerfile,files/,requirements.txt}``: what its Dockerfile says.

Only what is needed to run ``files/`` in place and to name the image: this builds no images.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from kaapana_assets.dicom.identifiers import checked_name
from kaapana_assets.errors import ConfigurationError, NotFound

_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::-([^}]*))?\}|(\w+))")
_NOT_CONTENT = {"__pycache__", ".git", ".mypy_cache", ".ruff_cache", ".pytest_cache"}


@dataclass(frozen=True)
class Stage:
    """What the instructions of a Dockerfile's stage say about starting it."""

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    workdir: str = "/"
    environment: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    copies: tuple[tuple[str, str], ...] = ()
    """Pairs of a source below the image folder and its absolute place in the container."""


@dataclass(frozen=True)
class Image:
    """An image folder and how its container starts."""

    name: str
    folder: Path
    stage: Stage

    @property
    def requirements(self) -> Path:
        """The file of Python requirements; it need not exist."""
        return self.folder / "requirements.txt"

    def on_host(self, path: str) -> str:
        """A path in the container as a path in the image folder, or as given where nothing was copied to it."""
        if not path.startswith("/"):
            return path
        for source, target in reversed(self.stage.copies):
            copied = self.folder / source
            # A folder's content is copied into the target, a file into a folder ("/" at its end) or as the target.
            place = f"{target}{copied.name}" if copied.is_file() and target.endswith("/") else target.rstrip("/")
            if path.rstrip("/") == place:
                return str(copied)
            below = copied / path[len(place) + 1 :]
            if path.startswith(f"{place}/") and below.exists():
                return str(below)
        return path

    def start(self, command: tuple[str, ...] | None) -> tuple[list[str], Path]:
        """Arguments and working directory of a start.

        Args:
            command: replaces ENTRYPOINT and CMD; None starts the image as built.

        Raises:
            ConfigurationError: the Dockerfile has neither ENTRYPOINT nor CMD.
        """
        arguments = command or (*self.stage.entrypoint, *self.stage.cmd)
        if not arguments:
            raise ConfigurationError(f"image {self.name}: {self.folder / 'Dockerfile'} has no ENTRYPOINT and no CMD")
        workdir = Path(self.on_host(self.stage.workdir))
        inside = workdir.is_relative_to(self.folder) and workdir.is_dir()
        return [self.on_host(argument) for argument in arguments], workdir if inside else self.folder / "files"


def load_image(images: Path, reference: str) -> Image:
    """The image folder that a reference names: its last path component, without tag and digest.

    Raises:
        NotFound: there is no such folder, or it has no Dockerfile or no ``files``.
        InvalidIdentifier: the last component of the reference is no valid name.
        ConfigurationError: its Dockerfile cannot be understood.
    """
    name = checked_name(reference.partition("@")[0].rsplit("/", 1)[-1].partition(":")[0], kind="image")
    folder = images / name
    dockerfile = folder / "Dockerfile"
    if not dockerfile.is_file() or not (folder / "files").is_dir():
        raise NotFound(
            f"image {reference!r}: {folder} is not a folder with Dockerfile and files/; the process runner and `images "
            "build` take the image folders below KAAPANA_IMAGES and pull nothing"
        )
    return Image(name=name, folder=folder, stage=_read(dockerfile))


def image_names(images: Path) -> tuple[str, ...]:
    """The names of all image folders, sorted.

    Raises:
        NotFound: there is no such folder of image folders.
    """
    if not images.is_dir():
        raise NotFound(f"KAAPANA_IMAGES={images} is not a folder")
    return tuple(sorted(folder.name for folder in images.iterdir() if (folder / "Dockerfile").is_file()))


def base_images(image: Image, arguments: Mapping[str, str]) -> tuple[str, ...]:
    """The references of all images that its Dockerfile begins a stage with, without doubles.

    Args:
        image: the image folder.
        arguments: build arguments, which win over the defaults that the Dockerfile has.
    """
    known, stages, found = dict[str, str](), {"scratch"}, dict[str, None]()
    for keyword, value in _instructions((image.folder / "Dockerfile").read_text(encoding="utf-8")):
        if keyword == "ARG":
            key, default = _argument(value, known)
            known[key] = arguments.get(key, default)
        elif keyword == "FROM":
            reference, *name = [word for word in _substituted(value, known).split() if not word.startswith("--")] or [
                ""
            ]
            if reference and reference not in stages:
                found[reference] = None
            stages.update(name[1:])
    return tuple(found)


def takes_argument(image: Image, name: str) -> bool:
    """Whether its Dockerfile has a build argument of that name."""
    lines = _instructions((image.folder / "Dockerfile").read_text(encoding="utf-8"))
    return any(keyword == "ARG" and _argument(value, {})[0] == name for keyword, value in lines)


def content_digest(image: Image) -> str:
    """SHA-256 of the image folder: names, executable bits and content of all of its files."""
    digest = hashlib.sha256()
    for path, stat in content(image.folder):
        name = path.relative_to(image.folder).as_posix()
        digest.update(json.dumps([name, bool(stat.st_mode & 0o100), stat.st_size]).encode())
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    return f"sha256:{digest.hexdigest()}"


def content(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The files that make up an image and their status, in the order of their paths; no bytecode."""
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        if entry.name in _NOT_CONTENT or entry.name.endswith(".pyc"):
            continue
        if entry.is_dir():
            yield from content(Path(entry.path))
        elif entry.is_file():
            yield Path(entry.path), entry.stat()


def _read(dockerfile: Path) -> Stage:
    stage, stages, arguments = Stage(), {"": Stage()}, dict[str, str]()
    name = ""
    for keyword, value in _instructions(dockerfile.read_text(encoding="utf-8")):
        known = {**arguments, **stage.environment}
        if keyword == "FROM":
            words = [word for word in _substituted(value, known).split() if not word.startswith("--")]
            stage = stages.get(words[0] if words else "", Stage())
            name = words[2] if len(words) == 3 else ""
        elif keyword == "ARG":
            key, default = _argument(value, known)
            arguments[key] = default
        elif keyword == "ENV":
            stage = replace(stage, environment={**stage.environment, **_variables(value, known)})
        elif keyword == "LABEL":
            stage = replace(stage, labels={**stage.labels, **_variables(value, known)})
        elif keyword == "WORKDIR":
            stage = replace(stage, workdir=str(PurePosixPath(stage.workdir, _substituted(value, known))))
        elif keyword in {"COPY", "ADD"}:
            stage = replace(stage, copies=(*stage.copies, *_copies(value, stage.workdir, known)))
        elif keyword == "ENTRYPOINT":
            # A new ENTRYPOINT clears a CMD set before it.
            stage = replace(stage, entrypoint=_exec_form(dockerfile, keyword, value), cmd=())
        elif keyword == "CMD":
            stage = replace(stage, cmd=_exec_form(dockerfile, keyword, value))
        stages[name] = stage
    return stage


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\[ \t]*\n", " ", "\n".join(lines))
    for line in joined.splitlines():
        keyword, _, value = line.strip().partition(" ")
        if keyword:
            yield keyword.upper(), value.strip()


def _argument(value: str, known: Mapping[str, str]) -> tuple[str, str]:
    key, _, default = value.partition("=")
    return key.strip(), _substituted(default.strip().strip("\"'"), known)


def _substituted(text: str, known: Mapping[str, str]) -> str:
    return _VARIABLE.sub(lambda found: known.get(found[1] or found[3], found[2] or ""), text)


def _variables(value: str, known: Mapping[str, str]) -> dict[str, str]:
    words = shlex.split(value)
    if words and "=" not in words[0]:  # the old form: ENV NAME all the rest
        key, _, rest = value.partition(" ")
        return {key: _substituted(rest.strip(), known)}
    pairs = (word.partition("=") for word in words)
    return {key: _substituted(text, known) for key, _, text in pairs}


def _copies(value: str, workdir: str, known: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    if "--from" in value:
        return
    text = _substituted(value, known)
    words = json.loads(text) if text.startswith("[") else [w for w in text.split() if not w.startswith("--")]
    *sources, target = words if len(words) > 1 else ("", "")
    place = str(PurePosixPath(workdir, target)) + ("/" if target.endswith("/") else "")
    for source in sources:
        yield source, place


def _exec_form(dockerfile: Path, keyword: str, value: str) -> tuple[str, ...]:
    try:
        words = json.loads(value)
    except json.JSONDecodeError:
        words = None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ConfigurationError(
            f'{dockerfile}: {keyword} {value[:80]} is not in exec form; write it as {keyword} ["python", "main.py"]'
        )
    return tuple(words)
