"""Opens the runner that the settings name. Large client libraries are imported only when needed."""

from __future__ import annotations

from kaapana_assets.accounts import check_operator_account
from kaapana_assets.containers.process.runner import ProcessRunner
from kaapana_assets.containers.protocol import Runner
from kaapana_assets.image_builds.base_requirements import BaseRequirements
from kaapana_assets.settings import Settings


def open_runner(settings: Settings) -> Runner:
    """Open the runner that the settings name.

    Raises:
        ConfigurationError: the settings do not say where the engine or cluster is, or operators would run
            under a person's account.
    """
    if settings.runner != "process":
        check_operator_account(settings)
    if settings.runner == "docker":
        from kaapana_assets.containers.docker.runner import open_docker

        return open_docker(settings)
    if settings.runner == "kubernetes":
        from kaapana_assets.containers.kubernetes import open_kubernetes

        return open_kubernetes(settings)
    return ProcessRunner(settings.images, settings.environments, bases=base_requirements(settings))


def base_requirements(settings: Settings) -> BaseRequirements:
    """Return the Python packages of base images that the settings declare."""
    return BaseRequirements(settings.images.absolute(), settings.base_requirements)
