"""From image folders to images: what has to be built, how it is labelled, and what is written down.

How a program is called is in ``builders``; which content stands behind a reference is kept in
``built_images``.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from kaapana_assets.errors import ConfigurationError, EngineUnavailable, KaapanaAssetsError, NotFound
from kaapana_assets.home_paths import HomePaths
from kaapana_assets.image_builds.builders import FILE_MTIME_S
from kaapana_assets.image_builds.files import image_files
from kaapana_assets.image_builds.folder import (
    Image,
    base_images,
    content_digest,
    has_build_argument,
    load_image,
)
from kaapana_assets.image_builds.package_index import secret_files
from kaapana_assets.image_builds.protocol import Build, Builder, StoredImage
from kaapana_assets.image_builds.record import BuiltImage, BuiltImages
from kaapana_assets.image_builds.references import reference_of

CONTENT_LABEL = "kaapana-assets.content-digest"
BASES_LABEL = "kaapana-assets.base-images"
_BASE_ARGUMENT = "BASE_IMAGE"


@dataclass(frozen=True, kw_only=True)
class ImageFolders:
    """Which images, and how they are named.

    Attributes:
        images: folder of image folders.
        registry: registry and path before names, or "".
        suffix: what follows versions in tags, or "".
    """

    images: Path
    registry: str = ""
    suffix: str = ""

    def reference(self, name: str) -> str:
        """See ``references.reference_of``."""
        return reference_of(self.images, name, registry=self.registry, suffix=self.suffix)


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """How images are to be built.

    Attributes:
        base_image: instead of the default of the Dockerfile's BASE_IMAGE; "" takes that.
        force: builds also what is there, from nothing.
        options: further options of the builder.
    """

    base_image: str = ""
    force: bool = False
    builder_options: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ImageState:
    """An image folder and what became of it.

    Attributes:
        name: of the folder.
        reference: of its image as the settings are now; "" if it has none.
        built: what was built under that reference.
        changed: whether the folder is another one than what was built.
        problem: why it has no reference.
    """

    name: str
    reference: str = ""
    built: BuiltImage | None = None
    changed: bool = False
    problem: str = ""


def build_image(
    name: str,
    *,
    folders: ImageFolders,
    builder: Builder,
    record: BuiltImages,
    options: BuildOptions,
    output: Callable[[str], None],
) -> tuple[BuiltImage, bool]:
    """The image of a folder and whether it was built now; written down in any case.

    An image whose folder and base images are the same is left as it is: its ID is in fingerprints.

    Args:
        name: of the image folder.
        folders: where it is and what it will be called.
        builder: builds and keeps it.
        record: where it is written down.
        options: how it is to be built.
        output: called with each line that the builder prints.

    Raises:
        NotFound: there is no such image folder.
        ConfigurationError: it cannot be built; the message says why.
        EngineUnavailable: the builder's store cannot be asked.
    """
    image, reference = load_image(folders.images, name), folders.reference(name)
    arguments = _build_arguments(image, options.base_image)
    digest = content_digest(image)
    labels = {CONTENT_LABEL: digest, BASES_LABEL: _base_image_ids(image, arguments, builder)}
    stored = builder.find(reference)
    needed = options.force or stored is None or any(stored.labels.get(label) != labels[label] for label in labels)
    if needed:
        with _build_inputs(image) as (context, secrets):
            build = Build(
                reference=reference,
                context=context,
                arguments=arguments,
                labels=labels,
                secrets=secrets,
                options=options.builder_options,
                no_cache=options.force,
            )
            builder.build(build, output=output)
        stored = builder.find(reference)
    if stored is None:
        raise EngineUnavailable(f"{builder.name} built {reference} and does not have it: is its store shared?")
    built = BuiltImage(
        reference=reference,
        name=image.name,
        image_id=stored.image_id,
        content_digest=digest,
        built_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    return _recorded(record, built), needed


def push_image(name: str, *, folders: ImageFolders, builder: Builder, record: BuiltImages, insecure: bool) -> str:
    """Send a built image to the registry of its reference; gives the digest that it has there.

    Raises:
        ConfigurationError: the registry does not let this user in.
        NotFound: the image was not built, or the builder does not have what was built.
        EngineUnavailable: the registry cannot be reached.
    """
    reference = folders.reference(name)
    built, stored = record.find(reference), builder.find(reference)
    if built is None or stored is None or stored.image_id != built.image_id:
        what = "was not built" if built is None else f"is not in the store of {builder.name} as it was built"
        raise NotFound(f"image {name}: {reference} {what}: kaapana-assets images build {name}")
    digest = builder.push(reference, insecure=insecure)
    record.add_repo_digest(reference, digest)
    return digest


def save_image(image: BuiltImage, *, builder: Builder, folder: Path) -> Path:
    """The file of a built image in a folder, as ``docker save`` writes it; whole or absent.

    Raises:
        ConfigurationError: the folder cannot be written.
        EngineUnavailable: the builder cannot write the file.
    """
    file = folder.absolute() / f"{image.reference.rpartition('/')[2].replace(':', '-')}.tar"
    staged = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        builder.save(image.reference, staged)
        staged.replace(file)
    except OSError as exc:
        raise ConfigurationError(f"images cannot be written to {folder}: {exc.strerror}") from exc
    finally:
        staged.unlink(missing_ok=True)
    return file


def image_states(names: tuple[str, ...], *, folders: ImageFolders, record: BuiltImages) -> Iterator[ImageState]:
    """What became of each image folder; none is built or asked for."""
    known = record.all()
    for name in names:
        try:
            reference = folders.reference(name)
            digest = content_digest(load_image(folders.images, name))
        except KaapanaAssetsError as exc:
            yield ImageState(name=name, problem=str(exc))
            continue
        built = known.get(reference)
        changed = built is not None and built.content_digest != digest
        yield ImageState(name=name, reference=reference, built=built, changed=changed)


@contextmanager
def build_log(name: str, *, home: Path, shown: Callable[[str], None]) -> Iterator[Callable[[str], None]]:
    """A function that takes each line that the builder prints of one image and keeps it in a file.

    Args:
        name: of the image folder.
        home: the file is in its ``logs/images``.
        shown: called with each line, too.

    Raises:
        ConfigurationError: what happened inside; after a build it names the file.
    """
    file = HomePaths(home).log(f"images/{name}")
    file.parent.mkdir(parents=True, exist_ok=True)
    staged = file.with_name(f".{file.name}.{os.getpid()}")
    with staged.open("w", encoding="utf-8") as log:

        def write(line: str) -> None:
            log.write(f"{line}\n")
            log.flush()
            shown(line)

        try:
            yield write
        except ConfigurationError as exc:
            if not log.tell():
                raise
            raise ConfigurationError(f"{exc}\nall that it said: {file}") from exc
        finally:
            # What is left as it is says nothing; the log of its build stays.
            if log.tell():
                staged.replace(file)
            else:
                staged.unlink()


def _build_arguments(image: Image, base_image: str) -> dict[str, str]:
    if not base_image:
        return {}
    if not has_build_argument(image, _BASE_ARGUMENT):
        raise ConfigurationError(
            f"image {image.name}: {image.folder / 'Dockerfile'} has no ARG {_BASE_ARGUMENT}, so it can't be built on "
            f"{base_image}: let it begin with\n  ARG {_BASE_ARGUMENT}=<its base image>\n  FROM ${{{_BASE_ARGUMENT}}}"
        )
    return {_BASE_ARGUMENT: base_image}


def _base_image_ids(image: Image, arguments: Mapping[str, str], builder: Builder) -> str:
    """The IDs of the images that its Dockerfile begins with, fetched if they are not there."""
    found: list[StoredImage] = []
    for reference in base_images(image, arguments):
        stored = builder.find(reference)
        if stored is None:
            builder.pull(reference)
            stored = builder.find(reference)
        if stored is None:
            raise EngineUnavailable(f"{builder.name} fetched the base image {reference} and does not have it")
        found.append(stored)
    return " ".join(each.image_id for each in found)


@contextmanager
def _build_inputs(image: Image) -> Iterator[tuple[Path, dict[str, Path]]]:
    """What a build gets: exactly the files that the content digest speaks of, and the secrets of the site."""
    with tempfile.TemporaryDirectory(prefix=f"build-{image.name}-") as folder:
        context, secrets = Path(folder, "context"), Path(folder, "secrets")
        secrets.mkdir()
        for file in image_files(image.folder):
            copy = context / file.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            with file.open() as source, copy.open("wb") as target:
                shutil.copyfileobj(source, target)
            # As the digest does: of the mode only whether it can be executed, of the times nothing.
            copy.chmod(0o755 if file.is_executable else 0o644)
            os.utime(copy, (FILE_MTIME_S, FILE_MTIME_S))
        for below, _, _ in os.walk(context):
            Path(below).chmod(0o755)
        yield context, secret_files(secrets, os.environ)


def _recorded(record: BuiltImages, built: BuiltImage) -> BuiltImage:
    before = record.find(built.reference)
    if before is not None and before.image_id == built.image_id:
        # The same image: when it was made, and where it was pushed to, stay true.
        built = replace(before, content_digest=built.content_digest)
    if built != before:
        record.add(built)
    return built
