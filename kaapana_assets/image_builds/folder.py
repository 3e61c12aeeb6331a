"""An image folder, ``images/<name>/{Dockerfile,files/,requirements.txt}``, and what its Dockerfile says.

Reads what the process runner and the image reference need. Images are built in ``build``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from kaapana_assets.dicom.identifiers import checked_name
from kaapana_assets.errors import ConfigurationError, NotFound
from kaapana_assets.image_builds.dockerfile.findings import Severity
from kaapana_assets.image_builds.dockerfile.instructions import Dockerfile, parse
from kaapana_assets.image_builds.dockerfile.run_instruction import apply_run
from kaapana_assets.image_builds.dockerfile.stages import BuildStage, Packages, last_stage
from kaapana_assets.image_builds.dockerfile.tree import Content, Tree
from kaapana_assets.image_builds.dockerfile.variables import expand
from kaapana_assets.image_builds.files import context_files, find_text, image_files
from kaapana_assets.image_builds.requirement_lines import check_requirements


@dataclass(frozen=True)
class Image:
    """An image folder, with its Dockerfile read on demand."""

    name: str
    folder: Path

    @cached_property
    def dockerfile(self) -> Dockerfile:
        """The instructions of its Dockerfile.

        Raises:
            ConfigurationError: the Dockerfile is gone or has a syntax error.
        """
        text = find_text(self.folder, "Dockerfile")
        if text is None:
            raise ConfigurationError(f"image {self.name}: {self.folder / 'Dockerfile'} is gone")
        return parse(text)

    @cached_property
    def stage(self) -> BuildStage:
        """The final stage of its Dockerfile, with the defaults of build arguments.

        Raises:
            ConfigurationError: the Dockerfile cannot be read, or an instruction is wrong.
        """
        try:
            return last_stage(self.dockerfile, _context(self.folder), apply_run)
        except ConfigurationError as exc:
            raise ConfigurationError(f"image {self.name}: {self.folder / 'Dockerfile'} {exc}") from exc

    def packages(self) -> tuple[Packages, ...]:
        """The installations of Python packages that the image needs, in order.

        The requirements.txt of the folder comes first unless the Dockerfile installs it itself.

        Raises:
            ConfigurationError: a requirement names a file outside of the image.
        """
        installs, own = self.stage.installs, None
        if self.folder / "requirements.txt" not in self.stage.requirement_files:
            own = find_text(self.folder, "requirements.txt")
        if own is not None:
            installs = (Packages(lines=tuple(own.splitlines())), *installs)
        for each in installs:
            check_requirements(each, name=self.name)
        return installs

    def start_arguments(self, command: tuple[str, ...] | None) -> tuple[str, ...]:
        """The program and arguments that start the container, with paths of the container.

        Args:
            command: replaces ENTRYPOINT and CMD; None keeps those of the Dockerfile.

        Raises:
            ConfigurationError: the Dockerfile has neither ENTRYPOINT nor CMD, or Docker could not build it.
        """
        wrong = [finding for finding in self.stage.findings if finding.severity is Severity.ERROR]
        if wrong:
            raise ConfigurationError(f"image {self.name}: {self.folder / 'Dockerfile'} {wrong[0]}")
        arguments = command or (*self.stage.entrypoint, *self.stage.cmd)
        if not arguments:
            raise ConfigurationError(f"image {self.name}: {self.folder / 'Dockerfile'} has no ENTRYPOINT and no CMD")
        return tuple(arguments)


def load_image(images: Path, reference: str) -> Image:
    """The image folder named by the last path component of a reference, without tag and digest.

    Raises:
        NotFound: there is no such folder, or it has no Dockerfile.
        InvalidIdentifier: that component is not a valid name.
        ConfigurationError: the folder is a link.
    """
    name = checked_name(reference.partition("@")[0].rsplit("/", 1)[-1].partition(":")[0], kind="image")
    folder = images / name
    if folder.is_symlink():
        raise ConfigurationError(
            f"image {reference!r}: {folder} is a link; put the image folder itself there, or set KAAPANA_IMAGES to the "
            "folder that holds it"
        )
    if not (folder / "Dockerfile").is_file():
        raise NotFound(
            f"image {reference!r}: {folder} is not a folder with a Dockerfile; the process runner and `images "
            "build` use only the image folders below KAAPANA_IMAGES and pull nothing"
        )
    return Image(name=name, folder=folder)


def image_names(images: Path) -> tuple[str, ...]:
    """The names of all image folders, sorted.

    Raises:
        NotFound: KAAPANA_IMAGES is not a folder.
    """
    if not images.is_dir():
        raise NotFound(f"KAAPANA_IMAGES={images} is not a folder")
    return tuple(sorted(folder.name for folder in images.iterdir() if (folder / "Dockerfile").is_file()))


def base_images(image: Image, arguments: Mapping[str, str]) -> tuple[str, ...]:
    """The references of all base images of its Dockerfile, each once, in order.

    Args:
        image: the image folder.
        arguments: build arguments; they override the defaults of the Dockerfile.
    """
    known, stages, found = dict[str, str](), {"scratch"}, dict[str, None]()
    for instruction in image.dockerfile.instructions:
        if instruction.keyword == "ARG" and not found:
            key, _, default = instruction.value.partition("=")
            known[key] = arguments.get(key, expand(default, known, escape=image.dockerfile.escape))
        elif instruction.keyword == "FROM":
            reference, *name = expand(instruction.value, known, escape=image.dockerfile.escape).split() or [""]
            if reference and reference.lower() not in stages:
                found[reference] = None
            stages.update(word.lower() for word in name[1:])
    return tuple(found)


def has_build_argument(image: Image, name: str) -> bool:
    """Whether its Dockerfile declares a build argument of that name."""
    arguments = (each.value for each in image.dockerfile.instructions if each.keyword == "ARG")
    return any(word.partition("=")[0] == name for value in arguments for word in value.split())


def content_digest(image: Image) -> str:
    """The digest of an image folder, ``sha256:<hex>``, over the path, executable bit and content of each file.

    Raises:
        ConfigurationError: the folder holds a link or a special file.
    """
    digest = hashlib.sha256()
    for file in image_files(image.folder):
        digest.update(json.dumps([file.name, file.is_executable, file.status.st_size]).encode())
        with file.open() as content:
            while piece := content.read(1 << 20):
                digest.update(piece)
    return f"sha256:{digest.hexdigest()}"


def _context(folder: Path) -> Tree:
    """The files of the build context as a tree."""
    tree = Tree()
    for file in context_files(folder):
        tree.add_file(f"/{file.name}", Content(file=file))
    return tree
