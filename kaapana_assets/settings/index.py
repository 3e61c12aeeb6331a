"""Settings of the metadata index."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr, field_validator, model_validator
from typing_extensions import Self

from kaapana_assets.addresses import split_address
from kaapana_assets.settings.section import CommaSeparated, ExistingFile, Password, Section, ServerKey, text_of


class IndexSettings(Section):
    """The metadata index: an SQLite file, or Elasticsearch."""

    index: Literal["sqlite", "elasticsearch"] = Field(
        "sqlite", description="The metadata index: a file, or Elasticsearch 8.19 and newer or 9."
    )
    elasticsearch_urls: CommaSeparated = Field(
        (), description="Comma-separated addresses of nodes of one cluster, without user and password."
    )
    elasticsearch_api_key: ServerKey = Field(SecretStr(""), description="API key, encoded. Environment only.")
    elasticsearch_user: str = Field("", description="User of Elasticsearch, instead of an API key.")
    elasticsearch_password: Password = Field(SecretStr(""), description="Password of that user. Environment only.")
    elasticsearch_ca: ExistingFile | None = Field(
        None, description="File of certificates that the servers' are checked with."
    )
    elasticsearch_fingerprint: str = Field(
        "",
        pattern="^([0-9A-Fa-f]{2}:?){32}$|^$",
        description="SHA-256 of the certificate authority, instead of a file.",
    )
    elasticsearch_timeout_s: float = Field(30.0, gt=0, description="Seconds for one request.")
    elasticsearch_patience_s: float = Field(
        120.0, ge=0, description="Seconds that a write is tried again while the servers are away or too busy."
    )
    elasticsearch_index: str = Field(
        "kaapana-series",
        pattern="^[a-z0-9][a-z0-9_.-]{0,199}$",
        description="Name of the alias, and beginning of all names on the servers.",
    )
    elasticsearch_shards: int = Field(1, ge=1, le=1024, description="Shards of a new index; one serves millions.")
    elasticsearch_replicas: int = Field(1, ge=0, description="Copies of each shard of a new index.")
    elasticsearch_fields: int = Field(
        2000, ge=1, le=20_000, description="Fields with a type of their own; the rest is searched in one for all."
    )

    @field_validator("elasticsearch_urls")
    @classmethod
    def _are_http(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        instead = "use KAAPANA_ELASTICSEARCH_USER and KAAPANA_ELASTICSEARCH_PASSWORD"
        for url in value:
            found = split_address(url, example="https://host:9200", schemes=("http", "https"), instead=instead)
            if not found.port:
                raise ValueError("has no port: is not an address like https://host:9200")
        return value

    @model_validator(mode="after")
    def _elasticsearch_credentials_go_together(self) -> Self:
        if self.lacks_half("elasticsearch_user", "elasticsearch_password"):
            raise ValueError("KAAPANA_ELASTICSEARCH_USER and KAAPANA_ELASTICSEARCH_PASSWORD go together")
        if self.elasticsearch_user and text_of(self.elasticsearch_api_key):
            raise ValueError("KAAPANA_ELASTICSEARCH_API_KEY and KAAPANA_ELASTICSEARCH_USER exclude each other")
        if self.elasticsearch_ca and self.elasticsearch_fingerprint:
            raise ValueError("KAAPANA_ELASTICSEARCH_CA and KAAPANA_ELASTICSEARCH_FINGERPRINT exclude each other")
        return self
