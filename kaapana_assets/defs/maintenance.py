"""The nightly job that removes what failed runs left behind, and old logs."""

from datetime import datetime, timedelta, timezone

import dagster as dg

from kaapana_assets.defs.logs import remove_logs
from kaapana_assets.defs.resources import Platform
from kaapana_assets.stores.files.retention import remove_left_behind


@dg.op(description="Removes run directories older than KAAPANA_RUN_RETENTION_DAYS.")
def remove_old_run_directories(context: dg.OpExecutionContext, platform: Platform) -> None:
    """Remove what failed runs left behind, and log what was removed."""
    settings = platform.settings

    def left(problem: str) -> None:
        context.log.warning("not removed: %s", problem)

    for path in remove_left_behind(settings.home, days=settings.run_retention_days, left=left):
        context.log.info("removed %s", path)


@dg.op(description="Removes logs of runs, and what they printed, older than KAAPANA_DAGSTER_RETENTION_DAYS.")
def remove_old_logs(context: dg.OpExecutionContext, platform: Platform) -> None:
    """Remove old logs of runs; the history of assets is kept."""
    days = platform.settings.dagster_retention_days
    removed = remove_logs(context.instance, before=datetime.now(timezone.utc) - timedelta(days=days))
    context.log.info("removed %d events of logs, and what operators printed, older than %g days", removed, days)


@dg.job(executor_def=dg.in_process_executor, description="Removes what failed runs left behind.")
def clean() -> None:
    """Remove what failed runs left behind."""
    remove_old_run_directories()
    remove_old_logs()


@dg.schedule(job=clean, cron_schedule="30 3 * * *", default_status=dg.DefaultScheduleStatus.RUNNING)
def nightly_clean() -> dg.RunRequest:
    """Run the job ``clean`` every night."""
    return dg.RunRequest()
