"""The two assets that every series has: in the PACS, and in the metadata index."""

import traceback
from datetime import datetime, timezone

import dagster as dg

from kaapana_assets.defs.events import Made, record_checks, record_failed, record_made
from kaapana_assets.defs.partitions import DICOM_SERIES, SERIES, SERIES_METADATA
from kaapana_assets.defs.resources import Platform
from kaapana_assets.dicom.identifiers import is_uid
from kaapana_assets.dicom.limits import limits_of
from kaapana_assets.errors import KaapanaAssetsError, SeriesSetAside, StoreUnavailable
from kaapana_assets.ingest.abnormal_ends import SET_ASIDE_AFTER
from kaapana_assets.ingest.arrival import Arrival, Reception
from kaapana_assets.ingest.spool import open_spool

GROUP = "ingest"
CHECK = "instances_are_consistent"

ARRIVALS_TAG = "kaapana_assets/arrivals"
"""Set on runs of the sensor: series of the range of which nothing waits any more are left alone."""

_RECORD_TOGETHER = 100
# One series may be at fault itself. After so many in a row the store is, and each of the others would
# only wait for as long as these did.
_AWAY_ENOUGH = 3


@dg.multi_asset(
    name="ingest_series",
    specs=[
        dg.AssetSpec(
            DICOM_SERIES,
            group_name=GROUP,
            kinds={"dicom"},
            skippable=True,
            description="The series in the PACS. Its data version is the digest of its instances.",
        ),
        dg.AssetSpec(
            SERIES_METADATA,
            deps=[DICOM_SERIES],
            group_name=GROUP,
            kinds={"json"},
            skippable=True,
            description="One searchable document per series: every attribute of its header under its DICOM keyword.",
        ),
    ],
    check_specs=[
        dg.AssetCheckSpec(
            CHECK,
            asset=DICOM_SERIES,
            partitions_def=SERIES,
            description="No duplicate instances, gaps or jumps between slices, mixed sizes or frames of reference.",
        )
    ],
    partitions_def=SERIES,
    backfill_policy=dg.BackfillPolicy.single_run(),
    can_subset=True,
)
def ingest_series(context: dg.AssetExecutionContext, platform: Platform):  # type: ignore[no-untyped-def]  # noqa: ANN201
    """Bring the series of the partition range from the spool into the PACS and the index."""
    settings = platform.settings
    reception = Reception(
        spool=open_spool(settings),
        pacs=platform.pacs(),
        index=platform.index(),
        scratch=settings.paths.scratch,
        limits=limits_of(settings),
    )
    with reception.spool.one_taker():
        failed = _take_in(context, reception)
    if failed:
        for key in context.selected_asset_keys:
            record_failed(context.op_execution_context, key, sorted(failed))
        first = next(iter(failed.items()))
        raise dg.Failure(
            f"{len(failed)} series failed, the rest is done; first {first[0]}: {first[1]}",
            metadata={"failed series": dg.MetadataValue.json(failed)},
            allow_retries=False,
        )
    return
    yield  # what was made is recorded per series; Dagster only has to see a generator


def _take_in(context: dg.AssetExecutionContext, reception: Reception) -> dict[str, str]:
    """The series that failed, with the reason; all others are recorded and out of the spool."""
    failed: dict[str, str] = {}
    arrivals: list[Arrival] = []
    series = _in_order(context, reception)
    ends = reception.spool.abnormal_ends
    away = place = 0
    for place, uid in enumerate(series, start=1):
        if ends.of(uid):
            # It may take this process along: what was done before must not be lost with it.
            _finish(context, reception, arrivals)
        try:
            arrivals.append(_arrival(reception, uid))
            away = 0
        except KaapanaAssetsError as exc:
            failed[uid] = str(exc)
            context.log.error("series %s: %s", uid, exc)
            away = away + 1 if isinstance(exc, StoreUnavailable) else 0
        except Exception as exc:  # noqa: BLE001 - one header that a library chokes on must not stop the others
            failed[uid] = f"{type(exc).__name__} in {_place(exc)}"
            context.log.error("series %s: %s", uid, failed[uid])
        is_last = place == len(series) or away == _AWAY_ENOUGH
        if len(arrivals) == _RECORD_TOGETHER or is_last:
            _finish(context, reception, arrivals)
            context.log.info("%d of %d series are in the PACS and the index", place - len(failed), len(series))
        if is_last:
            break
    if away == _AWAY_ENOUGH and place < len(series):
        context.log.warning(
            "a store is away: %d series are left in the spool, the sensor asks for them again later",
            len(series) - place,
        )
    return failed


