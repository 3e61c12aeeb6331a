"""Settings of the object store."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr, field_validator

from kaapana_assets.addresses import authority
from kaapana_assets.settings.section import ExistingFile, Section, ServerKey


class ObjectSettings(Section):
    """The object store: a folder, or an S3 server."""

    objects: Literal["folder", "s3"] = Field("folder", description="The object store: a folder, or MinIO and other S3.")
    s3_endpoint: str = Field("", description="`host:port` of the S3 server, without scheme.")
    s3_access_key: ServerKey = Field(SecretStr(""), description="Name of the S3 user. Environment only.")
    s3_secret_key: ServerKey = Field(SecretStr(""), description="Password of the S3 user. Environment only.")
    s3_secure: bool = Field(True, description="Whether the S3 server is reached by TLS.")
    s3_region: str = Field("", description="Region of the buckets; empty asks the server.")
    s3_ca: ExistingFile | None = Field(None, description="File of certificates that the S3 server's is checked with.")
    s3_timeout_s: float = Field(60.0, gt=0, description="Seconds without a byte after which an S3 request is lost.")
    s3_attempts: int = Field(8, ge=1, description="How often an S3 request is sent before the store is unavailable.")

    @field_validator("s3_endpoint")
    @classmethod
    def _is_host_and_port(cls, value: str) -> str:
        try:
            if value:
                authority(value)
        except ValueError:
            raise ValueError(
                "is host:port, without scheme, path and user; KAAPANA_S3_SECURE says whether it is TLS"
            ) from None
        return value
