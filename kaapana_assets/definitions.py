"""The module that Dagster loads: all assets, jobs, sensors and schedules of the platform that the settings name."""

from kaapana_assets.defs.assembly import build_definitions
from kaapana_assets.defs.workflows.plan_gate import launched_plan
from kaapana_assets.home import keep_private
from kaapana_assets.settings import load_settings

_settings = load_settings()
# Here too, because no command of ours may have started this process: a run worker, a pod or `dagster dev`.
keep_private(_settings.group)
defs = build_definitions(_settings, launched=launched_plan())
