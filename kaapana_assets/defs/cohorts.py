"""The asset ``cohort``: a partition per frozen cohort, with the list of its series."""

import dagster as dg

from kaapana_assets.cohorts import cohort as cohorts
from kaapana_assets.defs.events import Made, record_made
from kaapana_assets.defs.partitions import COHORT, COHORTS, SERIES_METADATA
from kaapana_assets.defs.resources import Platform

_SHOWN = 1000


@dg.asset(
    key=COHORT,
    deps=[SERIES_METADATA],
    partitions_def=COHORTS,
    group_name="ingest",
    output_required=False,
    backfill_policy=dg.BackfillPolicy.multi_run(1),
    description="A frozen selection of series: the query that found them and the list that it found.",
)
def cohort(context: dg.AssetExecutionContext, platform: Platform):  # type: ignore[no-untyped-def]  # noqa: ANN201
    """Record the list of series in a cohort's file as an asset."""
    frozen = cohorts.read(platform.cohorts(), context.partition_key)
    # Without the query, which may contain a person's name; the file has it.
    metadata = {
        "series": dg.MetadataValue.int(len(frozen.series)),
        "frozen": dg.MetadataValue.text(frozen.created),
        "list": dg.MetadataValue.json(list(frozen.series[:_SHOWN])),
        "file": dg.MetadataValue.path(str(platform.cohorts() / f"{frozen.name}.json")),
    }
    made = Made(partition=frozen.name, data_version=frozen.digest, metadata=metadata)
    record_made(context.op_execution_context, COHORT, [made])
    return
    yield  # makes this a generator, as Dagster requires; record_made has recorded the asset


record_cohort_job = dg.define_asset_job("record_cohort", selection=[COHORT], executor_def=dg.in_process_executor)


@dg.sensor(
    name="frozen_cohorts",
    job=record_cohort_job,
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Makes partitions of cohorts that were frozen while Dagster was down.",
)
def frozen_cohorts(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SensorResult | dg.SkipReason:
    """Request a run for each cohort that has a file but no partition."""
    known = set(context.instance.get_dynamic_partitions("cohorts"))
    new = [name for name in cohorts.names(platform.cohorts()) if name not in known]
    if not new:
        return dg.SkipReason("every cohort has its partition")
    context.instance.add_dynamic_partitions("cohorts", new)
    return dg.SensorResult(run_requests=[dg.RunRequest(partition_key=name, run_key=name) for name in new])
