"""The bodies of Dagster's steps: they run one operator, record its outcomes and write the report.

``compiler`` makes the assets and jobs that these steps belong to.
"""

from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import dagster as dg

from kaapana_assets.containers.reasons import short_reason
from kaapana_assets.defs.events import Made, record_failed, record_made
from kaapana_assets.defs.partitions import DICOM_SERIES
from kaapana_assets.defs.resources import Platform
from kaapana_assets.defs.workflows.run_setup import is_asked_again, join_backfill
from kaapana_assets.durable import full_disk_told
from kaapana_assets.errors import KaapanaAssetsError, OperatorError
from kaapana_assets.execution.inputs import done_by, inputs_of, result_of, results_in, series_in
from kaapana_assets.execution.operator_run import run_operator, run_pooled
from kaapana_assets.execution.report import Reported, RunState, as_markdown, is_over, report_path, write_report
from kaapana_assets.execution.run_context import OperatorResult, OperatorRun, RunContext
from kaapana_assets.workflows.model import REPORT, Workflow
from kaapana_assets.workflows.operators import Operator, name_in_dagster

_SHOWN = 20


def asset_key(workflow: Workflow, name: str) -> dg.AssetKey:
    """Return the asset key of an operator's output; names in Dagster have no hyphens."""
    return dg.AssetKey([workflow.job_name, name_in_dagster(name)])


def upstream_keys(workflow: Workflow, operator: Operator) -> list[dg.AssetKey]:
    """Return the assets from which a series operator makes its output."""
    sources = workflow.input_folders(operator).values()
    keys = [asset_key(workflow, other.full_name) for other in workflow.predecessors(operator)]
    return [DICOM_SERIES, *keys] if None in sources else keys


def upstream_of_cohort(workflow: Workflow) -> list[dg.AssetKey]:
    """Return the assets upstream of a cohort's outputs.

    These are the inputs of pooled operators, and the outputs of series operators that no series operator follows.
    """
    pooled = [operator for operator in workflow.operators if operator.level == "cohort"]
    before = [other for operator in pooled for other in workflow.predecessors(operator) if other.level == "series"]
    keys = [asset_key(workflow, operator.full_name) for operator in (*workflow.leaves(), *before)]
    reads_dicom = any(None in workflow.input_folders(operator).values() for operator in pooled)
    return list(dict.fromkeys([DICOM_SERIES, *keys] if reads_dicom else keys))


def series_step(context: dg.OpExecutionContext, run: OperatorRun) -> OperatorResult:
    """Run a series operator of a cohort run and record each series."""
    result = run_operator(run, inputs_of(run))
    _record_series(context, run, result)
    if result.failed and (not result.done or run.workflow.on_failure == "stop"):
        raise _failure(run.operator, result)
    return result


def pooled_step(context: dg.OpExecutionContext, run: OperatorRun) -> dg.Output[None]:
    """Run a pooled operator of a cohort run."""
    inputs = inputs_of(run)
    try:
        result = run_pooled(run, inputs)
    except OperatorError as exc:
        failed = OperatorResult(code_version="", failed={run.request.cohort: str(exc)})
        run.directory.write_result(run.operator.full_name, failed.as_json())
        context.log.error("%s failed: %s", run.operator.full_name, exc)
        raise dg.Failure(short_reason(str(exc)), allow_retries=False) from exc
    run.directory.write_result(run.operator.full_name, result.as_json())
    cohort = run.request.cohort
    entry = run.stores.shelf.entry(run.workflow.name, run.operator.full_name, cohort)
    context.log.info("%s of cohort %s is at %s", run.operator.full_name, cohort, entry)
    done = result.done[cohort]
    metadata = {
        "path": dg.MetadataValue.path(str(entry)),
        "files": dg.MetadataValue.int(done.files),
        "size (bytes)": dg.MetadataValue.int(done.size_bytes),
        "reused": dg.MetadataValue.bool(done.reused),
        "series": dg.MetadataValue.int(len(series_in(run, inputs))),
    }
    return dg.Output(
        None, name_in_dagster(run.operator.full_name), metadata=metadata, data_version=dg.DataVersion(done.fingerprint)
    )


