"""The runner that the settings name. What is large is imported where it is asked for."""

from __future__ import annotations

from kaapana_assets.accounts import check_operator_account
from kaapana_assets.containers.process.runner import ProcessRunner
from kaapana_assets.containers.protocol import Runner
from kaapana_assets.image_builds.base_requirements import BaseRequirements
from kaapana_assets.settings import Settings


def open_runner(settings: Settings) -> Runner:
    """What launches operators, as the settings say.

    Raises:
        ConfigurationError: they do not say where the engine or cluster is, or operators would be a person's.
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
    """The Python packages of base images, as the settings say."""
    return BaseRequirements(settings.images.absolute(), settings.base_requirements)
