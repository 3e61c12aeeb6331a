"""Joins all sections of settings, reads them from the environment or a file, and checks them."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import ValidationError, model_validator
from typing_extensions import Self

from kaapana_assets.errors import ConfigurationError
from kaapana_assets.home import Site, find_site, site_of_named_home
from kaapana_assets.settings.dagster import DagsterSettings
from kaapana_assets.settings.home import HomeSettings
from kaapana_assets.settings.index import IndexSettings
from kaapana_assets.settings.kubernetes import KubernetesSettings
from kaapana_assets.settings.objects import ObjectSettings
from kaapana_assets.settings.operators import OperatorSettings
from kaapana_assets.settings.pacs import PacsSettings
from kaapana_assets.settings.receiver import ReceiverSettings
from kaapana_assets.settings.section import paths_begin_in, text_of
from kaapana_assets.settings.web import WebSettings
from kaapana_assets.withheld import is_withheld

# Set by the platform for its own processes, and by the tests' servers.
_NO_SETTINGS = ("KAAPANA_PLATFORM", "KAAPANA_WITHHELD", "KAAPANA_SERVICES_")
_OF_A_SERVICE = re.compile(r"_SERVICE_(HOST|PORT)(_|$)|_PORT_\d+_(TCP|UDP)")


class Settings(
    HomeSettings,
    ReceiverSettings,
    WebSettings,
    OperatorSettings,
    KubernetesSettings,
    DagsterSettings,
    PacsSettings,
    IndexSettings,
    ObjectSettings,
):
    """All settings of the platform; every field has a working default."""

    @model_validator(mode="after")
    def _stores_have_what_they_need(self) -> Self:
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
                if chosen and self.lacks(name):
                    raise ValueError(f"{setting} needs KAAPANA_{name.upper()}")
        if self.run_launcher == "kubernetes" and self.runner != "kubernetes":
            raise ValueError(
                "KAAPANA_RUN_LAUNCHER=kubernetes needs KAAPANA_RUNNER=kubernetes: a pod of a run has no engine and no "
                "environments to start operators in"
            )
        if text_of(self.postgres_password) and not urlsplit(self.postgres_url).username:
            raise ValueError("KAAPANA_POSTGRES_PASSWORD needs KAAPANA_POSTGRES_URL with a user")
        return self

    def stores(self) -> dict[str, str]:
        """Return the server or folder of each store, without credentials; all processes of a home must agree on it."""
        archive = f"{self.pacs} {self.dicomweb_url}"
        if self.pacs == "dimse":
            archive += f" {self.dimse_url}"
        servers = " ".join(sorted(self.elasticsearch_urls))
        return {
            "pacs": f"folder {self.paths.archive}" if self.pacs == "folder" else archive,
            "index": (
                f"sqlite {self.paths.index}"
                if self.index == "sqlite"
                else f"elasticsearch {servers}, {self.elasticsearch_index}"
            ),
            "objects": f"folder {self.paths.objects}" if self.objects == "folder" else f"s3 {self.s3_endpoint}",
        }


def take_environment(file: Path) -> None:
    """Set the variables ``KAAPANA_*`` of a file in the environment of this process and its children.

    Unlike ``.env``, the user names this file, and it may hold secrets, so only its owner may read it. Variables that
    are already set keep their values.

    Raises:
        ConfigurationError: the file cannot be read, or other users may read it.
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
    """Return the site: the folder where settings are read and relative paths start.

    The search goes upwards from the working directory, unless ``KAAPANA_HOME`` is set.

    Raises:
        ConfigurationError: the site belongs to another user, or other users may change its settings.
    """
    here, named = Path.cwd(), os.environ.get("KAAPANA_HOME")
    return find_site(here) if named is None else site_of_named_home(here, Path(named))


def _check_names(variables: Mapping[str, str | None], *, where: str) -> None:
    """Refuse a variable that looks like a setting but is not one; a typing error would be ignored silently."""
    known = {f"KAAPANA_{name.upper()}" for name in Settings.model_fields}
    for name, value in variables.items():
        typed = name.upper()
        if not typed.startswith("KAAPANA_") or typed in known or typed.startswith(_NO_SETTINGS):
            continue
        if _OF_A_SERVICE.search(typed) or (value or "").startswith(("tcp://", "udp://")):
            continue  # Kubernetes sets these variables in pods for its services
        near = difflib.get_close_matches(typed, known, n=1, cutoff=0.7)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigurationError(f"{name} {where} is no setting: {hint}docs/settings.md lists all")


def load_settings(**given: Any) -> Settings:  # noqa: ANN401 - pydantic checks them
    """Load the settings of this process.

    Args:
        given: fields that a command's options set; they take precedence over the environment.

    Raises:
        ConfigurationError: a setting is unknown or has an invalid value; the message names it.
    """
    site = current_site()
    _check_names(os.environ, where="in the environment")
    if site.env_file is not None and site.env_file.is_file():
        _check_names(dotenv_values(site.env_file, interpolate=False), where=f"in {site.env_file}")
    token = paths_begin_in.set(site.folder)
    try:
        return Settings(_env_file=site.env_file, **given)
    except ValidationError as exc:
        lines = []
        for error in exc.errors():
            name = "KAAPANA_" + "_".join(str(part) for part in error["loc"]).upper() if error["loc"] else ""
            lines.append(f"{name}: {error['msg']}" if name else error["msg"])
        raise ConfigurationError("; ".join(lines)) from exc
    finally:
        paths_begin_in.reset(token)
