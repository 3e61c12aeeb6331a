"""A machine that has no service: ``pytest -p services.bare`` collects what needs one, and none can be had.

Such tests must skip, each saying what it needs. Others are left out; they are the same on any machine.
"""

from __future__ import annotations

import os

import pytest

FIXTURES = frozenset(
    {
        "container_engine",
        "elasticsearch_server",
        "kubernetes_cluster",
        "minio_server",
        "orthanc_server",
        "postgres_server",
    }
)
os.environ |= {"KAAPANA_SERVICES_NONE": "1", "KAAPANA_SERVICES_BUILD": "0", "REQUIRE_SERVICES": "0"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep what is marked as needing a service, and what uses the fixture of one."""
    kept = [item for item in items if _needs_one(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
    items[:] = kept


def _needs_one(item: pytest.Item) -> bool:
    marks = {mark.name for mark in item.iter_markers()}
    return bool(marks & {"services", "cluster"} or FIXTURES.intersection(getattr(item, "fixturenames", ())))