def _in_order(context: dg.AssetExecutionContext, reception: Reception) -> list[str]:
    """The series to take in; those over which a process died come last, so that all others are done before."""
    ends = reception.spool.abnormal_ends
    suspect = ends.count_last()
    if suspect is not None:
        context.log.warning(
            "the last ingest died (killed, out of memory, a crash) over series %s, which now comes last",
            suspect,
        )
    series = list(context.partition_keys)
    if context.run.tags.get(ARRIVALS_TAG):
        series = [uid for uid in series if is_uid(uid) and reception.spool.files(uid)]
    return sorted(series, key=ends.of)


def _arrival(reception: Reception, uid: str) -> Arrival:
    """A series taken in; one over which too many processes died is set aside.

    Raises:
        KaapanaAssetsError: see ``Reception.take_in``; SeriesSetAside of one that is set aside.
    """
    ends = reception.spool.abnormal_ends
    died = ends.of(uid)
    if died >= SET_ASIDE_AFTER:
        reason = (
            f"series {uid}: ingest died {died} times (killed, out of memory, a crash) while it took this series in, "
            "the last time after all others"
        )
        files = reception.set_aside(uid, reason)
        ends.forget(uid)
        raise SeriesSetAside(f"{reason}: its {files} files are in the quarantine, `import` them to try again")
    with ends.noted(uid):
        return reception.take_in(uid, now=datetime.now(timezone.utc))


def _finish(context: dg.AssetExecutionContext, reception: Reception, arrivals: list[Arrival]) -> None:
    """Record arrivals and take them out of the spool; none are left in the list."""
    _record(context.op_execution_context, arrivals)
    if DICOM_SERIES in context.selected_asset_keys:  # else it waits for a run that records it
        for arrival in arrivals:
            reception.release(arrival)
    arrivals.clear()


def _place(exc: Exception) -> str:
    # Not its message, which may hold values of the header.
    frame = traceback.extract_tb(exc.__traceback__)[-1]
    return f"{frame.filename}:{frame.lineno}"


def _record(context: dg.OpExecutionContext, arrivals: list[Arrival]) -> None:
    made = [
        Made(partition=a.stored.series_instance_uid, data_version=a.stored.digest, metadata=_series_metadata(a))
        for a in arrivals
    ]
    selected = context.selected_asset_keys
    if DICOM_SERIES in selected:
        record_made(context, DICOM_SERIES, made)
    documents = [
        Made(
            partition=a.stored.series_instance_uid,
            data_version=a.stored.digest,
            inputs={DICOM_SERIES: a.stored.digest},
            metadata={"attributes": dg.MetadataValue.int(len(a.document))},
        )
        for a in arrivals
    ]
    if SERIES_METADATA in selected:
        record_made(context, SERIES_METADATA, documents)
    record_checks(context, [_evaluation(a) for a in arrivals])


def _series_metadata(arrival: Arrival) -> dict[str, dg.MetadataValue]:
    stored = arrival.stored
    metadata: dict[str, dg.MetadataValue] = {
        "instances": dg.MetadataValue.int(len(stored.instances)),
        "new instances": dg.MetadataValue.int(arrival.new_instances),
        "size (bytes)": dg.MetadataValue.int(sum(instance.size_bytes for instance in stored.instances)),
        "modality": dg.MetadataValue.text(str(arrival.document.get("Modality", ""))),
        "StudyInstanceUID": dg.MetadataValue.text(stored.study_instance_uid),
    }
    if arrival.quarantined:
        metadata["files set aside"] = dg.MetadataValue.int(arrival.quarantined)
    return metadata


def _evaluation(arrival: Arrival) -> dg.AssetCheckEvaluation:
    found = [f"{finding.kind.value}: {finding.message}" for finding in arrival.findings]
    return dg.AssetCheckEvaluation(
        asset_key=DICOM_SERIES,
        check_name=CHECK,
        passed=not found,
        severity=dg.AssetCheckSeverity.WARN,
        partition=arrival.stored.series_instance_uid,
        metadata={"findings": dg.MetadataValue.json(found)} if found else {},
    )


ingest_job = dg.define_asset_job(
    "ingest",
    # The check is evaluated all the same. Planned for a range, Dagster would write a row per series
    # that names all series of the range: 2,000 of them took a gigabyte.
    selection=dg.AssetSelection.assets(DICOM_SERIES, SERIES_METADATA).without_checks(),
    executor_def=dg.in_process_executor,
    description="Brings arrived series from the spool into the PACS and the index.",
)
