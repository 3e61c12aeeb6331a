"""``kaapana-assets images``: builds, shows, pushes and checks the images of operators."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kaapana_assets.cli.homes import settings_to_read
from kaapana_assets.errors import ConfigurationError, KaapanaAssetsError
from kaapana_assets.image_builds.builders import BUILDER_NAMES
from kaapana_assets.image_builds.dockerfile.findings import Severity
from kaapana_assets.operations.session import settings_to_write

if TYPE_CHECKING:
    from kaapana_assets.image_builds.build import ImageFolders, ImageState
    from kaapana_assets.image_builds.dockerfile.findings import DockerfileFinding
    from kaapana_assets.settings import Settings

_COLUMNS = ("NAME", "REFERENCE", "BUILT", "ID", "PUSHED", "FOLDER")
_builder_option = click.option(
    "--builder",
    "builder_name",
    type=click.Choice(BUILDER_NAMES),
    help="What builds. [the first of these that works here]",
)


@click.group()
def command() -> None:
    """Build the images of operators, show, push and check them."""


@command.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--base-image", metavar="REF", help="Build on this image. [KAAPANA_BASE_IMAGE, else the Dockerfile's]")
@_builder_option
@click.option(
    "--builder-option",
    "builder_options",
    multiple=True,
    metavar="OPTION",
    help="Hand this to the builder, too; repeatable.",
)
@click.option("--force", is_flag=True, help="Build from nothing, also what is there and has not changed.")
@click.option(
    "--save",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write each image as a tar into this folder, for machines without a registry.",
)
def build(
    names: tuple[str, ...],
    base_image: str | None,
    builder_name: str | None,
    builder_options: tuple[str, ...],
    force: bool,
    folder: Path | None,
) -> None:
    """Build the images of the folders NAME, of all if none is named.

    An image that is there is left as it is while its folder and its base image stay the same.
    """
    from kaapana_assets.image_builds.build import BuildOptions, build_image, build_log, save_image
    from kaapana_assets.image_builds.builders import checked_options, find_builder
    from kaapana_assets.image_builds.record import BuiltImages

    settings = settings_to_write()
    folders, record = _folders(settings), BuiltImages(settings.home)
    options = BuildOptions(
        base_image=settings.base_image if base_image is None else base_image,
        force=force,
        builder_options=checked_options(builder_options),
    )
    wanted = _wanted(settings, names)
    builder = find_builder(builder_name)
    click.echo(f"building with {builder.name}")

    def build_one(name: str) -> None:
        began = time.monotonic()
        with _progress(name) as show, build_log(name, home=settings.home, shown=show) as write:
            built, is_new = build_image(
                name, folders=folders, builder=builder, record=record, options=options, output=write
            )
        how = f"built in {time.monotonic() - began:.0f} s" if is_new else "has not changed"
        click.echo(f"{name}: {built.reference} {_short(built.image_id)}, {how}")
        if folder is not None:
            click.echo(f"{name}: {save_image(built, builder=builder, folder=folder)}")

    _each(wanted, build_one)


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list with everything.")
def list_images(as_json: bool) -> None:
    """Show which images were built here, and which folders have changed since."""
    from kaapana_assets.image_builds.build import image_states
    from kaapana_assets.image_builds.record import BuiltImages

    settings = settings_to_read()
    found = list(image_states(_wanted(settings, ()), folders=_folders(settings), record=BuiltImages(settings.home)))
    if as_json:
        click.echo(json.dumps([_as_json(state) for state in found], indent=1))
        return
    rows = [_COLUMNS, *(_row(state) for state in found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for state in found:
        if state.problem:
            click.echo(state.problem, err=True)


@command.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@_builder_option
@click.option("--insecure", is_flag=True, help="The registry has no TLS, or a certificate that is not trusted.")
def push(names: tuple[str, ...], builder_name: str | None, insecure: bool) -> None:
    """Push the images of the folders NAME, of all if none is named, to KAAPANA_IMAGE_REGISTRY.

    The builder has to be logged in there: docker login, podman login, buildah login.
    """
    from kaapana_assets.image_builds.build import push_image
    from kaapana_assets.image_builds.builders import find_builder
    from kaapana_assets.image_builds.record import BuiltImages

    settings = settings_to_read()
    if not settings.image_registry:
        raise ConfigurationError("KAAPANA_IMAGE_REGISTRY is not set: it says where images are pushed to")
    folders, record, wanted = _folders(settings), BuiltImages(settings.home), _wanted(settings, names)
    builder = find_builder(builder_name)

    def push_one(name: str) -> None:
        with _progress(name) as show:
            show("pushing")
            digest = push_image(name, folders=folders, builder=builder, record=record, insecure=insecure)
        click.echo(f"{name}: {folders.reference(name)} is {digest}")

    _each(wanted, push_one)


@command.command()
@click.argument("names", nargs=-1, metavar="[IMAGE]...")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list with everything.")
def check(names: tuple[str, ...], as_json: bool) -> None:
    """Show what the process runner does not do of the Dockerfiles of IMAGE, of all if none is named.

    Ends with exit code 1 if Docker could not build one of them either.
    """
    from kaapana_assets.containers.factory import base_requirements
    from kaapana_assets.image_builds.dockerfile_check import check_dockerfile
    from kaapana_assets.image_builds.folder import load_image
    from kaapana_assets.supervision.record import settings_in_use

    settings = settings_in_use()
    bases, rows = base_requirements(settings), []

    def check_one(name: str) -> None:
        found = check_dockerfile(load_image(settings.images, name), bases)
        rows.append({"name": name, "findings": [_finding_as_json(each) for each in found]})
        if not as_json:
            _show(name, found)
        if any(each.severity is Severity.ERROR for each in found):
            raise ConfigurationError("its Dockerfile cannot be built")

    try:
        _each(_wanted(settings, names), check_one)
    finally:
        if as_json:
            click.echo(json.dumps(rows, indent=1))


def _show(name: str, found: Sequence[DockerfileFinding]) -> None:
    needed = [each for each in found if each.severity is not Severity.HARMLESS]
    verdict = "runs as it is" if not needed else f"{len(needed)} of its instructions may be missed on this machine"
    click.echo(f"{name}: {verdict}")
    for finding in found:
        click.echo(f"  {finding.severity.value:<8}  {finding}")


def _finding_as_json(finding: DockerfileFinding) -> dict[str, object]:
    return {
        "line": finding.line or None,
        "instruction": finding.instruction,
        "weight": finding.severity.value,
        "reason": finding.reason,
    }


def _folders(settings: Settings) -> ImageFolders:
    from kaapana_assets.image_builds.build import ImageFolders

    return ImageFolders(images=settings.images, registry=settings.image_registry, suffix=settings.image_tag_suffix)


def _wanted(settings: Settings, names: tuple[str, ...]) -> tuple[str, ...]:
    from kaapana_assets.image_builds.folder import image_names, load_image

    # All names are checked before the first build.
    return tuple(load_image(settings.images, name).name for name in names) or image_names(settings.images)


def _each(names: tuple[str, ...], do: Callable[[str], None]) -> None:
    """Call the function for all names; if one failed, end with exit code 1 after the last."""
    failed = []
    for name in names:
        try:
            do(name)
        except KaapanaAssetsError as exc:
            failed.append(name)
            reason = str(exc).removeprefix(f"image {name}: ")
            click.echo(f"{name}: {reason}", err=True)
    if failed:
        if len(names) > 1:
            click.echo(f"failed: {', '.join(failed)}", err=True)
        sys.exit(1)


@contextmanager
def _progress(name: str) -> Iterator[Callable[[str], None]]:
    """Yield a function that shows the latest line of output, if the output is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from tqdm import tqdm

    with tqdm(desc=name, bar_format="{desc} {elapsed}{postfix}", leave=False, dynamic_ncols=True) as bar:

        def show(line: str) -> None:
            text = "".join(char for char in line if char.isprintable()).strip()
            if text:
                bar.set_postfix_str(text, refresh=True)

        yield show


def _row(state: ImageState) -> tuple[str, ...]:
    if state.built is None:
        return (state.name, state.reference or "-", "no", "-", "-", "has a mistake" if state.problem else "-")
    return (
        state.name,
        state.reference,
        datetime.fromisoformat(state.built.built_at).astimezone().strftime("%Y-%m-%d %H:%M"),
        _short(state.built.image_id),
        "yes" if state.built.repo_digests else "no",
        "changed since" if state.changed else "as built",
    )


def _as_json(state: ImageState) -> dict[str, object]:
    built = state.built
    return {
        "name": state.name,
        "reference": state.reference,
        "built_at": built.built_at if built else None,
        "image_id": built.image_id if built else None,
        "repo_digests": list(built.repo_digests) if built else [],
        "changed": state.changed,
        "problem": state.problem,
    }


def _short(image_id: str) -> str:
    return image_id.partition(":")[2][:12]
