"""MinIO, built from its source by the Go toolchain."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from services.elasticsearch import answers
from services.service import Missing, Plan, cached, run_build

_VERSION = "v0.0.0-20260212201848-7aac2a2c5b7c"
_USER = "kaapana-test"
_PASSWORD = "kaapana-test-only"


class MinioServer:
    """One node with one folder."""

    name = "minio"
    ports = 2

    def prepare(self) -> None:
        """Needs Go for the first time; the build takes some minutes."""
        self._build = cached(f"minio-{_VERSION}", self._make)

    def plan(self, folder: Path, ports: Sequence[int]) -> Plan:
        """See ``Service.plan``."""
        data = folder / "minio"
        data.mkdir(parents=True, exist_ok=True)
        address, console = (f"127.0.0.1:{port}" for port in ports)
        command = [
            str(self._build / "minio"), "server", str(data), "--address", address, "--console-address", console,
            "--config-dir", str(folder / "minio-config"),
        ]  # fmt: skip
        settings = {
            "KAAPANA_OBJECTS": "s3",
            "KAAPANA_S3_ENDPOINT": address,
            "KAAPANA_S3_SECURE": "false",
            "KAAPANA_S3_ACCESS_KEY": _USER,
            "KAAPANA_S3_SECRET_KEY": _PASSWORD,
        }
        environment = {
            "MINIO_ROOT_USER": _USER,
            "MINIO_ROOT_PASSWORD": _PASSWORD,
            "MINIO_BROWSER": "off",
            "MINIO_UPDATE": "off",
            "MINIO_CI_CD": "on",  # lets a folder of the system's own disk be used
        }
        return Plan(command, lambda: answers(f"http://{address}/minio/health/ready"), settings, environment)

    def _make(self, into: Path) -> None:
        if shutil.which("go") is None:
            raise Missing("Go, which builds it")
        package = f"github.com/minio/minio@{_VERSION}"
        run_build(["nice", "go", "install", package], folder=into, CGO_ENABLED="0", GOBIN=str(into))
