"""Dagster sensors that complete the report of a run that ended before its last step."""

import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone

import dagster as dg

from kaapana_assets.defs.resources import Platform
from kaapana_assets.execution.last_report import EndedRun, state_of, write_last_report
from kaapana_assets.execution.report import RunState, Status
from kaapana_assets.workflows.model import REPORT, Workflow

_EVERY_S = 15
_EXCEPTION = re.compile(r"^[\w.]+: ")
_STATUSES: dict[dg.DagsterRunStatus, Status] = {
    dg.DagsterRunStatus.FAILURE: "failed",
    dg.DagsterRunStatus.CANCELED: "cancelled",
}
_TOLD = {
    dg.DagsterEventType.STEP_START,
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.RUN_FAILURE,
    dg.DagsterEventType.RUN_CANCELED,
}


def last_report_sensors(workflows: Iterable[Workflow]) -> list[dg.SensorDefinition]:
    """Return a sensor for failed runs and a sensor for cancelled runs."""
    known = list(workflows)
    return [_sensor(status, name, known) for status, name in _STATUSES.items()]


def _sensor(status: dg.DagsterRunStatus, name: str, workflows: Sequence[Workflow]) -> dg.SensorDefinition:
    @dg.run_status_sensor(
        run_status=status,
        name=f"report_of_{name}_runs",
        minimum_interval_seconds=_EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Completes the report of a cohort run that ended before it could write it.",
    )
    def sensor(context: dg.RunStatusSensorContext, platform: Platform) -> None:
        run = context.dagster_run
        workflow = next((each for each in workflows if _is_of(run, each)), None)
        cohort = run.tags.get("dagster/partition") or run.tags.get("dagster/asset_partition_range_start")
        if workflow is not None and cohort:
            ended = ended_run(context.instance, run, workflow, cohort)
            write_last_report(platform.settings.home, workflow, ended)

    return sensor


def ended_run(instance: dg.DagsterInstance, run: dg.DagsterRun, workflow: Workflow, cohort: str) -> EndedRun:
    """Read from Dagster's event log how a run of a workflow ended."""
    begun, failed, reason = set(), {}, ""
    for entry in instance.all_logs(run.run_id, of_type=_TOLD):
        event = entry.dagster_event
        if event is None:
            continue
        if event.event_type in (dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.RUN_CANCELED):
            reason = event.message or ""
        elif event.step_key is not None and event.event_type == dg.DagsterEventType.STEP_START:
            begun.add(event.step_key)
        elif event.step_key is not None:
            failed[event.step_key] = _said(event)
    record = instance.get_run_record_by_id(run.run_id)
    end = record.end_time if record is not None else None
    steps = RunState(status=_STATUSES[run.status], reason=reason, begun=frozenset(begun), failed=failed)
    return EndedRun(
        run_id=run.run_id,
        root_run_id=run.root_run_id or run.run_id,
        cohort=cohort,
        ended=datetime.now(timezone.utc) if end is None else datetime.fromtimestamp(end, timezone.utc),
        state=state_of(workflow, steps),
    )


def _is_of(run: dg.DagsterRun, workflow: Workflow) -> bool:
    report = dg.AssetKey([workflow.job_name, REPORT])
    return run.job_name == workflow.job_name or report in (run.asset_selection or ())


def _said(event: dg.DagsterEvent) -> str:
    """Return the step's own reason, without Dagster's wrapping and the name of the exception."""
    data = event.step_failure_data
    if data.user_failure_data is not None and data.user_failure_data.description:
        return data.user_failure_data.description
    error = data.error.cause or data.error if data.error is not None else None
    return event.message or "" if error is None else _EXCEPTION.sub("", error.message.strip())
