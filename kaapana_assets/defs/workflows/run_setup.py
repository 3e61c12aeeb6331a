"""Sets up a run: its first step lays out the run directory, and the other steps find it.

What the steps do in it is in ``ops``.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone

import dagster as dg

from kaapana_assets.cohorts import cohort as cohorts
from kaapana_assets.defs.resources import Platform
from kaapana_assets.durable import full_disk_told
from kaapana_assets.errors import EngineUnavailable, NotFound, ParameterError, StoreUnavailable
from kaapana_assets.execution.run_context import RunContext, RunRequest, Stores
from kaapana_assets.execution.step_output import StepOutput
from kaapana_assets.retry import jittered
from kaapana_assets.stores.files.run_directory import RunDirectory
from kaapana_assets.stores.forgotten import series_being_forgotten
from kaapana_assets.tree_limits import Limits
from kaapana_assets.workflows.model import Workflow
from kaapana_assets.workflows.parameters import complete

_REPEATS = 5  # with default pauses of 10 s to 160 s, in addition to the stores' own retries
_LOGGED = 20
_OUTPUT = StepOutput()


def begin(context: dg.OpExecutionContext, platform: Platform, workflow: Workflow) -> RunContext:
    """Lay out the run directory of a cohort run and write the request into it."""
    cohort = cohorts.read(platform.cohorts(), context.partition_key)
    series, missing = _versions(platform, cohort.series)
    for uid, reason in list(missing.items())[:_LOGGED]:
        context.log.error("series %s: %s", uid, reason)
    if len(missing) > _LOGGED:  # each event takes about 4 ms
        context.log.error("%d series in all cannot be worked on; the report lists them", len(missing))
    if cohort.forgotten:
        context.log.warning("%d series of cohort %s were forgotten", len(cohort.forgotten), cohort.name)
    return _lay_out(context, platform, workflow, cohort=cohort, series=series, missing=missing)


@contextmanager
def resume(context: dg.OpExecutionContext, platform: Platform, workflow: Workflow) -> Iterator[RunContext]:
    """Open the run context that ``begin`` laid out in this run, or in the run that this one re-executes.

    Within the block no other run can use its directory.
    """
    directories = platform.run_directories()
    directory = directories.find(context.run.root_run_id or context.run_id)
    with directories.used(directory, context.run_id):
        yield _work(context, platform, workflow, directory)


def join_backfill(
    context: dg.OpExecutionContext, platform: Platform, workflow: Workflow, series: Iterable[str]
) -> RunContext:
    """Return the run context of a backfill over a range of series, which all operators of one run share.

    Raises:
        ParameterError: this operator was given other parameters than an earlier operator of the run.
    """
    try:
        directory = platform.run_directories().find(context.run.root_run_id or context.run_id)
    except NotFound:
        versions, missing = _versions(platform, series)
        return _lay_out(context, platform, workflow, cohort=None, series=versions, missing=missing)
    run = _work(context, platform, workflow, directory)
    config = context.op_config or {}
    given = complete(workflow.parameters, config.get("parameters", {}))
    if (given, config.get("force", False)) != (dict(run.request.parameters), run.request.force):
        raise ParameterError(f"give all operators of {workflow.name} the same parameters and force in one backfill")
    return run


@contextmanager
def asked_again(context: dg.OpExecutionContext, platform: Platform) -> Iterator[None]:
    """Make Dagster retry the step later if a store or cluster is away, or the disk is full, within the block.

    The run's log says so. The stores and the cluster have already retried for a minute or two. The retry reuses the
    outputs that are on the shelf, and adopts a container that still runs.
    """
    try:
        with full_disk_told("the run"):
            yield
    except (StoreUnavailable, EngineUnavailable) as exc:
        if not is_asked_again(context, exc):
            raise
        wait_s = jittered(platform.settings.step_repeat_pause_s * 2**context.retry_number)
        context.log.warning("%s; the step is repeated in %d s", exc, wait_s)
        raise dg.RetryRequested(max_retries=_REPEATS, seconds_to_wait=wait_s) from exc


def is_asked_again(context: dg.OpExecutionContext, error: Exception) -> bool:
    """Whether Dagster will retry the step after the error, so that the step has not failed yet."""
    return isinstance(error, (StoreUnavailable, EngineUnavailable)) and context.retry_number < _REPEATS


def _versions(platform: Platform, series: Iterable[str]) -> tuple[dict[str, str], dict[str, str]]:
    pacs = platform.pacs()
    forgetting = series_being_forgotten(platform.settings.home)
    found: dict[str, str] = {}
    missing: dict[str, str] = {}
    for uid in series:
        if uid in forgetting:
            missing[uid] = f"series {uid} is being forgotten"
            continue
        try:
            found[uid] = pacs.series(uid).digest
        except NotFound as exc:
            missing[uid] = str(exc)
    return found, missing


def _lay_out(
    context: dg.OpExecutionContext,
    platform: Platform,
    workflow: Workflow,
    *,
    cohort: cohorts.Cohort | None,
    series: Mapping[str, str],
    missing: Mapping[str, str],
) -> RunContext:
    now = datetime.now(timezone.utc)
    config = context.op_config or {}
    request = RunRequest(
        workflow=workflow.name,
        dagster_run_id=context.run_id,
        created=now.isoformat(timespec="seconds"),
        cohort="" if cohort is None else cohort.name,
        mode=config.get("mode", "batch"),
        force=config.get("force", False),
        parameters=complete(workflow.parameters, config.get("parameters", {})),
        series=series,
        missing=missing,
        forgotten=0 if cohort is None else len(cohort.forgotten),
    )
    directory = platform.run_directories().create(workflow.name, context.run.root_run_id or context.run_id, now)
    directory.write_conf(request.as_json())
    context.log.info("run directory: %s", directory.path)
    return _work(context, platform, workflow, directory)


def _work(
    context: dg.OpExecutionContext, platform: Platform, workflow: Workflow, directory: RunDirectory
) -> RunContext:
    return RunContext(
        workflow=workflow,
        request=RunRequest.from_json(directory.conf()),
        directory=directory,
        stores=_stores(platform),
        log=context.log,
        output=_OUTPUT.print_line,
    )


def _stores(platform: Platform) -> Stores:
    settings = platform.settings
    return Stores(
        pacs=platform.pacs(),
        objects=platform.objects(),
        shelf=platform.shelf(),
        runner=platform.runner(),
        series_per_launch=settings.series_per_launch,
        parallel_series=settings.parallel_series,
        # The files of a folder PACS are linked or copied; parallel retrievals would only slow each other down.
        parallel_retrievals=1 if settings.pacs == "folder" else settings.dicomweb_parallel,
        limits=Limits(settings.output_depth, settings.output_files, settings.output_bytes),
    )
