"""Fixtures for all tests: where real data is, and free ports."""

import os
import socket
from pathlib import Path

import pytest
from services.plugin import (  # noqa: F401 - fixtures
    container_engine,
    elasticsearch_server,
    kubernetes_cluster,
    kubernetes_namespace,
    minio_server,
    note_test,
    orthanc_server,
    postgres_server,
)

PROJECT_ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = PROJECT_ROOT.parent / "shared" / "data"
UMASK = 0o022


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    # Commands called in this process leave theirs, 077; servers of tests run as other users.
    os.umask(UMASK)
    note_test(item)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real DICOM series beside the checkout."""
    if not SHARED_DATA.is_dir():
        pytest.skip("needs the folder of real DICOM data ../shared/data, which this machine does not have")
    return SHARED_DATA


@pytest.fixture
def free_port() -> int:
    """A TCP port of the loopback interface that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
