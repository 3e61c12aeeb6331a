"""The two assets of every series: its instances in the PACS and its document in the metadata index."""

import traceback
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone

import dagster as dg

from kaapana_assets.defs.events import Made, record_check, record_failed, record_made
from kaapana_assets.defs.partitions import DICOM_SERIES, SERIES, SERIES_METADATA
from kaapana_assets.defs.resources import Platform
from kaapana_assets.dicom.identifiers import is_uid
from kaapana_assets.dicom.limits import limits_of
from kaapana_assets.errors import KaapanaAssetsError, SeriesSetAside, StoreUnavailable
from kaapana_assets.ingest.crashes import MAX_CRASHES
from kaapana_assets.ingest.ingestor import IngestedSeries, Ingestor
from kaapana_assets.ingest.spool import open_spool

GROUP = "ingest"
CHECK = "instances_are_consistent"

ARRIVALS_TAG = "kaapana_assets/arrivals"
"""Tag of the runs that the sensor requests: they skip the series of their range that have no files in the spool."""

_RECORD_TOGETHER = 100
_SHOWN = 100
# A single failure may be the fault of its series. After this many in a row, a store is away, and every further
# series would only wait as long as these did.
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
            description="The series of the latest ingest have no duplicate instances, gaps or jumps between slices, "
            "mixed sizes or frames of reference. What was found in a series stands with its materialization, too.",
        )
    ],
    partitions_def=SERIES,
    backfill_policy=dg.BackfillPolicy.single_run(),
    can_subset=True,
)
def ingest_series(context: dg.AssetExecutionContext, platform: Platform):  # type: ignore[no-untyped-def]  # noqa: ANN201
    """Ingest the series of the partition range from the spool into the PACS and the index."""
    settings = platform.settings
    ingestor = Ingestor(
        spool=open_spool(settings),
        pacs=platform.pacs(),
        index=platform.index(),
        scratch=settings.paths.scratch,
        limits=limits_of(settings),
    )
    with ingestor.spool.ingest_lock():
        failed = _ingest(context, ingestor)
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
    yield  # makes this a generator, as Dagster requires; each series is recorded by itself


def _ingest(context: dg.AssetExecutionContext, ingestor: Ingestor) -> dict[str, str]:
    """Ingest the series, record them and remove them from the spool; return those that failed, with reasons."""
    failed: dict[str, str] = {}
    ingested: list[IngestedSeries] = []
    series = _in_order(context, ingestor)
    crashes = ingestor.spool.crashes
    inconsistent: dict[str, list[str]] = {}
    away = place = checked = 0
    for place, uid in enumerate(series, start=1):
        if crashes.count(uid):
            # This series may crash the process again, so the series before it are recorded first.
            _finish(context, ingestor, ingested)
        try:
            ingested.append(_ingested(ingestor, uid))
            checked += 1
            if ingested[-1].findings:
                inconsistent[uid] = _findings(ingested[-1])
            away = 0
        except KaapanaAssetsError as exc:
            failed[uid] = str(exc)
            context.log.error("series %s: %s", uid, exc)
            away = away + 1 if isinstance(exc, StoreUnavailable) else 0
        except Exception as exc:  # noqa: BLE001 - a header that breaks a library must not stop the other series
            failed[uid] = f"{type(exc).__name__} in {_place(exc)}"
            context.log.error("series %s: %s", uid, failed[uid])
        is_last = place == len(series) or away == _AWAY_ENOUGH
        if len(ingested) == _RECORD_TOGETHER or is_last:
            _finish(context, ingestor, ingested)
            context.log.info("%d of %d series are in the PACS and the index", place - len(failed), len(series))
        if is_last:
            break
    if checked:
        record_check(context.op_execution_context, _evaluation(inconsistent, checked=checked))
    if away == _AWAY_ENOUGH and place < len(series):
        context.log.warning(
            "a store is away: %d series are left in the spool, the sensor asks for them again later",
            len(series) - place,
        )
    return failed


def _in_order(context: dg.AssetExecutionContext, ingestor: Ingestor) -> list[str]:
    """Return the series to ingest in order; those that crashed an ingest before come last."""
    crashes = ingestor.spool.crashes
    suspect = crashes.record_last()
    if suspect is not None:
        context.log.warning(
            "the last ingest died (killed, out of memory, a crash) over series %s, which now comes last",
            suspect,
        )
    series = list(context.partition_keys)
    if context.run.tags.get(ARRIVALS_TAG):
        series = [uid for uid in series if is_uid(uid) and ingestor.spool.files(uid)]
    return sorted(series, key=crashes.count)


