"""What the steps of Dagster do: run one operator, record what became of it, report.

The assets and jobs that these steps belong to are made by ``compiler``.
"""

import json
from typing import Any

import dagster as dg

from kaapana_assets.containers.reasons import short_reason
from kaapana_assets.errors import NotFound, OperatorError
from kaapana_assets.events import Made, record_failed, record_made
from kaapana_assets.partitions import DICOM_SERIES
from kaapana_assets.resources import Platform
from kaapana_assets.stores.shelf import Origin
from kaapana_assets.workflows.execution import run_operator, run_pooled
from kaapana_assets.workflows.model import REPORT, Workflow
from kaapana_assets.workflows.opening import join_backfill
from kaapana_assets.workflows.operators import Operator, name_in_dagster
from kaapana_assets.workflows.report import as_markdown, make_report
from kaapana_assets.workflows.work import OperatorResult, Work

_SHOWN = 20


def asset_key(workflow: Workflow, name: str) -> dg.AssetKey:
    """The key of an operator's output; Dagster's names have no hyphens."""
    return dg.AssetKey([workflow.job_name, name_in_dagster(name)])


def upstream_keys(workflow: Workflow, operator: Operator) -> list[dg.AssetKey]:
    """The assets that a series operator's output is made from."""
    before = workflow.predecessors(operator)
    keys = [asset_key(workflow, other.full_name) for other in before]
    return keys if workflow.source_of(operator) is not None else [DICOM_SERIES, *keys]


def series_step(context: dg.OpExecutionContext, work: Work, operator: Operator) -> OperatorResult:
    """Run a series operator of a cohort run and record each series."""
    result = run_operator(work, operator, _inputs(work, operator))
    _record_series(context, work, operator, result)
    if result.failed and (not result.done or work.workflow.on_failure == "stop"):
        raise _failure(operator, result)
    return result


def pooled_step(context: dg.OpExecutionContext, work: Work, operator: Operator) -> dg.Output[None]:
    """Run a pooled operator of a cohort run."""
    try:
        result = run_pooled(work, operator, _inputs(work, operator))
    except OperatorError as exc:
        failed = OperatorResult(code_version="", failed={work.request.cohort: str(exc)})
        work.directory.write_result(operator.full_name, failed.as_json())
        context.log.error("%s failed: %s", operator.full_name, exc)
        raise dg.Failure(short_reason(str(exc)), allow_retries=False) from exc
    work.directory.write_result(operator.full_name, result.as_json())
    cohort = work.request.cohort
    entry = work.stores.shelf.entry(work.workflow.name, operator.full_name, cohort)
    context.log.info("%s of cohort %s is at %s", operator.full_name, cohort, entry)
    done = result.done[cohort]
    metadata = {
        "path": dg.MetadataValue.path(str(entry)),
        "files": dg.MetadataValue.int(done.files),
        "size (bytes)": dg.MetadataValue.int(done.size_bytes),
        "reused": dg.MetadataValue.bool(done.reused),
        "series": dg.MetadataValue.int(len(_inputs(work, operator))),
    }
    return dg.Output(
        None, name_in_dagster(operator.full_name), metadata=metadata, data_version=dg.DataVersion(done.fingerprint)
    )


def mend(context: dg.OpExecutionContext, work: Work) -> None:
    """In a re-execution: make again what failed for single series, and what was pooled without them."""
    results = {operator.full_name: _result(work, operator) for operator in work.workflow.operators}
    if not any(result is not None and result.failed for result in results.values()):
        return
    for operator in work.workflow.operators:
        if operator.level == "series":
            series_step(context, work, operator)
            continue
        output = pooled_step(context, work, operator)
        made = Made(
            partition=work.request.cohort,
            data_version=str(output.data_version.value) if output.data_version else "",
            metadata=output.metadata,
        )
        record_made(context, asset_key(work.workflow, operator.full_name), [made])


def publish_report(work: Work, run_id: str) -> dict[str, Any]:
    """Put on the shelf what became of each series so far, in the place of an earlier run's report."""
    results = {operator.full_name: _result(work, operator) for operator in work.workflow.operators}
    report = make_report(work, {name: result for name, result in results.items() if result is not None})
    folder = work.directory.path / REPORT
    folder.mkdir(exist_ok=True)
    (folder / "report.json").write_text(json.dumps(report, indent=1))
    origin = Origin(
        workflow=work.workflow.name,
        operator=REPORT,
        run=work.directory.name,
        dagster_run_id=work.request.dagster_run_id,
        created=work.request.created,
    )
    work.stores.shelf.publish(origin, {work.request.cohort: (folder, run_id)})
    return report


