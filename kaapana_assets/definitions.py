"""All assets, jobs and sensors of the platform, put together for Dagster. No logic of their own."""

import dagster as dg

from kaapana_assets.containers.opening import open_runner
from kaapana_assets.errors import KaapanaAssetsError, WorkflowError
from kaapana_assets.ingest.assets import ingest_job, ingest_series
from kaapana_assets.ingest.sensors import arrivals
from kaapana_assets.resources import Platform
from kaapana_assets.settings import Settings, load_settings
from kaapana_assets.workflows.cleaning import clean, nightly_clean
from kaapana_assets.workflows.cohort_asset import cohort, frozen_cohorts, record_cohort_job
from kaapana_assets.workflows.compiler import Compiled, compile_workflow, names_in_dagster
from kaapana_assets.workflows.loader import load_platform_workflows


def build_definitions(settings: Settings) -> dg.Definitions:
    """The definitions of a platform: ingest, cohorts, and every workflow that can be loaded.

    Workflow files that cannot be loaded stand as assets ``workflow_errors/<file>`` that say why.
    """
    loaded = load_platform_workflows(settings.home)
    runner = open_runner(settings)
    compiled: list[Compiled] = []
    taken: dict[str, str] = {}
    for workflow in loaded.workflows.values():
        names = names_in_dagster(workflow)
        try:
            if same := sorted(names & taken.keys()):
                raise WorkflowError(f"it and {taken[same[0]]!r} would both have {same[0]!r} in Dagster: rename it")
            compiled.append(compile_workflow(workflow, runner, series_per_run=settings.series_per_launch))
        except KaapanaAssetsError as exc:
            loaded.errors[workflow.source] = f"workflow {workflow.name!r}: {exc}"
        else:
            taken |= dict.fromkeys(names, workflow.name)
    return dg.Definitions(
        assets=[
            ingest_series,
            cohort,
            *(asset for made in compiled for asset in made.assets),
            *(_error_asset(file, reason) for file, reason in sorted(loaded.errors.items())),
        ],
        jobs=[ingest_job, record_cohort_job, clean, *(made.job for made in compiled)],
        sensors=[arrivals, frozen_cohorts],
        schedules=[nightly_clean],
        # The operators do the work; a process for each step would only cost its start.
        executor=dg.in_process_executor,
        resources={"platform": Platform()},
    )


def _error_asset(file: str, reason: str) -> dg.AssetSpec:
    return dg.AssetSpec(
        dg.AssetKey(["workflow_errors", file]),
        group_name="workflow_errors",
        description=f"```\n{reason}\n```",
    )


defs = build_definitions(load_settings())