def _ingested(ingestor: Ingestor, uid: str) -> IngestedSeries:
    """Ingest a series, or move it to the quarantine if it crashed ingest too often.

    Raises:
        KaapanaAssetsError: see ``Ingestor.ingest``; SeriesSetAside if the series was moved to the quarantine.
    """
    crashes = ingestor.spool.crashes
    died = crashes.count(uid)
    if died >= MAX_CRASHES:
        reason = (
            f"series {uid}: ingest died {died} times (killed, out of memory, a crash) while it took this series in, "
            "the last time after all others"
        )
        files = ingestor.quarantine(uid, reason)
        crashes.forget(uid)
        raise SeriesSetAside(f"{reason}: its {files} files are in the quarantine, `import` them to try again")
    with crashes.watching(uid):
        return ingestor.ingest(uid, now=datetime.now(timezone.utc))


def _finish(context: dg.AssetExecutionContext, ingestor: Ingestor, ingested: list[IngestedSeries]) -> None:
    """Record the ingested series, remove their files from the spool and clear the list."""
    _record(context.op_execution_context, ingested)
    if DICOM_SERIES in context.selected_asset_keys:  # else the files stay for a run that records them
        for series in ingested:
            ingestor.remove_from_spool(series)
    ingested.clear()


def _place(exc: Exception) -> str:
    # Without the message, which may contain values of the header.
    frame = traceback.extract_tb(exc.__traceback__)[-1]
    return f"{frame.filename}:{frame.lineno}"


def _record(context: dg.OpExecutionContext, ingested: list[IngestedSeries]) -> None:
    made = [
        Made(partition=a.stored.series_instance_uid, data_version=a.stored.digest, metadata=_series_metadata(a))
        for a in ingested
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
        for a in ingested
    ]
    if SERIES_METADATA in selected:
        record_made(context, SERIES_METADATA, documents)


def _series_metadata(series: IngestedSeries) -> dict[str, dg.MetadataValue]:
    stored = series.stored
    metadata: dict[str, dg.MetadataValue] = {
        "instances": dg.MetadataValue.int(len(stored.instances)),
        "new instances": dg.MetadataValue.int(series.new_instances),
        "size (bytes)": dg.MetadataValue.int(sum(instance.size_bytes for instance in stored.instances)),
        "modality": dg.MetadataValue.text(str(series.document.get("Modality", ""))),
        "StudyInstanceUID": dg.MetadataValue.text(stored.study_instance_uid),
    }
    if series.findings:
        metadata["findings"] = dg.MetadataValue.json(_findings(series))
    if series.quarantined:
        metadata["files set aside"] = dg.MetadataValue.int(series.quarantined)
    return metadata


def _findings(series: IngestedSeries) -> list[str]:
    return [f"{finding.kind.value}: {finding.message}" for finding in series.findings]


def _evaluation(inconsistent: Mapping[str, Sequence[str]], *, checked: int) -> dg.AssetCheckEvaluation:
    """Return the outcome of the check over the series of one run.

    Args:
        inconsistent: the findings of each inconsistent series, by SeriesInstanceUID.
        checked: the number of series that were checked.
    """
    table = [
        dg.TableRecord({"SeriesInstanceUID": uid, "finding": finding})
        for uid, findings in list(inconsistent.items())[:_SHOWN]
        for finding in findings
    ]
    columns = [dg.TableColumn("SeriesInstanceUID"), dg.TableColumn("finding")]
    metadata: dict[str, dg.MetadataValue] = {
        "series": dg.MetadataValue.int(checked),
        "inconsistent series": dg.MetadataValue.int(len(inconsistent)),
    }
    if table:
        metadata["findings"] = dg.MetadataValue.table(table, schema=dg.TableSchema(columns))
    return dg.AssetCheckEvaluation(
        asset_key=DICOM_SERIES,
        check_name=CHECK,
        passed=not inconsistent,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{len(inconsistent)} of {checked} series are inconsistent" if inconsistent else None,
        metadata=metadata,
    )


ingest_job = dg.define_asset_job(
    "ingest",
    # The check is evaluated even so, once for each run.
    selection=dg.AssetSelection.assets(DICOM_SERIES, SERIES_METADATA).without_checks(),
    executor_def=dg.in_process_executor,
    description="Brings arrived series from the spool into the PACS and the index.",
)