def report_step(context: dg.OpExecutionContext, work: Work) -> tuple[dg.Output[None], dg.Failure | None]:
    """What became of each series, on the shelf; and the failure to raise when a series failed."""
    report = publish_report(work, context.run_id)
    entry = work.stores.shelf.entry(work.workflow.name, REPORT, work.request.cohort)
    metadata: dict[str, Any] = {
        "path": dg.MetadataValue.path(str(entry / "report.json")),
        "operators": dg.MetadataValue.md(as_markdown(report)),
        "run directory": dg.MetadataValue.path(str(work.directory.path)),
        "mode": dg.MetadataValue.text(work.request.mode),
        "series": dg.MetadataValue.int(len(work.request.series) + len(work.request.missing)),
        "failed": dg.MetadataValue.int(len(report["failed"])),
    }
    failure = None
    if report["failed"]:
        named = ", ".join(sorted(report["failed"])[:_SHOWN])
        first, why = next(iter(report["failed"].items()))
        failure = dg.Failure(
            f"{len(report['failed'])} of {report['series']} series failed, the rest is done; "
            f"first {first} at {why['operator']}: {short_reason(why['reason'], series=first)}\n"
            f"Failed: {named}. Why is in {entry / 'report.json'}; files and logs stay in {work.directory.path}",
            allow_retries=False,
        )
    return dg.Output(None, REPORT, metadata=metadata), failure


def backfill_step(context: dg.OpExecutionContext, platform: Platform, workflow: Workflow, operator: Operator) -> None:
    """Run a series operator for a range of partitions, as backfills do."""
    series = list(context.partition_keys)
    directories = platform.run_directories()
    work = join_backfill(context, platform, workflow, series)
    with directories.used(work.directory, context.run_id):
        inputs = _inputs(work, operator)
        result = run_operator(work, operator, inputs)
        lacking = {uid: work.request.missing.get(uid, "its input is not there") for uid in series if uid not in inputs}
        result.failed.update(lacking)
        _record_series(context, work, operator, result)
        if result.failed:
            raise _failure(operator, result)
        last = workflow.leaves()[-1]
        selected = {key.path[-1] for key in context.run.asset_selection or ()}
        if operator is last or not selected & {name_in_dagster(o.full_name) for o in _after(workflow, operator)}:
            finish(work, platform)


def finish(work: Work, platform: Platform) -> None:
    """Clean up after a run in which all went well."""
    work.stores.runner.end_left(work.directory.name)
    platform.run_directories().remove(work.directory)


def _after(workflow: Workflow, operator: Operator) -> list[Operator]:
    place = workflow.operators.index(operator)
    return [other for other in workflow.operators[place + 1 :] if other.level == "series"]


def _result(work: Work, operator: Operator) -> OperatorResult | None:
    try:
        return OperatorResult.from_json(work.directory.result(operator.full_name))
    except NotFound:
        return None


def _inputs(work: Work, operator: Operator) -> dict[str, str]:
    """The fingerprint of the operator's input by series, for the series that all before it have done."""
    source = work.workflow.source_of(operator)
    if source is not None and source.level == "cohort":
        pooled = _result(work, source)
        return {} if pooled is None else {cohort: done.fingerprint for cohort, done in pooled.done.items()}
    before = {other.full_name: _done(work, other) for other in work.workflow.predecessors(operator)}
    ready = set(work.request.series)
    for done in before.values():
        ready &= set(done)
    versions = work.request.series if source is None else before[source.full_name]
    return {uid: versions[uid] for uid in sorted(ready)}


def _done(work: Work, operator: Operator) -> dict[str, str]:
    result = _result(work, operator)
    if result is not None:
        return {uid: done.fingerprint for uid, done in result.done.items()}
    if work.request.cohort:
        return {}
    kept = work.stores.shelf.entries(work.workflow.name, operator.full_name, list(work.request.series))
    return {uid: manifest.fingerprint for uid, manifest in kept.items()}


def _record_series(context: dg.OpExecutionContext, work: Work, operator: Operator, result: OperatorResult) -> None:
    work.directory.write_result(operator.full_name, result.as_json())
    key = asset_key(work.workflow, operator.full_name)
    before = {asset_key(work.workflow, o.full_name): _done(work, o) for o in work.workflow.predecessors(operator)}
    shelf = work.stores.shelf.entry(work.workflow.name, operator.full_name, "x").parent
    made = []
    for uid, done in result.done.items():
        inputs = {other: versions[uid] for other, versions in before.items()}
        if work.workflow.source_of(operator) is None:
            inputs[DICOM_SERIES] = done.input_fingerprint
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
        context.log.error("%s failed for series %s: %s", operator.full_name, uid, reason)
    reused = sum(done.reused for done in result.done.values())
    context.log.info(
        "%s: %d series done (%d of them were on the shelf), %d skipped, %d failed; %d launches in %.1f s",
        operator.full_name,
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
