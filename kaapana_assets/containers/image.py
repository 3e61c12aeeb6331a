"""An image folder, ``images/<name>/{Dockerfile,files/,requirements.txt}``: what its Dockerfile says.

Only what is needed to run it as a process and to name the image: this builds no images.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from kaapana_assets.containers.dockerfile.findings import Weight
from kaapana_assets.containers.dockerfile.instructions import Dockerfile, parse
from kaapana_assets.containers.dockerfile.runs import run
from kaapana_assets.containers.dockerfile.stages import Packages, Stage, last_stage
from kaapana_assets.containers.dockerfile.tree import Content, Tree
from kaapana_assets.containers.dockerfile.variables import expanded
from kaapana_assets.dicom.identifiers import checked_name
from kaapana_assets.errors import ConfigurationError, NotFound

_NOT_CONTENT = {"__pycache__", ".git", ".mypy_cache", ".ruff_cache", ".pytest_cache"}


@dataclass(frozen=True)
class Image:
    """An image folder and how its container starts."""

    name: str
    folder: Path

    @cached_property
    def dockerfile(self) -> Dockerfile:
        """The instructions of its Dockerfile.

        Raises:
            ConfigurationError: they cannot be read.
        """
        return parse((self.folder / "Dockerfile").read_text(encoding="utf-8"))

    @cached_property
    def stage(self) -> Stage:
        """What its Dockerfile makes of it, by the defaults of build arguments.

        Raises:
            ConfigurationError: the Dockerfile cannot be read.
        """
        try:
            return last_stage(self.dockerfile, _context(self.folder), run)
        except ConfigurationError as exc:
            raise ConfigurationError(f"image {self.name}: {self.folder / 'Dockerfile'} {exc}") from exc

    def packages(self) -> tuple[Packages, ...]:
        """The installations of Python packages: those of its Dockerfile, and requirements.txt if they leave it out."""
        own = self.folder / "requirements.txt"
        if not own.is_file() or own in self.stage.requirement_files:
            return self.stage.installs
        lines = own.read_text(encoding="utf-8", errors="replace").splitlines()
        return (Packages(lines=tuple(lines)), *self.stage.installs)

    def start(self, command: tuple[str, ...] | None) -> tuple[str, ...]:
        """The arguments of a start, as they are in the container.

        Args:
            command: replaces ENTRYPOINT and CMD; None starts the image as built.

        Raises:
            ConfigurationError: the Dockerfile has neither ENTRYPOINT nor CMD, or could not be built.
        """
        wrong = [finding for finding in self.stage.findings if finding.weight is Weight.ERROR]
        if wrong:
            raise ConfigurationError(f"image {self.name}: {self.folder / 'Dockerfile'} {wrong[0]}")
        arguments = command or (*self.stage.entrypoint, *self.stage.cmd)
        if not arguments:
            raise ConfigurationError(f"image {self.name}: {self.folder / 'Dockerfile'} has no ENTRYPOINT and no CMD")
        return tuple(arguments)


def load_image(images: Path, reference: str) -> Image:
    """The image folder that a reference names: its last path component, without tag and digest.

    Raises:
        NotFound: there is no such folder, or it has no Dockerfile.
        InvalidIdentifier: the last component of the reference is no valid name.
        ConfigurationError: its Dockerfile cannot be understood.
    """
    name = checked_name(reference.partition("@")[0].rsplit("/", 1)[-1].partition(":")[0], kind="image")
    folder = images / name
    if not (folder / "Dockerfile").is_file():
        raise NotFound(
            f"image {reference!r}: {folder} is not a folder with a Dockerfile; the process runner and `images "
            "build` take the image folders below KAAPANA_IMAGES and pull nothing"
        )
    return Image(name=name, folder=folder)


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
    for instruction in image.dockerfile.instructions:
        if instruction.keyword == "ARG" and not found:
            key, _, default = instruction.value.partition("=")
            known[key] = arguments.get(key, expanded(default, known, escape=image.dockerfile.escape))
        elif instruction.keyword == "FROM":
            reference, *name = expanded(instruction.value, known, escape=image.dockerfile.escape).split() or [""]
            if reference and reference.lower() not in stages:
                found[reference] = None
            stages.update(word.lower() for word in name[1:])
    return tuple(found)


def takes_argument(image: Image, name: str) -> bool:
    """Whether its Dockerfile has a build argument of that name."""
    arguments = (each.value for each in image.dockerfile.instructions if each.keyword == "ARG")
    return any(word.partition("=")[0] == name for value in arguments for word in value.split())


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


def _context(folder: Path) -> Tree:
    """The files that a build may copy: all but those that .dockerignore names."""
    tree, kept = Tree(), _kept(folder)
    for path, _ in content(folder):
        name = path.relative_to(folder).as_posix()
        if kept is None or name in kept:
            tree.add_file(f"/{name}", Content(path=path))
    return tree


def _kept(folder: Path) -> set[str] | None:
    """The paths that .dockerignore leaves; None where there is none."""
    named = next((file for file in ("Dockerfile.dockerignore", ".dockerignore") if (folder / file).is_file()), None)
    if named is None:
        return None
    from docker.utils.build import exclude_paths  # Docker's own rules; slow to import

    lines = (folder / named).read_text(encoding="utf-8").splitlines()
    patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return set(exclude_paths(str(folder), patterns))
