"""Fixtures that give tests real servers; ``tests/conftest.py`` imports them.

Each worker of a parallel run has its own server, with an empty folder and on free ports. A service
that the machine lacks skips the test, or fails it with ``REQUIRE_SERVICES=1``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from services.kinds import KINDS
from services.running import Running
from services.service import Missing

# A test run uses what is there. It builds servers, which takes minutes, only where they are demanded.
os.environ.setdefault("KAAPANA_SERVICES_BUILD", os.environ.get("REQUIRE_SERVICES", "0"))


_ALLOWED = False


def note_test(item: pytest.Item) -> None:
    """Whether the test that begins may start servers; ``tests/conftest.py`` calls it."""
    global _ALLOWED  # noqa: PLW0603 - fixtures of a session know no test
    _ALLOWED = any(item.get_closest_marker(name) for name in ("services", "system"))


@contextmanager
def service(name: str, folder: Path, **given: Any) -> Iterator[Running]:
    """One instance of a service, ended afterwards; what is given is for its kind."""
    if not _ALLOWED:
        pytest.fail(f"a test that uses the server {name} must have the mark `services`")
    try:
        running = Running(KINDS[name](**given), folder)
    except Missing as exc:
        reason = f"the service {name} needs {exc}"
        if os.environ.get("REQUIRE_SERVICES") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    try:
        yield running
    finally:
        running.kill()


@pytest.fixture(scope="session")
def elasticsearch_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Elasticsearch; tests that stop it start their own with ``service``."""
    with service("elasticsearch", tmp_path_factory.mktemp("elasticsearch")) as running:
        yield running


@pytest.fixture(scope="session")
def minio_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """MinIO; tests that stop it start their own with ``service``."""
    with service("minio", tmp_path_factory.mktemp("minio")) as running:
        yield running


@pytest.fixture(scope="session")
def orthanc_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Orthanc with DICOMweb; tests that stop it start their own with ``service``."""
    with service("orthanc", tmp_path_factory.mktemp("orthanc")) as running:
        yield running


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """PostgreSQL with a password; tests that stop it start their own with ``service``."""
    with service("postgres", tmp_path_factory.mktemp("postgres")) as running:
        yield running
