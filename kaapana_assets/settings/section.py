"""The base of all sections of settings: the sources of values, and the types of values."""

from __future__ import annotations

import ipaddress
import re
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, SecretStr
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from kaapana_assets.errors import ConfigurationError
from kaapana_assets.withheld import is_withheld

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
paths_begin_in: ContextVar[Path | None] = ContextVar("folder of relative paths", default=None)


class Section(BaseSettings):
    """A group of settings; each field ``x`` is the variable ``KAAPANA_X``."""

    # Errors do not show the refused value, which may be a misplaced secret.
    model_config = SettingsConfigDict(
        env_prefix="KAAPANA_", env_file=".env", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Replace the source of ``.env`` files by one that refuses secrets; see ``_FileWithoutSecrets``."""
        file = dotenv_settings.env_file if isinstance(dotenv_settings, DotEnvSettingsSource) else None
        return init_settings, env_settings, _FileWithoutSecrets(settings_cls, env_file=file)

    def lacks(self, name: str) -> bool:
        """Whether a setting has no value, other than a secret that was withheld from this process."""
        return not text_of(getattr(self, name)) and not is_withheld(f"KAAPANA_{name.upper()}")

    def lacks_half(self, user: str, password: str) -> bool:
        """Whether exactly one of a user and its password is set."""
        if getattr(self, user):
            return self.lacks(password)
        return bool(text_of(getattr(self, password)))


class _FileWithoutSecrets(DotEnvSettingsSource):
    """Reads a ``.env`` file and refuses secrets in it, because such files are easily copied and committed."""

    def __call__(self) -> dict[str, Any]:
        found = super().__call__()
        fields = self.settings_cls.model_fields
        secrets = [name for name in found if name in fields and fields[name].annotation is SecretStr]
        if secrets:
            raise ConfigurationError(
                f"KAAPANA_{secrets[0].upper()} is in the file {self.env_file}: secrets come from the environment only"
            )
        return found


def text_of(value: str | SecretStr) -> str:
    """Return the text of a value that may be a secret."""
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def is_loopback(host: str) -> bool:
    """Whether a host is a loopback address, which only this machine can reach."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _split(value: object) -> object:
    if isinstance(value, str):
        return tuple(each.strip() for each in value.split(",") if each.strip())
    return value


def _absolute(value: Path) -> Path:
    return ((paths_begin_in.get() or Path()) / value.expanduser()).absolute()


def _existing_file(value: Path) -> Path:
    if not value.is_file():
        raise ValueError(f"there is no file {value}")
    return value


def _one_line(value: SecretStr) -> SecretStr:
    # Libraries refuse a line end with an error that contains the secret.
    if _CONTROL.search(value.get_secret_value()):
        raise ValueError(
            "has a line end or another control character: make its file or Secret without one (`printf %s`)"
        )
    return value


def _ascii(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().isascii():
        raise ValueError("has letters that no key of a server has: it may be another one, or cut in two")
    return value


Password = Annotated[SecretStr, AfterValidator(_one_line)]
ServerKey = Annotated[Password, AfterValidator(_ascii)]
"""A secret that is sent in a header."""
CommaSeparated = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
"""A path that is made absolute; a relative path starts from the folder of the site, see ``Site``."""
ExistingFile = Annotated[AbsolutePath, AfterValidator(_existing_file)]