def mend(context: dg.OpExecutionContext, run: RunContext) -> None:
    """In a re-execution, repeat the work for failed series, and pool again what was pooled without them."""
    if not any(result.failed for result in results_in(run.directory, run.workflow).values()):
        return
    for operator in run.workflow.operators:
        if operator.level == "series":
            series_step(context, run.of(operator))
            continue
        output = pooled_step(context, run.of(operator))
        made = Made(
            partition=run.request.cohort,
            data_version=str(output.data_version.value) if output.data_version else "",
            metadata=output.metadata,
        )
        record_made(context, asset_key(run.workflow, operator.full_name), [made])


def publish_report(context: dg.OpExecutionContext, run: RunContext, state: RunState | None = None) -> dict[str, Any]:
    """Write the report of all operators so far to the shelf, replacing an earlier run's report."""
    reported = Reported(
        workflow=run.workflow,
        request=run.request,
        run=run.directory.name,
        dagster_run_id=context.run_id,
        results=results_in(run.directory, run.workflow),
        state=state or RunState(),
    )
    return write_report(reported, run.stores.shelf)


@contextmanager
def told_in_report(context: dg.OpExecutionContext, run: RunContext, operator: Operator | None) -> Iterator[None]:
    """Add a failure within the block to the report; once one has failed, also the outcomes of later operators.

    This is needed because Dagster skips the report's own step after an operator has failed.

    Args:
        context: the context of the step.
        run: the run.
        operator: the operator that the step runs; None for the report's own step.
    """
    if operator is not None:
        run.directory.forget_result(operator.full_name)
    try:
        with full_disk_told("the run" if operator is None else f"operator {operator.full_name}"):
            yield
    except (dg.Failure, KaapanaAssetsError) as exc:
        if not is_asked_again(context, exc):
            said = exc.description or "" if isinstance(exc, dg.Failure) else str(exc)
            if operator is not None and result_of(run, operator) is None:
                run.directory.write_result(operator.full_name, OperatorResult(code_version="", error=said).as_json())
            _publish_failed(context, run, is_last=operator is None)
        raise
    if operator is not None and any(
        result.error or result.failed for result in results_in(run.directory, run.workflow).values()
    ):
        _publish_failed(context, run, is_last=False)


def _publish_failed(context: dg.OpExecutionContext, run: RunContext, *, is_last: bool) -> None:
    report = publish_report(context, run)
    if is_last or is_over(report):
        failed = (row for row in report["operators"] if row["state"] in ("failed", "partly failed"))
        reason = next((f"{row['operator']}: {row['reason']}" for row in failed), "")
        publish_report(context, run, RunState(status="failed", reason=reason))


def report_step(context: dg.OpExecutionContext, run: RunContext) -> tuple[dg.Output[None], dg.Failure | None]:
    """Write the final report to the shelf; return its output, and the failure to raise if a series failed."""
    report = publish_report(context, run, RunState(status="success"))
    failure = None
    if report["failed"]:
        failure = _failure_of_run(run, report)
        report = publish_report(context, run, RunState(status="failed", reason=_first_line(failure)))
    entry = run.stores.shelf.entry(run.workflow.name, REPORT, run.request.cohort)
    metadata: dict[str, Any] = {
        "path": dg.MetadataValue.path(str(entry / "report.json")),
        "operators": dg.MetadataValue.md(as_markdown(report)),
        "run directory": dg.MetadataValue.path(str(run.directory.path)),
        "mode": dg.MetadataValue.text(run.request.mode),
        "series": dg.MetadataValue.int(len(run.request.series) + len(run.request.missing)),
        "failed": dg.MetadataValue.int(len(report["failed"])),
    }
    return dg.Output(None, REPORT, metadata=metadata), failure


def _failure_of_run(run: RunContext, report: Mapping[str, Any]) -> dg.Failure:
    path = report_path(run.stores.shelf, run.workflow, run.request.cohort)
    named = ", ".join(sorted(report["failed"])[:_SHOWN])
    first, why = next(iter(report["failed"].items()))
    return dg.Failure(
        f"{len(report['failed'])} of {report['series']} series failed, the rest is done; "
        f"first {first} at {why['operator']}: {why['line']}\n"
        f"Failed: {named}. Why is in {path}; files and logs stay in {run.directory.path}",
        allow_retries=False,
    )


