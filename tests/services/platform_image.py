"""The platform's own image, built as its Dockerfile says, on the base image of tests.

``python -m services.platform_image`` gives it to the development cluster. What pip installs is a layer
that is kept in the cache of services: it takes minutes, a build after a change of the sources seconds.
"""

from __future__ import annotations

# ruff: noqa: T201 - a command
import fcntl
import hashlib
import os
import sys
import tempfile
from pathlib import Path

from kaapana_assets.image_builds.builders import FILE_MTIME_S
from kaapana_assets.image_builds.package_index import secret_files
from services import images
from services.__main__ import HOME
from services.cluster import Cluster
from services.flow_jobs import buildah_environment
from services.service import CACHE, Missing, run_build

IMAGE = "localhost/kaapana-assets:0.1.0"
PROJECT_ROOT = Path(__file__).resolve().parents[2]
_PACKAGES_FROM = ("Dockerfile", "requirements.txt")


def load_into(cluster: Cluster) -> None:
    """Give the cluster the image ``IMAGE`` of this checkout.

    Raises:
        Missing: buildah is missing or can't build it, or its packages may not be fetched now.
    """
    store = CACHE / "platform-image"
    store.mkdir(parents=True, exist_ok=True)
    with (store / "lock").open("w") as lock, tempfile.TemporaryDirectory(dir=store) as scratch:
        fcntl.flock(lock, fcntl.LOCK_EX)
        tar = Path(scratch, "image.tar")
        _build(store, Path(scratch), tar)
        cluster.load_image(tar)


def _build(store: Path, scratch: Path, into: Path) -> None:
    base = images.base()
    packages = hashlib.sha256(base.parent.name.encode())
    for name in _PACKAGES_FROM:
        packages.update((PROJECT_ROOT / name).read_bytes())
    has = store / f"packages-{packages.hexdigest()[:12]}"
    if not has.exists() and os.environ.get("KAAPANA_SERVICES_BUILD", "1") == "0":
        raise Missing("a build of the platform's image: `python -m services.platform_image` makes it, in some minutes")
    environment = buildah_environment(store)
    if not has.exists():
        # Layers of other packages are of no use any more, and large.
        run_build(["buildah", "rmi", "--all", "--force"], folder=store, **environment)
        for old in store.glob("packages-*"):
            old.unlink()
        run_build(["buildah", "pull", "--quiet", f"docker-archive:{base}"], folder=store, **environment)
    lent = [f"--secret=id={name},src={file}" for name, file in secret_files(scratch, os.environ).items()]
    build = ["nice", "buildah", "bud", "--quiet", "--layers=true", f"--timestamp={FILE_MTIME_S}", "--pull-never"]
    build += ["--network=host", "--identity-label=false", f"--build-arg=BASE_IMAGE={images.BASE_IMAGE}"]
    run_build([*build, *lent, f"--tag={IMAGE}", str(PROJECT_ROOT)], folder=store, **environment)
    has.touch()
    run_build(["buildah", "push", "--quiet", IMAGE, f"docker-archive:{into}:{IMAGE}"], folder=store, **environment)


def main() -> int:
    try:
        load_into(Cluster(HOME / "kubernetes"))
    except FileNotFoundError:
        print("there is no cluster: make cluster", file=sys.stderr)
        return 1
    except Missing as exc:
        print(f"the platform's image can't be built, that needs {exc}", file=sys.stderr)
        return 1
    print(f"the cluster has {IMAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
