"""Settings of the home."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from kaapana_assets.home import NAME
from kaapana_assets.home_paths import HomePaths
from kaapana_assets.settings.section import AbsolutePath, Section


class HomeSettings(Section):
    """The folder of data, and the group that may read it."""

    home: AbsolutePath = Field(Path(NAME), validate_default=True, description="The folder of all data of the platform.")
    group: str = Field(
        "",
        pattern=r"^([a-z_][a-z0-9_.-]{0,31}\$?|[0-9]{1,10})?$",
        description="Group (name or number) that may read in `KAAPANA_HOME`; empty: nobody but the platform's user.",
    )

    @field_validator("home")
    @classmethod
    def _is_folder(cls, value: Path) -> Path:
        try:
            if value.exists() and not value.is_dir():
                raise ValueError(f"{value} is no folder")
        except PermissionError as exc:
            raise ValueError(f"{value} is in a folder that this user may not enter") from exc
        return value

    @property
    def paths(self) -> HomePaths:
        """The paths below the home."""
        return HomePaths(self.home)