def _first_line(failure: dg.Failure) -> str:
    return (failure.description or "").partition("\n")[0]


def backfill_step(context: dg.OpExecutionContext, platform: Platform, workflow: Workflow, operator: Operator) -> None:
    """Run a series operator over a range of partitions, as in a backfill."""
    series = list(context.partition_keys)
    directories = platform.run_directories()
    run = join_backfill(context, platform, workflow, series).of(operator)
    with directories.used(run.directory, context.run_id):
        inputs = inputs_of(run)
        lacking = _lacking(run, set(series) - set(series_in(run, inputs)))
        worked = run_operator(run, inputs)
        result = replace(worked, failed={**worked.failed, **lacking})
        _record_series(context, run, result)
        if result.failed:
            raise _failure(operator, result)
        last = workflow.leaves()[-1]
        selected = {key.path[-1] for key in context.run.asset_selection or ()}
        if operator is last or not selected & {name_in_dagster(o.full_name) for o in _after(workflow, operator)}:
            finish(run, platform)


def finish(run: RunContext, platform: Platform) -> None:
    """Clean up after a run without failures."""
    run.stores.runner.end_left(run.directory.name)
    for problem in platform.run_directories().remove(run.directory):
        run.log.warning("not removed: %s", problem)


def _lacking(run: OperatorRun, series: Set[str]) -> dict[str, str]:
    """Return, for each series, why a backfill cannot process it."""
    done = {other.full_name: done_by(run, other) for other in run.workflow.predecessors(run.operator)}
    found = {uid: ", ".join(name for name, versions in done.items() if uid not in versions) for uid in sorted(series)}
    return {uid: run.request.missing.get(uid, f"its input is not there: no {lack}") for uid, lack in found.items()}


def _after(workflow: Workflow, operator: Operator) -> list[Operator]:
    place = workflow.operators.index(operator)
    return [other for other in workflow.operators[place + 1 :] if other.level == "series"]


def _record_series(context: dg.OpExecutionContext, run: OperatorRun, result: OperatorResult) -> None:
    run.directory.write_result(run.operator.full_name, result.as_json())
    key = asset_key(run.workflow, run.operator.full_name)
    workflow = run.workflow
    before = {asset_key(workflow, o.full_name): done_by(run, o) for o in workflow.predecessors(run.operator)}
    if None in workflow.input_folders(run.operator).values():
        before[DICOM_SERIES] = dict(run.request.series)
    shelf = run.stores.shelf.entries_of(run.workflow.name, run.operator.full_name)
    made = []
    for uid, done in result.done.items():
        inputs = {other: versions[uid] for other, versions in before.items()}
        metadata = {
            "path": dg.MetadataValue.path(str(shelf / uid)),
            "files": dg.MetadataValue.int(done.files),
            "size (bytes)": dg.MetadataValue.int(done.size_bytes),
            "reused": dg.MetadataValue.bool(done.reused),
        }
        made.append(Made(partition=uid, data_version=done.fingerprint, inputs=inputs, metadata=metadata))
    record_made(context, key, made, code_version=result.code_version)
    record_failed(context, key, sorted(result.failed))
    for uid, reason in list(result.failed.items())[:_SHOWN]:
        context.log.error("%s failed for series %s: %s", run.operator.full_name, uid, reason)
    reused = sum(done.reused for done in result.done.values())
    context.log.info(
        "%s: %d series done (%d of them were on the shelf), %d skipped, %d failed; %d launches in %.1f s",
        run.operator.full_name,
        len(result.done),
        reused,
        len(result.skipped),
        len(result.failed),
        result.launches,
        result.seconds,
    )


def _failure(operator: Operator, result: OperatorResult) -> dg.Failure:
    first, reason = next(iter(result.failed.items()))
    return dg.Failure(
        f"{operator.full_name} failed for {len(result.failed)} series, {len(result.done)} are done; "
        f"first {first}: {short_reason(reason, series=first)}",
        metadata={"failed series": dg.MetadataValue.json(dict(list(result.failed.items())[:_SHOWN]))},
        allow_retries=False,
    )
