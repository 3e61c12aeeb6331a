"""Settings of Dagster: its definitions, its run launcher and its storage."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr, field_validator

from kaapana_assets.addresses import split_database_address
from kaapana_assets.settings.section import Password, Section
from kaapana_assets.settings.user_ids import POSTGRES_UID


class DagsterSettings(Section):
    """Definitions, run launcher, retention and PostgreSQL."""

    definitions: str = Field(
        "kaapana_assets.definitions", description="Module of the Dagster definitions that the platform serves."
    )
    run_launcher: Literal["process", "kubernetes"] = Field(
        "process", description="Where runs are executed: in processes of this machine, or in pods of the cluster."
    )
    run_retention_days: float = Field(7.0, ge=0, description="Days that the directories of failed runs are kept.")
    dagster_retention_days: float = Field(
        90.0,
        gt=0,
        description="Days that Dagster keeps logs of runs and what operators printed; what was made stays.",
    )
    postgres_url: str = Field(
        "",
        description="Database of Dagster's own storage, `postgresql://user@host:port/database` without password; "
        "empty: the platform starts a server for it.",
    )
    postgres_password: Password = Field(SecretStr(""), description="Password of that user. Environment only.")
    postgres_uid: int = Field(
        POSTGRES_UID,
        ge=1,
        description="User that the platform's own PostgreSQL server runs as, where the platform is root.",
    )
    postgres_patience_s: float = Field(
        120.0, ge=0, description="Seconds that a run waits for Dagster's PostgreSQL when it is away."
    )
    step_repeat_pause_s: float = Field(
        10.0,
        ge=0,
        description="Seconds, about, before a step is repeated that a store or engine which is away has stopped; each "
        "further pause is twice as long.",
    )

    @field_validator("postgres_url")
    @classmethod
    def _is_postgres(cls, value: str) -> str:
        if value:
            split_database_address(
                value,
                example="postgresql://user@host:port/database",
                schemes=("postgresql", "postgres"),
                instead="use KAAPANA_POSTGRES_PASSWORD",
            )
        return value
