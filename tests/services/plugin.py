"""Fixtures that give tests real servers; ``tests/conftest.py`` imports them.

Each worker of a parallel run has its own server, with an empty folder and on free ports; a Kubernetes
cluster serves all workers. A service that the machine lacks skips the test, or fails it with
``REQUIRE_SERVICES=1``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest

from services import images
from services.cluster import Cluster, shared
from services.container_engine import ENGINES, ContainerEngine
from services.kinds import KINDS
from services.running import Running
from services.service import Missing, check_wanted

# A test run uses what is there. It builds servers, which takes minutes, only where they are demanded.
os.environ.setdefault("KAAPANA_SERVICES_BUILD", os.environ.get("REQUIRE_SERVICES", "0"))


_MARKS: set[str] = set()


def note_test(item: pytest.Item) -> None:
    """Which servers the test that begins may start; ``tests/conftest.py`` calls it."""
    global _MARKS  # noqa: PLW0603 - fixtures of a session know no test
    _MARKS = {mark.name for mark in item.iter_markers()}


@contextmanager
def service(name: str, folder: Path, **given: Any) -> Iterator[Running]:
    """One instance of a service, ended afterwards; what is given is for its kind."""
    _check_mark(name, "services", "system", "cluster")
    try:
        running = Running(KINDS[name](**given), folder)
    except Missing as exc:
        _lack(name, exc)
    try:
        yield running
    finally:
        running.kill()


@contextmanager
def engine(name: str, folder: Path) -> Iterator[ContainerEngine]:
    """Docker or Podman with the base image, ended afterwards with all that it kept."""
    _check_mark(name, "services", "system")
    try:
        base = images.base()
        running = ContainerEngine(ENGINES[name](), folder)
    except Missing as exc:
        _lack(name, exc)
    try:
        running.load(base)
        yield running
    finally:
        running.close()


@contextmanager
def own_cluster(folder: Path) -> Iterator[Cluster]:
    """A Kubernetes cluster for tests that break it; it takes 15 s and 400 MB."""
    _check_mark("kubernetes", "cluster")
    with service("kubernetes", folder) as running:
        cluster = Cluster(folder)
        try:
            yield cluster
        finally:
            running.stop()


@contextmanager
def lacking(name: str) -> Iterator[None]:
    """Within it, what a service needs and the machine does not have skips the test, or fails it."""
    try:
        check_wanted()
        yield
    except Missing as exc:
        _lack(name, exc)


def _check_mark(name: str, *marks: str) -> None:
    if not _MARKS.intersection(marks):
        pytest.fail(f"a test that uses the server {name} must have the mark `{'` or `'.join(marks)}`")


def _lack(name: str, what: Missing) -> NoReturn:
    reason = f"the service {name} needs {what}"
    if os.environ.get("REQUIRE_SERVICES") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


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


@pytest.fixture(scope="session")
def kubernetes_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A Kubernetes cluster of one node with the base image, shared by all workers; who breaks it takes ``own_cluster``.

    Tests have a namespace each (``kubernetes_namespace``).
    """
    _check_mark("kubernetes", "cluster")
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with contextlib.ExitStack() as stack:
        try:
            cluster = stack.enter_context(shared(folder / "kubernetes"))
        except Missing as exc:
            _lack("kubernetes", exc)
        yield cluster


@pytest.fixture
def kubernetes_namespace(kubernetes_cluster: Cluster) -> Iterator[str]:
    """Name of a namespace that is empty but for its default account."""
    with kubernetes_cluster.namespace() as name:
        yield name


@pytest.fixture(scope="session", params=sorted(ENGINES))
def container_engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ContainerEngine]:
    """Docker, then Podman; tests that end one start their own with ``engine``."""
    with engine(request.param, tmp_path_factory.mktemp(request.param)) as running:
        yield running
