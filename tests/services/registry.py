"""A registry of container images, from the packages of the distribution."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from services.elasticsearch import answers
from services.service import Missing, Plan


class ImageRegistry:
    """One registry without TLS and users, which keeps images in a folder."""

    name = "registry"
    ports = 1

    def prepare(self) -> None:
        """Needs the Debian package docker-registry."""
        program = shutil.which("docker-registry")
        if program is None:
            raise Missing("the program docker-registry (Debian package docker-registry)")
        self._program = program

    def plan(self, folder: Path, ports: Sequence[int]) -> Plan:
        """See ``Service.plan``."""
        address = f"127.0.0.1:{ports[0]}"
        configuration = folder / "registry.yml"
        # YAML holds JSON.
        content = {
            "version": 0.1,
            "log": {"level": "warn"},
            "storage": {"filesystem": {"rootdirectory": str(folder / "registry")}},
            "http": {"addr": address},
        }
        configuration.write_text(json.dumps(content))
        settings = {"KAAPANA_IMAGE_REGISTRY": f"{address}/kaapana"}
        return Plan(
            [self._program, "serve", str(configuration)], lambda: answers(f"http://{address}/v2/"), settings,
            {"OTEL_TRACES_EXPORTER": "none"},
        )  # fmt: skip
