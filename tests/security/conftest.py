"""A platform in a temporary folder whose Dagster keeps its storage below the home, as ``dagster dev`` does."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest
from system.conftest import platforms  # noqa: F401 - a fixture
from workflows.conftest import Place
from workflows.platform import CHAIN, POOL, Platform


@dataclass
class Site:
    """The folders of a platform, and the way to its Dagster."""

    place: Place

    @contextmanager
    def opened(self) -> Iterator[Platform]:
        with dg.DagsterInstance.get() as instance:
            yield Platform(self.place, instance)

    def clear(self) -> None:
        shutil.rmtree(self.place.home, ignore_errors=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Iterator[Site]:
    """A new home for a file of tests, with a workflow and its images."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "images").mkdir()
    made = Site(Place(folder / "home", folder / "images", folder / "environments"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KAAPANA_HOME", str(made.place.home))
        patch.setenv("KAAPANA_IMAGES", str(made.place.images))
        patch.setenv("KAAPANA_ENVIRONMENTS", str(made.place.environments))
        patch.setenv("DAGSTER_HOME", str(made.place.home / "dagster"))
        for name in ("copy", "last"):
            made.place.each(name)
        made.place.image("pool", POOL)
        lay_out(made.place.home)
        yield made


def lay_out(home: Path) -> None:
    """What a home has before anything comes into it."""
    home.mkdir(mode=0o700)
    (home / "dagster").mkdir()
    (home / "dagster" / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    (home / "workflows" / "dags").mkdir(parents=True)
    (home / "workflows" / "dags" / "chain.py").write_text(CHAIN % "")
