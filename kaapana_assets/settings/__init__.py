"""All settings, in a section for each part of the platform, read from the environment or a ``.env`` file.

Each field ``x`` is the environment variable ``KAAPANA_X``. Secrets are read from the environment only. No other
module reads settings from the environment.
"""

from kaapana_assets.settings.loading import Settings, current_site, load_settings, take_environment
from kaapana_assets.settings.operators import PROJECT_ROOT
from kaapana_assets.settings.section import is_loopback

__all__ = ["PROJECT_ROOT", "Settings", "current_site", "is_loopback", "load_settings", "take_environment"]
