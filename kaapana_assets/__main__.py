"""``python -m kaapana_assets`` is the command ``kaapana-assets``."""

from __future__ import annotations

from kaapana_assets.cli import main

main()
