"""All settings, read once from the environment or a ``.env`` file.

Each field ``x`` is the environment variable ``KAAPANA_X``. Secrets are read from the environment
only. No other module reads the environment.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from kaapana_assets.errors import ConfigurationError

PROJECT_ROOT = Path(__file__).resolve().parent.parent


class Settings(BaseSettings):
    """Where things are and how they behave; every field has a working default."""

    model_config = SettingsConfigDict(env_prefix="KAAPANA_", env_file=".env", extra="ignore", frozen=True)

    home: Path = Field(Path("kaapana-home"), description="The folder of all data of the platform.")
    images: Path = Field(PROJECT_ROOT / "images", description="The folder of image folders (Dockerfile, files/).")
    environments: Path = Field(
        Path("~/.cache/kaapana-assets/environments"),
        validate_default=True,
        description="Cache of the Python environments that the process runner makes for images.",
    )

    receiver_host: str = Field("127.0.0.1", description="Address the DICOM receiver listens on.")
    receiver_port: int = Field(11112, ge=0, le=65535, description="Port of the DICOM receiver; 0 takes a free one.")
    receiver_ae_title: str = Field("KAAPANA", max_length=16, description="AE title of the DICOM receiver.")
    allowed_calling_ae_titles: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Comma-separated calling AE titles that may send; empty lets all of them."
    )
    receiver_max_associations: int = Field(50, ge=1, description="Associations that the receiver accepts at once.")
    min_free_bytes: int = Field(
        256 * 1024**2, ge=0, description="Bytes that stay free: with less, the receiver and import refuse objects."
    )
    series_quiet_s: float = Field(1.0, ge=0, description="Seconds without a new file before a series is complete.")

    webserver_host: str = Field("127.0.0.1", description="Address of Dagster's web UI.")
    webserver_port: int = Field(3000, ge=0, le=65535, description="Port of Dagster's web UI; 0 takes a free one.")

    definitions: str = Field(
        "kaapana_assets.definitions", description="Module of the Dagster definitions that the platform serves."
    )
    runner: Literal["process"] = Field("process", description="What launches operators.")
    series_per_launch: int = Field(1000, ge=1, description="At most this many series for one launch in batch mode.")
    parallel_series: int = Field(2, ge=1, description="Series processed at once in single mode.")
    run_retention_days: float = Field(7.0, ge=0, description="Days that the directories of failed runs are kept.")

    @field_validator("allowed_calling_ae_titles", mode="before")
    @classmethod
    def _split_titles(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(title.strip() for title in value.split(",") if title.strip())
        return value

    @field_validator("home", "images", "environments")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("home")
    @classmethod
    def _is_folder(cls, value: Path) -> Path:
        if value.exists() and not value.is_dir():
            raise ValueError(f"{value} is no folder")
        return value

    @model_validator(mode="after")
    def _loopback_or_restricted(self) -> Settings:
        if not _is_loopback(self.receiver_host) and not self.allowed_calling_ae_titles:
            raise ValueError(
                f"KAAPANA_RECEIVER_HOST={self.receiver_host} is not loopback: set "
                "KAAPANA_ALLOWED_CALLING_AE_TITLES to the senders that may reach it"
            )
        if not _is_loopback(self.webserver_host):
            raise ValueError(
                f"KAAPANA_WEBSERVER_HOST={self.webserver_host} is not loopback: Dagster's web UI has no "
                "authentication, put a proxy that authenticates in front of it"
            )
        return self

    @property
    def dagster_url(self) -> str:
        """Base address of Dagster's webserver."""
        return f"http://{self.webserver_host}:{self.webserver_port}"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def load_settings(**given: Any) -> Settings:  # noqa: ANN401 - pydantic checks them
    """The settings of this process.

    Args:
        given: fields that a command's options set, which win over the environment.

    Raises:
        ConfigurationError: a setting has a value that cannot work; the message names it.
    """
    try:
        return Settings(**given)
    except ValidationError as exc:
        lines = []
        for error in exc.errors():
            name = "KAAPANA_" + "_".join(str(part) for part in error["loc"]).upper() if error["loc"] else ""
            lines.append(f"{name}: {error['msg']}" if name else error["msg"])
        raise ConfigurationError("; ".join(lines)) from exc
