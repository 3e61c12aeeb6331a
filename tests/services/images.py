"""Images of containers, made from Debian's packages and PyPI without a registry.

Each is a tar that ``docker load``, ``ctr images import`` and ``Cluster.load_image`` take. Here are the
base on which the folders of ``images/`` are built, and builds that install nothing; what an image does is
not here.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
import tempfile
from pathlib import Path

from services.go import build_go, digest
from services.kubernetes_cluster import SOURCES
from services.kubernetes_cluster.configuration import PAUSE_IMAGE
from services.service import Missing, cached, run_build

BASE_IMAGE = "localhost/kaapana-base:1"
_RELEASE = "bookworm"
_PACKAGES = "python3,python3-pip,ca-certificates,bash,libstdc++6"  # the last one is for wheels, as in python:3-slim
_NOT_UNPACKED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
_AT_LAST = (
    # pip may install into the image's own Python, as it may in the images that are named python.
    'rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED',
    'ln -s python3 "$1"/usr/bin/python',
    # What is essential uses the modules of perl-base, which stay.
    'rm -rf "$1"/usr/share/perl/5* "$1"/usr/lib/*/perl "$1"/usr/lib/*/libperl.so*',
)
_ENVIRONMENT = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONUNBUFFERED=1"]
# One entry for a layer: builders that keep their steps refuse a base without.
_HISTORY = [{"created_by": "mmdebstrap"}]


def pause() -> Path:
    """What holds the namespaces of a pod."""
    return cached(f"image-pause-{digest(SOURCES / 'pause')}", _make_pause) / "image.tar"


def base() -> Path:
    """Debian with ``python``, ``pip`` and ``bash``: the image ``localhost/kaapana-base:1``.

    Raises:
        Missing: mmdebstrap is missing, or can't make it.
    """
    recipe = hashlib.sha256(repr((_RELEASE, _PACKAGES, _NOT_UNPACKED, _AT_LAST, _ENVIRONMENT, _HISTORY)).encode())
    return cached(f"image-base-{recipe.hexdigest()[:12]}", _make_base) / "image.tar"


def built(folder: Path, tag: str) -> Path:
    """The image of a folder with a Dockerfile that begins with ``FROM ${BASE_IMAGE}``, on ours.

    It may install nothing: ``kaapana-assets images build`` lends builds the settings of package indexes.

    Raises:
        Missing: buildah is missing, or can't build it.
    """
    below = base()
    content = hashlib.sha256(f"{tag} {below.parent.name} {digest(folder)}".encode())
    name = f"image-{folder.name}-{content.hexdigest()[:12]}"
    return cached(name, lambda into: _build(folder, tag, below, into / "image.tar"), quick=True) / "image.tar"


def archive(path: Path, *, tag: str, layer: Path, config: dict[str, object]) -> None:
    """Write an image of one layer as ``docker save`` would."""
    hashed = hashlib.sha256()
    with layer.open("rb") as content:
        while piece := content.read(1 << 20):
            hashed.update(piece)
    layer_digest = hashed.hexdigest()
    description = {
        "architecture": "amd64",
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_digest}"]},
        "history": _HISTORY,
    }
    written = json.dumps(description).encode()
    config_name = f"{hashlib.sha256(written).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [tag], "Layers": [f"{layer_digest}.tar"]}]
    with tarfile.open(path, "w") as tar:
        for name, data in ((config_name, written), ("manifest.json", json.dumps(manifest).encode())):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        tar.add(layer, arcname=f"{layer_digest}.tar")


def _make_pause(into: Path) -> None:
    build_go(SOURCES / "pause", into)
    layer = into / "layer.tar"
    with tarfile.open(layer, "w") as tar:
        tar.add(into / "pause", arcname="pause")
    archive(into / "image.tar", tag=PAUSE_IMAGE, layer=layer, config={"Entrypoint": ["/pause"]})
    layer.unlink()


def _make_base(into: Path) -> None:
    layer = into / "layer.tar"
    make = ["nice", "mmdebstrap", "--mode=root", "--variant=essential", f"--include={_PACKAGES}"]
    make += [f"--dpkgopt=path-exclude={pattern}" for pattern in _NOT_UNPACKED]
    make += [f"--customize-hook={hook}" for hook in _AT_LAST]
    make += ["--aptopt=Apt::Install-Recommends false", _RELEASE, str(layer)]
    if shutil.which("mmdebstrap") is None:
        raise Missing("the program mmdebstrap (Debian package mmdebstrap)")
    run_build(make, folder=into)
    config: dict[str, object] = {"Cmd": ["bash"], "Env": _ENVIRONMENT}
    archive(into / "image.tar", tag=BASE_IMAGE, layer=layer, config=config)
    layer.unlink()


def _build(folder: Path, tag: str, below: Path, into: Path) -> None:
    if shutil.which("buildah") is None:
        raise Missing("the program buildah (Debian package buildah)")
    with tempfile.TemporaryDirectory(dir=into.parent) as own:
        scratch = Path(own)
        # Nothing of it is in, or comes from, what the machine's own buildah keeps.
        buildah = ["nice", "buildah", f"--root={scratch / 'root'}", f"--runroot={scratch / 'run'}"]
        run_build([*buildah, "pull", "--quiet", f"docker-archive:{below}"], folder=scratch)
        build = [*buildah, "bud", "--quiet", "--isolation=chroot", "--network=host", "--pull-never", f"--tag={tag}"]
        build += [f"--build-arg=BASE_IMAGE={BASE_IMAGE}", str(folder)]
        run_build(build, folder=scratch)
        run_build([*buildah, "push", "--quiet", tag, f"docker-archive:{into}:{tag}"], folder=scratch)
        run_build([*buildah, "rmi", "--all", "--force"], folder=scratch)
