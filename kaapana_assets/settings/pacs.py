"""Settings of the PACS."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, SecretStr, field_validator, model_validator
from typing_extensions import Self

from kaapana_assets.addresses import split_address
from kaapana_assets.settings.section import ExistingFile, Password, Section, ServerKey, text_of

_DIMSE_URL = re.compile(r"dimse://[!-.0-~]{1,16}@[A-Za-z0-9._-]+:\d{1,5}")


class PacsSettings(Section):
    """The PACS: a folder, or an archive on a server."""

    pacs: Literal["folder", "dicomweb", "dimse"] = Field(
        "folder", description="The PACS: a folder, DICOMweb, or C-STORE in and DICOMweb out."
    )
    dicomweb_url: str = Field("", description="Root of the archive's DICOMweb services, without user and password.")
    dicomweb_user: str = Field("", description="User of the archive (HTTP Basic).")
    dicomweb_password: Password = Field(SecretStr(""), description="Password of that user. Environment only.")
    dicomweb_token: ServerKey = Field(SecretStr(""), description="Bearer token of the archive. Environment only.")
    dicomweb_ca: ExistingFile | None = Field(
        None, description="File of certificates that the archive's is checked with."
    )
    dicomweb_timeout_s: float = Field(60.0, gt=0, description="Seconds without a byte after which a request is lost.")
    dicomweb_attempts: int = Field(8, ge=1, description="How often a request is sent before the PACS is unavailable.")
    dicomweb_parallel: int = Field(4, ge=1, le=64, description="Requests to the archive at once, of one process.")
    dicomweb_batch_bytes: int = Field(
        64 * 1024**2, ge=1, description="At most this many bytes in one STOW request; an instance is never split."
    )
    dicomweb_batch_instances: int = Field(200, ge=1, description="At most this many instances in one STOW request.")
    dimse_url: str = Field("", description="Where `dimse` sends to: `dimse://AET@host:port`.")
    dimse_ae_title: str = Field("KAAPANA", max_length=16, description="AE title that `dimse` sends with.")
    series_cache_bytes: int = Field(
        0, ge=0, description="Size of the local cache of series of a DICOMweb archive; 0 keeps none."
    )

    @field_validator("dicomweb_url")
    @classmethod
    def _is_http(cls, value: str) -> str:
        if value:
            split_address(
                value,
                example="https://host/dicom-web",
                schemes=("http", "https"),
                instead="use KAAPANA_DICOMWEB_USER and KAAPANA_DICOMWEB_PASSWORD",
            )
        return value.rstrip("/")

    @field_validator("dimse_url")
    @classmethod
    def _is_dimse(cls, value: str) -> str:
        if value and not _DIMSE_URL.fullmatch(value):
            raise ValueError("is not dimse://AET@host:port")
        return value

    @model_validator(mode="after")
    def _credentials_go_together(self) -> Self:
        if self.lacks_half("dicomweb_user", "dicomweb_password"):
            raise ValueError("KAAPANA_DICOMWEB_USER and KAAPANA_DICOMWEB_PASSWORD go together: one of them is not set")
        if self.dicomweb_user and text_of(self.dicomweb_token):
            raise ValueError("KAAPANA_DICOMWEB_TOKEN and KAAPANA_DICOMWEB_USER exclude each other")
        return self
