"""All settings, read once from the environment or a ``.env`` file.

Each field ``x`` is the environment variable ``KAAPANA_X``. Secrets are read from the environment
only. No other module reads the environment.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from kaapana_assets.accounts import OPERATOR_UID, POSTGRES_UID
from kaapana_assets.addresses import authority, bracketed, split_address, split_database_address
from kaapana_assets.errors import ConfigurationError
from kaapana_assets.home import NAME, Site, find_site, site_of_named_home
from kaapana_assets.withheld import is_withheld

PROJECT_ROOT = Path(__file__).resolve().parent.parent
_paths_begin_in: ContextVar[Path | None] = ContextVar("folder of relative paths", default=None)
# Told by the platform to its own processes, and by the tests' servers.
_NO_SETTINGS = ("KAAPANA_PLATFORM", "KAAPANA_WITHHELD", "KAAPANA_SERVICES_")
_OF_A_SERVICE = re.compile(r"_SERVICE_(HOST|PORT)(_|$)|_PORT_\d+_(TCP|UDP)")
_DIMSE_URL = re.compile(r"dimse://[!-.0-~]{1,16}@[A-Za-z0-9._-]+:\d{1,5}")


class Settings(BaseSettings):
    """Where things are and how they behave; every field has a working default."""

    # A value that is refused may be a secret at the wrong place: no error shows it.
    model_config = SettingsConfigDict(
        env_prefix="KAAPANA_", env_file=".env", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    home: Path = Field(Path(NAME), validate_default=True, description="The folder of all data of the platform.")
    images: Path = Field(PROJECT_ROOT / "images", description="The folder of image folders (Dockerfile, files/).")
    environments: Path = Field(
        Path("~/.cache/kaapana-assets/environments"),
        validate_default=True,
        description="Cache of the Python environments that the process runner makes for images.",
    )

    group: str = Field(
        "",
        pattern=r"^([a-z_][a-z0-9_.-]{0,31}\$?|[0-9]{1,10})?$",
        description="Group (name or number) that may read in `KAAPANA_HOME`; empty: nobody but the platform's user.",
    )

    receiver_host: str = Field("127.0.0.1", description="Address the DICOM receiver listens on.")
    receiver_port: int = Field(11112, ge=0, le=65535, description="Port of the DICOM receiver; 0 takes a free one.")
    receiver_ae_title: str = Field("KAAPANA", max_length=16, description="AE title of the DICOM receiver.")
    allowed_calling_ae_titles: Annotated[tuple[str, ...], NoDecode] = Field(
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

    webserver_host: str = Field("127.0.0.1", description="Address of Dagster's web UI.")
    webserver_port: int = Field(3000, ge=0, le=65535, description="Port of Dagster's web UI; 0 takes a free one.")

    health_host: str = Field("127.0.0.1", description="Address of the health page.")
    health_port: int = Field(3001, ge=0, le=65535, description="Port of the health page; 0 takes a free one.")
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Comma-separated `host` or `host:port` by which browsers reach the web UI and the health page "
        "through a proxy, besides the names of this machine.",
    )

    definitions: str = Field(
        "kaapana_assets.definitions", description="Module of the Dagster definitions that the platform serves."
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
        description="For `docker`: JSON object, name of a secret -> content of a Docker configuration, with `auths`. "
        "Environment only.",
    )

    docker_url: str = Field(
        "unix:///var/run/docker.sock",
        pattern=r"^(unix:///|tcp://|http://|https://).+",
        description="Where `docker` finds Docker or Podman.",
    )
    docker_parallel: int = Field(2, ge=1, description="For `docker`: containers of one operator at once.")

    kubeconfig: Path | None = Field(
        None, description="For `kubernetes`: the file that says where the cluster is; none: that of the pod it runs in."
    )
    kubernetes_namespace: str = Field(
        "flow-jobs", pattern="^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", description="Namespace of the operators' pods."
    )
    kubernetes_claim: str = Field(
        "kaapana-home",
        pattern="^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$",
        description="PersistentVolumeClaim in that namespace with the volume that holds `KAAPANA_HOME`.",
    )
    kubernetes_claim_path: str = Field(
        "", pattern="^([A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*)?$", description="Where `KAAPANA_HOME` is in that volume."
    )
    kubernetes_pods: int = Field(10, ge=1, description="Pods of operators at once, of all runs together.")
    kubernetes_parallel: int = Field(4, ge=1, description="For `kubernetes`: pods of one operator at once.")
    kubernetes_node_selector: dict[str, str] = Field(
        {}, description="JSON object: labels of the nodes that operators may run on."
    )
    kubernetes_tolerations: tuple[dict[str, Any], ...] = Field(
        (), description="JSON list: tolerations of operators' pods, as Kubernetes writes them."
    )
    kubernetes_gpu_resource: str = Field("nvidia.com/gpu", description="The name that GPUs have in the cluster.")
    kubernetes_patience_s: float = Field(
        300.0, ge=0, description="Seconds that a pod may wait for a node, and a run for a cluster that is away."
    )
    kubernetes_pod_retention_hours: float = Field(
        24.0, ge=0, description="Hours that pods of failed operators are kept to be looked at."
    )

    kubernetes_memory_mb: int = Field(
        16_384, ge=0, description="Memory limit in MiB of operators that name none (`memory_mb`); `0` sets none."
    )
    kubernetes_scratch_mb: int = Field(
        20_480,
        ge=0,
        description="Limit in MiB of what a pod writes besides its run directory (`/tmp`, `HOME`, output); `0`: none.",
    )

    run_launcher: Literal["process", "kubernetes"] = Field(
        "process", description="Where runs are executed: in processes of this machine, or in pods of the cluster."
    )
    kubernetes_run_image: str = Field("", description="For runs in pods: the platform's own image (`Dockerfile`).")
    kubernetes_run_namespace: str = Field(
        "kaapana", pattern="^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", description="Namespace of the runs' pods."
    )
    kubernetes_run_account: str = Field(
        "kaapana-assets-run",
        pattern="^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$",
        description="Service account in that namespace with which runs start operators.",
    )
    kubernetes_run_claim: str = Field(
        "kaapana-home",
        pattern="^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$",
        description="PersistentVolumeClaim in that namespace, on the same volume as `KAAPANA_KUBERNETES_CLAIM`.",
    )
    kubernetes_run_secret: str = Field(
        "",
        pattern="^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)?$",
        description="Secret in that namespace whose keys are the secret settings, such as `KAAPANA_POSTGRES_PASSWORD`.",
    )
    kubernetes_run_resources: dict[str, dict[str, str]] = Field(
        {"requests": {"cpu": "100m", "memory": "400Mi"}},
        description="JSON object: `requests` and `limits` of a run's pod, as Kubernetes writes them.",
    )
    parallel_series: int = Field(2, ge=1, description="Series processed at once in single mode.")
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
    postgres_password: SecretStr = Field(SecretStr(""), description="Password of that user. Environment only.")
    postgres_uid: int = Field(
        POSTGRES_UID,
        ge=1,
        description="User that the platform's own PostgreSQL server runs as, where the platform is root.",
    )
    postgres_patience_s: float = Field(
        120.0, ge=0, description="Seconds that a run waits for Dagster's PostgreSQL when it is away."
    )

    index: Literal["sqlite", "elasticsearch"] = Field(
        "sqlite", description="The metadata index: a file, or Elasticsearch 8.19 and newer or 9."
    )
    elasticsearch_urls: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Comma-separated addresses of nodes of one cluster, without user and password."
    )
    elasticsearch_api_key: SecretStr = Field(SecretStr(""), description="API key, encoded. Environment only.")
    elasticsearch_user: str = Field("", description="User of Elasticsearch, instead of an API key.")
    elasticsearch_password: SecretStr = Field(SecretStr(""), description="Password of that user. Environment only.")
    elasticsearch_ca: Path | None = Field(None, description="File of certificates that the servers' are checked with.")
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

    objects: Literal["folder", "s3"] = Field("folder", description="The object store: a folder, or MinIO and other S3.")
    s3_endpoint: str = Field("", description="`host:port` of the S3 server, without scheme.")
    s3_access_key: SecretStr = Field(SecretStr(""), description="Name of the S3 user. Environment only.")
    s3_secret_key: SecretStr = Field(SecretStr(""), description="Password of the S3 user. Environment only.")
    s3_secure: bool = Field(True, description="Whether the S3 server is reached by TLS.")
    s3_region: str = Field("", description="Region of the buckets; empty asks the server.")
    s3_ca: Path | None = Field(None, description="File of certificates that the S3 server's is checked with.")
    s3_timeout_s: float = Field(60.0, gt=0, description="Seconds without a byte after which an S3 request is lost.")
    s3_attempts: int = Field(8, ge=1, description="How often an S3 request is sent before the store is unavailable.")

    pacs: Literal["folder", "dicomweb", "dimse"] = Field(
        "folder", description="The PACS: a folder, DICOMweb, or C-STORE in and DICOMweb out."
    )
    dicomweb_url: str = Field("", description="Root of the archive's DICOMweb services, without user and password.")
    dicomweb_user: str = Field("", description="User of the archive (HTTP Basic).")
    dicomweb_password: SecretStr = Field(SecretStr(""), description="Password of that user. Environment only.")
    dicomweb_token: SecretStr = Field(SecretStr(""), description="Bearer token of the archive. Environment only.")
    dicomweb_ca: Path | None = Field(None, description="File of certificates that the archive's is checked with.")
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

    @field_validator("allowed_calling_ae_titles", "allowed_hosts", "elasticsearch_urls", mode="before")
    @classmethod
    def _split_titles(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(title.strip() for title in value.split(",") if title.strip())
        return value

    @field_validator("elasticsearch_urls")
    @classmethod
    def _are_http(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        instead = "use KAAPANA_ELASTICSEARCH_USER and KAAPANA_ELASTICSEARCH_PASSWORD"
        for url in value:
            found = split_address(url, example="https://host:9200", schemes=("http", "https"), instead=instead)
            if not found.port:
                raise ValueError("has no port: is not an address like https://host:9200")
        return value

    @field_validator("allowed_hosts")
    @classmethod
    def _are_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            authority(name)
        return value

    @field_validator("docker_url")
    @classmethod
    def _has_no_user(cls, value: str) -> str:
        if not value.startswith("unix://") and ("@" in value or "?" in value):
            raise ValueError("names a user or has parameters: use the engine's socket, or a tunnel that logs in")
        return value

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

    @field_validator("home", "images", "environments", "kubeconfig", "s3_ca", "dicomweb_ca", "elasticsearch_ca")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else ((_paths_begin_in.get() or Path()) / value.expanduser()).absolute()

    @field_validator("s3_ca", "dicomweb_ca", "elasticsearch_ca")
    @classmethod
    def _is_file(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError(f"there is no file {value}")
        return value

    @model_validator(mode="after")
    def _stores_have_what_they_need(self) -> Settings:
        needed = {
            "KAAPANA_INDEX=elasticsearch": (self.index == "elasticsearch", ("elasticsearch_urls",)),
            "KAAPANA_OBJECTS=s3": (self.objects == "s3", ("s3_endpoint", "s3_access_key", "s3_secret_key")),
            "KAAPANA_PACS=dicomweb": (self.pacs == "dicomweb", ("dicomweb_url",)),
            "KAAPANA_PACS=dimse": (self.pacs == "dimse", ("dimse_url", "dicomweb_url")),
            "KAAPANA_RUN_LAUNCHER=kubernetes": (
                self.run_launcher == "kubernetes",
                ("postgres_url", "kubernetes_run_image"),
            ),
        }
        for setting, (chosen, names) in needed.items():
            for name in names:
                if chosen and self._lacks(name):
                    raise ValueError(f"{setting} needs KAAPANA_{name.upper()}")
        if self.run_launcher == "kubernetes" and self.runner != "kubernetes":
            raise ValueError(
                "KAAPANA_RUN_LAUNCHER=kubernetes needs KAAPANA_RUNNER=kubernetes: a pod of a run has no engine and no "
                "environments to start operators in"
            )
        if _text(self.postgres_password) and not urlsplit(self.postgres_url).username:
            raise ValueError("KAAPANA_POSTGRES_PASSWORD needs KAAPANA_POSTGRES_URL with a user")
        if self._lacks_half("dicomweb_user", "dicomweb_password"):
            raise ValueError("KAAPANA_DICOMWEB_USER and KAAPANA_DICOMWEB_PASSWORD go together: one of them is not set")
        if self.dicomweb_user and _text(self.dicomweb_token):
            raise ValueError("KAAPANA_DICOMWEB_TOKEN and KAAPANA_DICOMWEB_USER exclude each other")
        if self._lacks_half("elasticsearch_user", "elasticsearch_password"):
            raise ValueError("KAAPANA_ELASTICSEARCH_USER and KAAPANA_ELASTICSEARCH_PASSWORD go together")
        if self.elasticsearch_user and _text(self.elasticsearch_api_key):
            raise ValueError("KAAPANA_ELASTICSEARCH_API_KEY and KAAPANA_ELASTICSEARCH_USER exclude each other")
        if self.elasticsearch_ca and self.elasticsearch_fingerprint:
            raise ValueError("KAAPANA_ELASTICSEARCH_CA and KAAPANA_ELASTICSEARCH_FINGERPRINT exclude each other")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Secrets in a file are refused, see ``_FileWithoutSecrets``."""
        file = dotenv_settings.env_file if isinstance(dotenv_settings, DotEnvSettingsSource) else None
        return init_settings, env_settings, _FileWithoutSecrets(settings_cls, env_file=file)

    @field_validator("home")
    @classmethod
    def _is_folder(cls, value: Path) -> Path:
        try:
            if value.exists() and not value.is_dir():
                raise ValueError(f"{value} is no folder")
        except PermissionError as exc:
            raise ValueError(f"{value} is in a folder that this user may not enter") from exc
        return value

    @model_validator(mode="after")
    def _loopback_or_restricted(self) -> Settings:
        if not is_loopback(self.receiver_host) and not self.allowed_calling_ae_titles:
            raise ValueError(
                f"KAAPANA_RECEIVER_HOST={self.receiver_host} is not loopback: set "
                "KAAPANA_ALLOWED_CALLING_AE_TITLES to the senders that may reach it"
            )
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

    def stores(self) -> dict[str, str]:
        """Which server or folder each store is, without credentials; those of two processes must be the same."""
        archive = f"{self.pacs} {self.dicomweb_url}"
        if self.pacs == "dimse":
            archive += f" {self.dimse_url}"
        servers = " ".join(sorted(self.elasticsearch_urls))
        return {
            "pacs": f"folder {self.home / 'archive'}" if self.pacs == "folder" else archive,
            "index": (
                f"sqlite {self.home / 'index.sqlite'}"
                if self.index == "sqlite"
                else f"elasticsearch {servers}, {self.elasticsearch_index}"
            ),
            "objects": f"folder {self.home / 'objects'}" if self.objects == "folder" else f"s3 {self.s3_endpoint}",
        }

    @property
    def receiver_share(self) -> int:
        """How many associations one address may have."""
        limit = self.receiver_max_associations
        return self.receiver_max_associations_per_address or max(1, limit - max(1, limit // 10))

    @property
    def dagster_url(self) -> str:
        """Base address of Dagster's webserver."""
        return f"http://{bracketed(self.webserver_host)}:{self.webserver_port}"

    @property
    def health_url(self) -> str:
        """Address of the health page."""
        return f"http://{bracketed(self.health_host)}:{self.health_port}/"

    def _lacks(self, name: str) -> bool:
        """Whether a setting is not there, and is no secret that this process does without."""
        return not _text(getattr(self, name)) and not is_withheld(f"KAAPANA_{name.upper()}")

    def _lacks_half(self, user: str, password: str) -> bool:
        if getattr(self, user):
            return self._lacks(password)
        return bool(_text(getattr(self, password)))


class _FileWithoutSecrets(DotEnvSettingsSource):
    """A ``.env`` file, which is easily copied and committed: no secrets are read from it."""

    def __call__(self) -> dict[str, Any]:
        found = super().__call__()
        secrets = [name for name in found if name in self.settings_cls.model_fields and _is_secret(self, name)]
        if secrets:
            raise ConfigurationError(
                f"KAAPANA_{secrets[0].upper()} is in the file {self.env_file}: secrets come from the environment only"
            )
        return found


def _is_secret(source: DotEnvSettingsSource, name: str) -> bool:
    return source.settings_cls.model_fields[name].annotation is SecretStr


def _text(value: str | SecretStr) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def is_loopback(host: str) -> bool:
    """Whether a host is this machine as only itself sees it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def take_environment(file: Path) -> None:
    """Set the variables ``KAAPANA_*`` of a file in the environment of this process and of those it starts.

    Unlike ``.env`` it is named by whoever starts a command, and may hold secrets: then only its owner
    may read it. Variables that the environment has already stay.

    Raises:
        ConfigurationError: it is not there, or others may read it.
    """
    try:
        mode = file.stat().st_mode
        values = dotenv_values(file, interpolate=False)
    except OSError as exc:
        raise ConfigurationError(f"the file of settings {file} cannot be read: {exc.strerror}") from exc
    if mode & 0o077:
        raise ConfigurationError(f"the file of settings {file} may be read by others: chmod 600 {file}")
    for name, value in values.items():
        if name.startswith("KAAPANA_") and value is not None and not is_withheld(name):
            os.environ.setdefault(name, value)


def current_site() -> Site:
    """Where settings are looked for and relative paths begin: found upwards, unless ``KAAPANA_HOME`` is set.

    Raises:
        ConfigurationError: what is found there belongs to another user, or others may change its settings.
    """
    here, named = Path.cwd(), os.environ.get("KAAPANA_HOME")
    return find_site(here) if named is None else site_of_named_home(here, Path(named))


def _check_names(variables: Mapping[str, str | None], *, where: str) -> None:
    """Refuse a variable that looks like a setting and is none: mistyped, it would be passed over without a word."""
    known = {f"KAAPANA_{name.upper()}" for name in Settings.model_fields}
    for name, value in variables.items():
        typed = name.upper()
        if not typed.startswith("KAAPANA_") or typed in known or typed.startswith(_NO_SETTINGS):
            continue
        if _OF_A_SERVICE.search(typed) or (value or "").startswith(("tcp://", "udp://")):
            continue  # Kubernetes tells pods so where services are
        near = difflib.get_close_matches(typed, known, n=1, cutoff=0.7)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigurationError(f"{name} {where} is no setting: {hint}docs/settings.md lists all")


def load_settings(**given: Any) -> Settings:  # noqa: ANN401 - pydantic checks them
    """The settings of this process.

    Args:
        given: fields that a command's options set, which win over the environment.

    Raises:
        ConfigurationError: there is no such setting, or it has a value that cannot work; the message names it.
    """
    site = current_site()
    _check_names(os.environ, where="in the environment")
    if site.env_file is not None and site.env_file.is_file():
        _check_names(dotenv_values(site.env_file, interpolate=False), where=f"in {site.env_file}")
    token = _paths_begin_in.set(site.folder)
    try:
        return Settings(_env_file=site.env_file, **given)
    except ValidationError as exc:
        lines = []
        for error in exc.errors():
            name = "KAAPANA_" + "_".join(str(part) for part in error["loc"]).upper() if error["loc"] else ""
            lines.append(f"{name}: {error['msg']}" if name else error["msg"])
        raise ConfigurationError("; ".join(lines)) from exc
    finally:
        _paths_begin_in.reset(token)
