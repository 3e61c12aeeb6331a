"""What tests of checks share: settings that no file or variable of the machine changes, and silent servers."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from kaapana_assets.home import make_home
from kaapana_assets.settings import Settings, load_settings

KaapanaCommand = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    """In an empty folder and without settings of the machine."""
    for name in list(os.environ):
        if name.startswith("KAAPANA_") and not name.startswith("KAAPANA_SERVICES"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def home(tmp_path) -> Path:
    made = tmp_path / "home"
    make_home(made)
    return made


@pytest.fixture
def settings_of(monkeypatch, home) -> Callable[..., Settings]:
    """Settings from variables, as a platform gets them."""

    def load(variables: Mapping[str, str] = {}, **more: str) -> Settings:
        monkeypatch.setenv("KAAPANA_HOME", str(home))
        for name, value in {**variables, **more}.items():
            monkeypatch.setenv(name, value)
        return load_settings()

    return load


@pytest.fixture
def kaapana(home, tmp_path, free_port) -> KaapanaCommand:
    """A command as a user types it; nothing answers at its receiver's port."""

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "kaapana_assets", *arguments],
            env=command_environment(home, KAAPANA_RECEIVER_PORT=str(free_port)) | variables,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


def command_environment(home: Path, **variables: str) -> dict[str, str]:
    """This process's environment with a home of its own."""
    return dict(os.environ) | {"KAAPANA_HOME": str(home)} | variables


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A server that hangs: it takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


def all_stores_at(port: int) -> dict[str, str]:
    """Settings with every store at one port of this machine."""
    return {
        "KAAPANA_PACS": "dicomweb",
        "KAAPANA_DICOMWEB_URL": f"http://127.0.0.1:{port}/dicom-web",
        "KAAPANA_INDEX": "elasticsearch",
        "KAAPANA_ELASTICSEARCH_URLS": f"http://127.0.0.1:{port}",
        "KAAPANA_OBJECTS": "s3",
        "KAAPANA_S3_ENDPOINT": f"127.0.0.1:{port}",
        "KAAPANA_S3_SECURE": "false",
        "KAAPANA_S3_ACCESS_KEY": "name",
        "KAAPANA_S3_SECRET_KEY": "hidden-word",
        "KAAPANA_POSTGRES_URL": f"postgresql://user@127.0.0.1:{port}/dagster",
        "KAAPANA_POSTGRES_PASSWORD": "hidden-word",
    }
