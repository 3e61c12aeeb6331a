"""Builds, pushes and saves the images of image folders, and records each build.

The calls of docker, podman and buildah are in ``builders``; the record of built images is in ``record``.
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
    """The image folders of a site, and the registry and tag suffix of their references.

    Attributes:
        images: the folder that holds the image folders.
        registry: registry and path before the image names, or "".
        suffix: appended to the version in tags, or "".
    """

    images: Path
    registry: str = ""
    suffix: str = ""

    def reference(self, name: str) -> str:
        """See ``references.reference_of``."""
        return reference_of(self.images, name, registry=self.registry, suffix=self.suffix)


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """Options of an image build.

    Attributes:
        base_image: value of the build argument BASE_IMAGE; "" keeps the default of the Dockerfile.
        force: builds without cache, even if the image is up to date.
        options: further options of the builder.
    """

    base_image: str = ""
    force: bool = False
    builder_options: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ImageState:
    """An image folder compared with the image that was built from it.

    Attributes:
        name: name of the folder.
        reference: image reference under the current settings; "" if the folder has a mistake.
        built: the recorded build of that reference; None if there is none.
        changed: whether the folder has changed since that build.
        problem: why the folder has no reference; "" if it has one.
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
    """Build the image of a folder unless it is up to date, and record it.

    An image whose folder and base images have not changed is not built again: its ID is part of the
    fingerprints of outputs.

    Args:
        name: name of the image folder.
        folders: the image folders and the naming of their images.
        builder: builds and stores the image.
        record: record of built images.
        options: options of the build.
        output: called with each line that the builder prints.

    Returns:
        The image, and whether this call built it.

    Raises:
        NotFound: there is no such image folder.
        ConfigurationError: the image cannot be built; the message says why.
        EngineUnavailable: the builder's image store does not answer.
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
        raise EngineUnavailable(
            f"{builder.name} built {reference}, but its store does not have it: is the store shared?"
        )
    built = BuiltImage(
        reference=reference,
        name=image.name,
        image_id=stored.image_id,
        content_digest=digest,
        built_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    return _recorded(record, built), needed


def push_image(name: str, *, folders: ImageFolders, builder: Builder, record: BuiltImages, insecure: bool) -> str:
    """Push a built image to the registry of its reference; returns its digest in the registry.

    Raises:
        ConfigurationError: the registry denies access.
        NotFound: the image was not built, or the builder's store no longer has the recorded image.
        EngineUnavailable: the registry cannot be reached.
    """
    reference = folders.reference(name)
    built, stored = record.find(reference), builder.find(reference)
    if built is None or stored is None or stored.image_id != built.image_id:
        what = "was not built" if built is None else f"is not in the store of {builder.name} as it was recorded"
        raise NotFound(f"image {name}: {reference} {what}: kaapana-assets images build {name}")
    digest = builder.push(reference, insecure=insecure)
    record.add_repo_digest(reference, digest)
    return digest


def save_image(image: BuiltImage, *, builder: Builder, folder: Path) -> Path:
    """Write a built image as a tar, as ``docker save`` does; returns its path.

    The file is written aside and then renamed, so a partial file never has this path.

    Raises:
        ConfigurationError: the folder is not writable.
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
    """The state of each image folder, from the record alone: no builder is called."""
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
    """Open the log of one image build; yields a function that writes a line to it.

    Args:
        name: name of the image folder.
        home: the log is in its ``logs/images``.
        shown: also called with each line.

    Raises:
        ConfigurationError: raised by the build; if the log has lines, the message also names the log.
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
            raise ConfigurationError(f"{exc}\nits full output: {file}") from exc
        finally:
            # A build that is skipped prints nothing; the log of the last real build stays.
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
            f"{base_image}: begin it with\n  ARG {_BASE_ARGUMENT}=<its base image>\n  FROM ${{{_BASE_ARGUMENT}}}"
        )
    return {_BASE_ARGUMENT: base_image}


def _base_image_ids(image: Image, arguments: Mapping[str, str], builder: Builder) -> str:
    """The IDs of the base images, separated by spaces; images that the store lacks are pulled."""
    found: list[StoredImage] = []
    for reference in base_images(image, arguments):
        stored = builder.find(reference)
        if stored is None:
            builder.pull(reference)
            stored = builder.find(reference)
        if stored is None:
            raise EngineUnavailable(f"{builder.name} pulled the base image {reference}, but its store does not have it")
        found.append(stored)
    return " ".join(each.image_id for each in found)


@contextmanager
def _build_inputs(image: Image) -> Iterator[tuple[Path, dict[str, Path]]]:
    """The build context and the build secrets, in a temporary folder.

    The context holds exactly the files of which the content digest is made.
    """
    with tempfile.TemporaryDirectory(prefix=f"build-{image.name}-") as folder:
        context, secrets = Path(folder, "context"), Path(folder, "secrets")
        secrets.mkdir()
        for file in image_files(image.folder):
            copy = context / file.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            with file.open() as source, copy.open("wb") as target:
                shutil.copyfileobj(source, target)
            # As in the digest: of the mode only the executable bit counts, times do not.
            copy.chmod(0o755 if file.is_executable else 0o644)
            os.utime(copy, (FILE_MTIME_S, FILE_MTIME_S))
        for below, _, _ in os.walk(context):
            Path(below).chmod(0o755)
        yield context, secret_files(secrets, os.environ)


def _recorded(record: BuiltImages, built: BuiltImage) -> BuiltImage:
    before = record.find(built.reference)
    if before is not None and before.image_id == built.image_id:
        # The same image: its build time and its digests in registries still hold.
        built = replace(before, content_digest=built.content_digest)
    if built != before:
        record.add(built)
    return built
