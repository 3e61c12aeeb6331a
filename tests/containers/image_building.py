"""What tests of images need: image folders of their own, the command, and a store that is gone afterwards."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kaapana_assets.home import make_home
from kaapana_assets.settings import PROJECT_ROOT


@dataclass
class Site:
    """A folder of image folders, a home, and the settings with which the command is called."""

    images: Path
    home: Path
    variables: dict[str, str] = field(default_factory=dict)

    @classmethod
    def at(cls, folder: Path, names: Sequence[str]) -> Site:
        images = folder / "images"
        images.mkdir()
        for name in names:
            shutil.copytree(PROJECT_ROOT / "images" / name, images / name)
        make_home(folder / "home")
        return cls(images, folder / "home")

    def call(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("KAAPANA_")}
        environment |= {"KAAPANA_HOME": str(self.home), "KAAPANA_IMAGES": str(self.images)}
        return subprocess.run(
            [sys.executable, "-m", "kaapana_assets", "images", *arguments],
            env=environment | self.variables | variables,
            cwd=self.images.parent,
            capture_output=True,
            text=True,
            check=False,
        )

    def states(self, **variables: str) -> dict[str, dict[str, object]]:
        done = self.call("list", "--json", **variables)
        assert done.returncode == 0, done.stderr
        return {each["name"]: each for each in json.loads(done.stdout)}


@dataclass
class Store:
    """A store of podman and buildah in a folder; builds in it need no rights over containers."""

    folder: Path

    @property
    def variables(self) -> dict[str, str]:
        return {"CONTAINERS_STORAGE_CONF": str(self.folder / "storage.conf"), "BUILDAH_ISOLATION": "chroot"}

    def create(self) -> None:
        self.folder.mkdir(parents=True)
        # Another driver than overlay copies the base for each layer; it is what there is without root.
        driver = "overlay" if os.geteuid() == 0 else "vfs"
        (self.folder / "storage.conf").write_text(
            f'[storage]\ndriver = "{driver}"\n'
            f'graphroot = "{self.folder / "graph"}"\nrunroot = "{self.folder / "run"}"\n'
            '[storage.options.overlay]\nskip_mount_home = "true"\n'
        )

    def remove(self) -> None:
        self.buildah("rm", "--all")
        self.buildah("rmi", "--all", "--force")
        shutil.rmtree(self.folder)

    def buildah(self, *arguments: str | Path) -> str:
        return self.output("buildah", *arguments)

    def output(self, *command: str | Path, extra: Mapping[str, str] | None = None) -> str:
        done = subprocess.run(
            [str(part) for part in command],
            env=os.environ | self.variables | dict(extra or {}),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout.strip()

    def configuration(self, reference: str) -> dict[str, object]:
        """The image's configuration, as OCI has it, with its ID."""
        found = json.loads(self.buildah("inspect", "--type=image", reference))
        return found["OCIv1"] | {"id": f"sha256:{found['FromImageID']}"}
