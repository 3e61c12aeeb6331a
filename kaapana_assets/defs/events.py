"""Writes events of partitions, and the check of a run, to Dagster's event log.

All materializations of series are written here, in batches: a single one takes 15 to 40 ms, one in a batch less than
1 ms. The callers decide what to record.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import dagster as dg
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_TAG,
    INPUT_DATA_VERSION_TAG_PREFIX,
    INPUT_EVENT_POINTER_TAG_PREFIX,
)
from dagster._core.events import AssetMaterializationPlannedData, DagsterEvent, DagsterEventBatchMetadata

# Dagster reads this variable at each event; without it, Dagster splits the batches below into single writes.
os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "1000")


@dataclass(frozen=True, kw_only=True)
class Made:
    """A partition of an asset that was materialized.

    Attributes:
        partition: its key.
        data_version: changes exactly when the content may have changed.
        inputs: the data version of each upstream asset that it was made from.
        metadata: shown in the web UI; must name no person.
    """

    partition: str
    data_version: str
    inputs: Mapping[dg.AssetKey, str] = field(default_factory=dict)
    metadata: Mapping[str, dg.MetadataValue] = field(default_factory=dict)


def record_made(
    context: dg.OpExecutionContext, asset: dg.AssetKey, made: Sequence[Made], *, code_version: str | None = None
) -> None:
    """Write a materialization of each partition, in one batch.

    Its tags are the versions of the data, of its inputs and of the code. From them, Dagster tells later which
    partitions are out of date and why.
    """
    if not made:
        return
    upstream = sorted({key for item in made for key in item.inputs})
    pointers = _latest_materializations(context.instance, upstream)
    step = context.get_step_execution_context()
    batch = f"{context.run_id}/{asset.to_user_string()}/{made[0].partition}"
    for place, item in enumerate(made, start=1):
        tags = {DATA_VERSION_TAG: item.data_version}
        if code_version is not None:
            tags[CODE_VERSION_TAG] = code_version
        for key, version in item.inputs.items():
            tags[f"{INPUT_DATA_VERSION_TAG_PREFIX}/{key.to_user_string()}"] = version
            if key in pointers:
                tags[f"{INPUT_EVENT_POINTER_TAG_PREFIX}/{key.to_user_string()}"] = str(pointers[key])
        event = dg.AssetMaterialization(asset_key=asset, partition=item.partition, metadata=item.metadata, tags=tags)
        DagsterEvent.asset_materialization(
            step, event, batch_metadata=DagsterEventBatchMetadata(id=batch, is_end=place == len(made))
        )


def record_failed(context: dg.OpExecutionContext, asset: dg.AssetKey, partitions: Sequence[str]) -> None:
    """Mark partitions as planned in this run, so that Dagster shows them as failed once the run fails."""
    for partition in partitions:
        planned = AssetMaterializationPlannedData(asset, partition=partition, partitions_subset=None)
        context.instance.report_dagster_event(
            DagsterEvent.build_asset_materialization_planned_event(context.job_name, str(context.op_handle), planned),
            context.run_id,
        )


def record_check(context: dg.OpExecutionContext, evaluation: dg.AssetCheckEvaluation) -> None:
    """Write the outcome of an asset check, once for each run and not for each partition.

    Dagster keeps no state of checks, so its pages send a query for each partition that was ever evaluated: 18 s for
    10,000 partitions.
    """
    DagsterEvent.asset_check_evaluation(context.get_step_execution_context(), evaluation)


def _latest_materializations(instance: dg.DagsterInstance, assets: Sequence[dg.AssetKey]) -> dict[dg.AssetKey, int]:
    pointers = {}
    for record in instance.get_asset_records(list(assets)) if assets else []:
        storage_id = record.asset_entry.last_materialization_storage_id
        if storage_id is not None:
            pointers[record.asset_entry.asset_key] = storage_id
    return pointers
