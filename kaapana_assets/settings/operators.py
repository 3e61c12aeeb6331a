"""Settings of operators: their images, their runner and the limits of their outputs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator

from kaapana_assets.settings.section import AbsolutePath, Section
from kaapana_assets.settings.user_ids import OPERATOR_UID

PROJECT_ROOT = Path(__file__).resolve().parents[2]


class OperatorSettings(Section):
    """Images, the runner and limits of outputs."""

    images: AbsolutePath = Field(
        PROJECT_ROOT / "images", description="The folder of image folders (Dockerfile, files/)."
    )
    environments: AbsolutePath = Field(
        Path("~/.cache/kaapana-assets/environments"),
        validate_default=True,
        description="Cache of the Python environments that the process runner makes for images.",
    )
    runner: Literal["process", "docker", "kubernetes"] = Field("process", description="What launches operators.")
    series_per_launch: int = Field(1000, ge=1, description="At most this many series for one launch in batch mode.")
    operator_uid: int = Field(
        os.getuid() or OPERATOR_UID,
        ge=1,
        description="User that operators run as in containers; empty: the platform's own, or 60810 for root.",
    )
    output_depth: int = Field(
        64, ge=1, le=200, description="Folders within each other in one output of an operator; deeper ones are refused."
    )
    output_files: int = Field(
        1_000_000, ge=1, description="Files and folders in one output of an operator; one with more is refused."
    )
    output_bytes: int = Field(
        1 << 40, ge=0, description="Bytes in one output of an operator; one with more is refused. 0: no limit."
    )
    image_registry: str = Field(
        "",
        pattern=r"^[A-Za-z0-9]([A-Za-z0-9._:/-]*[A-Za-z0-9])?$|^$",
        description="Registry and path before the names of image folders, such as `registry.example/group`.",
    )
    image_tag_suffix: str = Field(
        "", pattern=r"^[A-Za-z0-9_.-]{0,64}$", description="What follows the version in tags of images, of the site."
    )
    base_image: str = Field(
        "", description="What `images build` builds on, instead of the BASE_IMAGE of the Dockerfiles."
    )
    base_requirements: dict[str, str | tuple[str, ...]] = Field(
        {},
        description="For `process`: JSON object, base image (a glob, with or without registry and tag) -> a file of "
        "requirements (relative to `KAAPANA_IMAGES`) or a list of them, which are installed in its place.",
    )
    image_pull_secrets: SecretStr = Field(
        SecretStr(""),
        description="Has no effect any more, and is accepted where it is still set: images are pulled by the engine's "
        "own client. Environment only.",
    )
    docker_url: str = Field(
        "unix:///var/run/docker.sock",
        pattern=r"^(unix:///|tcp://|http://|https://).+",
        description="Where `docker` finds Docker or Podman.",
    )
    docker_parallel: int = Field(2, ge=1, description="For `docker`: containers of one operator at once.")
    parallel_series: int = Field(2, ge=1, description="Series processed at once in single mode.")

    @field_validator("docker_url")
    @classmethod
    def _has_no_user(cls, value: str) -> str:
        if not value.startswith("unix://") and ("@" in value or "?" in value):
            raise ValueError("names a user or has parameters: use the engine's socket, or a tunnel that logs in")
        return value
