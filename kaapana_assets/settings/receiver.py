"""Settings of the DICOM receiver and of reading DICOM."""

from __future__ import annotations

from pydantic import Field, model_validator
from typing_extensions import Self

from kaapana_assets.settings.section import CommaSeparated, Section, is_loopback


class ReceiverSettings(Section):
    """Allowed senders, limits and timeouts of the receiver, and the completeness of a series."""

    receiver_host: str = Field("127.0.0.1", description="Address the DICOM receiver listens on.")
    receiver_port: int = Field(11112, ge=0, le=65535, description="Port of the DICOM receiver; 0 takes a free one.")
    receiver_ae_title: str = Field("KAAPANA", max_length=16, description="AE title of the DICOM receiver.")
    allowed_calling_ae_titles: CommaSeparated = Field(
        (), description="Comma-separated calling AE titles that may send; empty lets all of them."
    )
    receiver_max_associations: int = Field(50, ge=1, description="Associations that the receiver accepts at once.")
    receiver_max_associations_per_address: int = Field(
        0, ge=0, description="At most this many of them from one address; 0: all but a tenth, of two or more."
    )
    receiver_request_timeout_s: float = Field(
        30.0, gt=0, description="Seconds for a new connection to bring its whole association request."
    )
    receiver_stall_timeout_s: float = Field(
        30.0, gt=0, description="Seconds without a byte within a PDU after which its association is aborted."
    )
    receiver_pdu_timeout_s: float = Field(
        300.0, gt=0, description="Seconds for a PDU, and for each 128 KiB of an object: slower senders are aborted."
    )
    receiver_idle_timeout_s: float = Field(
        60.0, gt=0, description="Seconds without a PDU after which an association is aborted."
    )
    min_free_bytes: int = Field(
        256 * 1024**2, ge=0, description="Bytes that stay free: with less, the receiver and import refuse objects."
    )
    inflated_bytes: int = Field(
        256 * 1024**2, ge=1024**2, description="A deflated object that is larger when inflated goes to the quarantine."
    )
    preview_bytes: int = Field(
        64 * 1024**2, ge=0, description="There is no preview of an image whose decoded frame is larger."
    )
    series_quiet_s: float = Field(1.0, ge=0, description="Seconds without a new file before a series is complete.")

    @model_validator(mode="after")
    def _loopback_or_restricted(self) -> Self:
        if not is_loopback(self.receiver_host) and not self.allowed_calling_ae_titles:
            raise ValueError(
                f"KAAPANA_RECEIVER_HOST={self.receiver_host} is not loopback: set "
                "KAAPANA_ALLOWED_CALLING_AE_TITLES to the senders that may reach it"
            )
        return self

    @property
    def receiver_share(self) -> int:
        """The most associations that one address may have at the same time."""
        limit = self.receiver_max_associations
        return self.receiver_max_associations_per_address or max(1, limit - max(1, limit // 10))
