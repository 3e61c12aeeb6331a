"""What hostile operators in Docker and Podman leave is refused by name, and nothing else suffers."""

from collections.abc import Iterator

import pytest
from security.hostile import Attacked, HostileOperators, attacked_platform
from services.container_engine import ContainerEngine
from system.conftest import Platforms, module_platforms  # noqa: F401 - fixture

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def attacked(
    container_engine: ContainerEngine,
    module_platforms: Platforms,  # noqa: F811
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Attacked]:
    settings = {"KAAPANA_RUNNER": "docker", "KAAPANA_DOCKER_URL": container_engine.url}
    folder, home = tmp_path_factory.mktemp("sent"), module_platforms.new_home()
    with attacked_platform(module_platforms, folder, {}, home=home, **settings) as made:
        yield made


class TestContainers(HostileOperators):
    """What every runner in containers promises."""
