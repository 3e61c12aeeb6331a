"""Builds the Dagster definitions of a platform from its settings and workflow files."""

import dagster as dg

from kaapana_assets import home_record
from kaapana_assets.containers.factory import open_runner
from kaapana_assets.defs.cohorts import cohort, frozen_cohorts, record_cohort_job
from kaapana_assets.defs.ingest.assets import ingest_job, ingest_series
from kaapana_assets.defs.ingest.sensors import arrivals
from kaapana_assets.defs.maintenance import clean, nightly_clean
from kaapana_assets.defs.resources import Platform
from kaapana_assets.defs.workflows.compiler import Compiled, compile_workflow
from kaapana_assets.defs.workflows.plan_gate import gate_for, hand_on, stand_ins
from kaapana_assets.defs.workflows.report_sensors import last_report_sensors
from kaapana_assets.errors import WorkflowError
from kaapana_assets.settings import Settings
from kaapana_assets.workflows.loader import load_workflow_files
from kaapana_assets.workflows.plan import Plan


def build_definitions(settings: Settings, *, launched: Plan | None = None) -> dg.Definitions:
    """Build the definitions of a platform: ingest, cohorts, and every workflow that can be loaded.

    A workflow file with an error becomes an asset ``workflow_errors/<file>`` whose description is the error.

    Args:
        settings: the settings of this process.
        launched: the plan of the run that this process executes. If this process loaded another plan, all steps
            refuse to work.

    Raises:
        ConfigurationError: a newer version wrote in the home.
    """
    home_record.read(settings.home)
    loaded = load_workflow_files(settings.home, open_runner(settings))
    if launched is None:
        hand_on(loaded.plan)
    gate = gate_for(launched, loaded.plan, loaded.problems)
    workflows = stand_ins(launched) if launched and gate.refusal else list(loaded.workflows.values())
    problems = loaded.problems
    compiled: list[Compiled] = []
    for workflow in workflows:
        versions = dict.fromkeys((operator.full_name for operator in workflow.operators), "")
        versions |= loaded.versions.get(workflow.name, {})
        try:
            compiled.append(compile_workflow(workflow, versions, gate, series_per_run=settings.series_per_launch))
        except WorkflowError as exc:
            problems[workflow.source] = f"workflow {workflow.name!r}: {exc}"
    return dg.Definitions(
        assets=[
            ingest_series,
            cohort,
            *(asset for made in compiled for asset in made.assets),
            *(_error_asset(file, reason) for file, reason in sorted(problems.items())),
        ],
        jobs=[ingest_job, record_cohort_job, clean, *(made.job for made in compiled)],
        sensors=[arrivals, frozen_cohorts, *last_report_sensors(workflows)],
        schedules=[nightly_clean],
        # Steps mostly wait for operators, so a process per step would only add its start-up time.
        executor=dg.in_process_executor,
        resources={"platform": Platform(images=dict(loaded.images))},
    )


def _error_asset(file: str, reason: str) -> dg.AssetSpec:
    return dg.AssetSpec(
        dg.AssetKey(["workflow_errors", file.replace("/", ":")]),
        group_name="workflow_errors",
        description=f"```\n{reason}\n```",
    )
