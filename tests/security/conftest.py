"""A platform in a temporary folder whose Dagster keeps its storage below the home, as ``dagster dev`` does."""

import dagster as dg
import pytest
from workflows.conftest import environments, place  # noqa: F401 - fixtures
from workflows.platform import CHAIN, POOL, Platform


@pytest.fixture
def platform(place, monkeypatch):  # noqa: F811 - a fixture
    dagster_home = place.home / "dagster"
    dagster_home.mkdir(parents=True)
    (dagster_home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    monkeypatch.setenv("KAAPANA_HOME", str(place.home))
    monkeypatch.setenv("KAAPANA_IMAGES", str(place.images))
    monkeypatch.setenv("KAAPANA_ENVIRONMENTS", str(place.environments))
    monkeypatch.setenv("DAGSTER_HOME", str(dagster_home))
    (place.home / "workflows" / "dags").mkdir(parents=True)
    place.each("copy")
    place.each("last")
    place.image("pool", POOL)
    with dg.DagsterInstance.get() as instance:
        made = Platform(place, instance)
        made.workflow(CHAIN % "")
        yield made
