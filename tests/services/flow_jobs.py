"""``python -m services.flow_jobs``: the development cluster made ready for a platform with pods as operators.

The chart in it, with the platform's home as its volume, and the images of ``images/``, built by
``kaapana-assets images build``. What a site does with a registry and its own cluster is done here
with tars. The settings that use it are written to a file; ``make demo RUNNER=kubernetes`` calls this.
"""

from __future__ import annotations

# ruff: noqa: T201 - a command
import json
import os
import subprocess
import sys
from pathlib import Path

from kaapana_assets.settings import load_settings
from services import images
from services.__main__ import HOME
from services.cluster import Cluster, CommandFailed
from services.service import Missing, run_build

PROJECT_ROOT = Path(__file__).resolve().parents[2]
CHART = PROJECT_ROOT / "helm" / "kaapana-assets"
SETTINGS = HOME / "flow-jobs.env"
_RELEASE, _NAMESPACE, _RELEASE_NAMESPACE = "kaapana-assets", "flow-jobs", "kaapana"
_VOLUME = f"{_NAMESPACE}-kaapana-home"


def main() -> int:
    try:
        cluster = Cluster(HOME / "kubernetes")
    except FileNotFoundError:
        print("there is no cluster: make cluster", file=sys.stderr)
        return 1
    home = load_settings().home
    home.mkdir(parents=True, exist_ok=True)
    try:
        install(cluster, home)
        tars = build_images(HOME / "containers", home=home)
        for tar in tars:
            cluster.load_image(tar)
    except Missing as exc:
        print(f"images can't be built, that needs {exc}", file=sys.stderr)
        return 1
    except CommandFailed as exc:
        print(exc, file=sys.stderr)
        return 1
    settings = settings_of(cluster)
    SETTINGS.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    print(f"{len(tars)} images are in the cluster; settings that use it: {SETTINGS}")
    return 0


def settings_of(cluster: Cluster) -> dict[str, str]:
    """The ``KAAPANA_*`` variables of a platform whose operators are pods of the cluster."""
    return {
        "KAAPANA_RUNNER": "kubernetes",
        "KAAPANA_KUBECONFIG": str(cluster.kubeconfig),
        "KAAPANA_KUBERNETES_NAMESPACE": _NAMESPACE,
    }


def install(cluster: Cluster, home: Path) -> None:
    """Put the chart into the cluster, in the place of one for another home."""
    try:
        volume = json.loads(cluster.kubectl("get", "persistentvolume", _VOLUME, "-o", "json"))
    except CommandFailed:
        volume = None
    if volume is not None and volume["spec"]["hostPath"]["path"] != str(home):
        cluster.helm("uninstall", _RELEASE, "--namespace", _RELEASE_NAMESPACE, "--wait")
    options = [f"--set=home.hostPath={home}", "--set=home.keep=false", f"--set=flowJobs.namespace={_NAMESPACE}"]
    place = ["--namespace", _RELEASE_NAMESPACE, "--create-namespace", "--wait"]
    cluster.helm("upgrade", "--install", _RELEASE, CHART, *place, *options)
    print(f"operators run in the namespace {_NAMESPACE}, on {home}")


def build_images(folder: Path, *, home: Path, names: tuple[str, ...] = ()) -> list[Path]:
    """The tars of the images of ``images/``, built with buildah as a user builds them.

    Args:
        folder: for buildah's own files and the tars.
        home: the platform's, in which what was built is recorded.
        names: of image folders; all if none is named.

    Raises:
        Missing: buildah or the base image is missing, or a build fails.
    """
    environment = buildah_environment(folder)
    run_build(["buildah", "pull", "--quiet", f"docker-archive:{images.base()}"], folder=folder, **environment)
    saved = folder / "images"
    build = [sys.executable, "-m", "kaapana_assets", "images", "build", "--builder", "buildah"]
    # Its progress is for whoever waits here.
    done = subprocess.run(
        [*build, "--base-image", images.BASE_IMAGE, "--save", str(saved), *names], check=False,
        env={**os.environ, **environment, "KAAPANA_HOME": str(home)}, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode != 0:
        raise Missing(f"images that can be built; `kaapana-assets images build` ended with {done.returncode}")
    return sorted(saved.glob("*.tar"))


def buildah_environment(folder: Path) -> dict[str, str]:
    """Variables with which buildah works as root on this machine, apart from what the machine's own has."""
    folder.mkdir(parents=True, exist_ok=True)
    folder = folder.absolute()
    storage = folder / "storage.conf"
    storage.write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{folder / "storage"}"\nrunroot = "{folder / "run"}"\n'
    )
    return {"CONTAINERS_STORAGE_CONF": str(storage), "BUILDAH_ISOLATION": "chroot"}


if __name__ == "__main__":
    sys.exit(main())
