"""Settings of the pages: Dagster's web UI and the health page."""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from kaapana_assets.addresses import authority, bracketed
from kaapana_assets.settings.section import CommaSeparated, Section, is_loopback


class WebSettings(Section):
    """The addresses on which pages are served, and the names by which they are reached."""

    webserver_host: str = Field("127.0.0.1", description="Address of Dagster's web UI.")
    webserver_port: int = Field(3000, ge=0, le=65535, description="Port of Dagster's web UI; 0 takes a free one.")
    health_host: str = Field("127.0.0.1", description="Address of the health page.")
    health_port: int = Field(3001, ge=0, le=65535, description="Port of the health page; 0 takes a free one.")
    allowed_hosts: CommaSeparated = Field(
        (),
        description="Comma-separated `host` or `host:port` by which browsers reach the web UI and the health page "
        "through a proxy, besides the names of this machine.",
    )

    @field_validator("allowed_hosts")
    @classmethod
    def _are_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            authority(name)
        return value

    @model_validator(mode="after")
    def _loopback_only(self) -> Self:
        if not is_loopback(self.webserver_host):
            raise ValueError(
                f"KAAPANA_WEBSERVER_HOST={self.webserver_host} is not loopback: Dagster's web UI has no "
                "authentication, put a proxy that authenticates in front of it"
            )
        if not is_loopback(self.health_host):
            raise ValueError(
                f"KAAPANA_HEALTH_HOST={self.health_host} is not loopback: the health page has no authentication, put "
                "a proxy that authenticates in front of it"
            )
        return self

    @property
    def dagster_url(self) -> str:
        """Base address of Dagster's webserver."""
        return f"http://{bracketed(self.webserver_host)}:{self.webserver_port}"

    @property
    def health_url(self) -> str:
        """Address of the health page."""
        return f"http://{bracketed(self.health_host)}:{self.health_port}/"
