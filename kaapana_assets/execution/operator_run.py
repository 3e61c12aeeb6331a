"""Runs one operator for all its series: reuse, launch, verify, publish.

Batch runs, single runs and backfills all use this module. Nothing here knows about Dagster.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path

from kaapana_assets.durable import full_disk_told
from kaapana_assets.errors import InputError, OperatorFailed, UnsafePath
from kaapana_assets.execution.concurrency import as_they_end, in_order
from kaapana_assets.execution.inputs import series_in
from kaapana_assets.execution.launches import Attempt, attempt_pooled, attempt_series
from kaapana_assets.execution.run_context import Done, OperatorResult, OperatorRun
from kaapana_assets.execution.staging import stage_pooled, stage_series
from kaapana_assets.stores.files.run_directory import RunDirectory
from kaapana_assets.stores.files.shelf import Manifest, Origin
from kaapana_assets.workflows.fingerprints import (
    Inputs,
    input_fingerprint,
    pooled_fingerprint,
    series_fingerprint,
)
from kaapana_assets.workflows.operators import ContainerOperator, PythonOperator

_Read = Mapping[str, Mapping[str, str]]
"""The inputs of each series: SeriesInstanceUID -> folder -> fingerprint."""

_SINGLE_GROUP = 64  # series of single mode whose outputs are published together


def run_operator(run: OperatorRun, inputs: Inputs) -> OperatorResult:
    """Run a series operator; verify its outputs and publish them to the shelf.

    Computes only series whose shelf entry is missing or has another fingerprint, unless the request has
    ``force`` set or the operator is not reused.

    Args:
        run: the operator in its run.
        inputs: the folders that it reads, for the series to work on.

    Returns:
        The result of each series.

    Raises:
        KaapanaAssetsError: no series can be computed (no such image, a store is unavailable, a full disk).
    """
    with full_disk_told(f"operator {run.operator.full_name}"):
        return _run_series(run, inputs)


def _run_series(run: OperatorRun, inputs: Inputs) -> OperatorResult:
    began = time.monotonic()
    code = run.code_version()
    read = _by_series(inputs, series_in(run, inputs))
    sources = {uid: input_fingerprint(by_folder) for uid, by_folder in read.items()}
    wanted = {uid: series_fingerprint(code, source) for uid, source in sources.items()}
    kept = run.stores.shelf.entries(run.workflow.name, run.operator.full_name, list(wanted))
    done: dict[str, Done] = {}
    for uid, manifest in kept.items():
        if _is_current(run, manifest, wanted[uid]):
            done[uid] = _done(manifest, sources[uid], reused=True)
            _forget_leftovers(run, uid)
    todo = {uid: read[uid] for uid in wanted if uid not in done}
    made_here = {uid for uid in done if kept[uid].run == run.directory.name}
    skipped: dict[str, str] = {}
    failed: dict[str, str] = {}
    launches = 0
    for attempt, directories in _attempts(run, todo, made_here=made_here):
        launches += attempt.launches
        _check_unchanged(run, code)
        failed.update(attempt.failed)
        skipped.update(dict.fromkeys(attempt.skipped, "the operator found nothing to do"))
        outputs = {
            uid: (directories[uid].series_dir(uid, run.operator.out_dir), wanted[uid])
            for uid in sorted(attempt.verified)
        }
        manifests, refused = _publish(run, outputs)
        failed.update(refused)
        done.update({uid: _done(manifest, sources[uid], reused=False) for uid, manifest in manifests.items()})
    return OperatorResult(
        code_version=code,
        done=done,
        skipped=skipped,
        failed=failed,
        launches=launches,
        seconds=round(time.monotonic() - began, 3),
    )


def run_pooled(run: OperatorRun, inputs: Inputs) -> OperatorResult:
    """Run a pooled operator; verify its output and publish it to the shelf.

    Args:
        run: the operator in its run.
        inputs: the folders that it reads, for the series that all its predecessors have done.

    Returns:
        The result of the cohort.

    Raises:
        OperatorError: the operator failed.
        StoreUnavailable: a store is unavailable, or the disk is full.
    """
    with full_disk_told(f"operator {run.operator.full_name}"):
        return _run_pooled(run, inputs)


def _run_pooled(run: OperatorRun, inputs: Inputs) -> OperatorResult:
    began = time.monotonic()
    cohort = run.request.cohort
    code = run.code_version()
    fingerprint = pooled_fingerprint(code, inputs)
    source = pooled_fingerprint("inputs", inputs)
    if not all(inputs.values()):
        raise OperatorFailed(f"operator {run.operator.full_name}: no series of cohort {cohort} reached it")
    kept = run.stores.shelf.manifest(run.workflow.name, run.operator.full_name, cohort)
    if kept is not None and _is_current(run, kept, fingerprint):
        return OperatorResult(code_version=code, done={cohort: _done(kept, source, reused=True)})
    series = series_in(run, inputs)
    stage_pooled(run, inputs)
    in_order(
        lambda uid: stage_series(run, run.directory, uid, _read(inputs, uid)),
        series,
        at_once=run.stores.parallel_retrievals,
    )
    launches = attempt_pooled(run, run.directory, series)
    _check_unchanged(run, code)
    output = run.directory.path / run.operator.out_dir
    manifests, refused = _publish(run, {cohort: (output, fingerprint)})
    if refused:
        raise OperatorFailed(refused[cohort])
    return OperatorResult(
        code_version=code,
        done={cohort: _done(manifests[cohort], source, reused=False)},
        launches=launches,
        seconds=round(time.monotonic() - began, 3),
    )


def _attempts(
    run: OperatorRun, todo: _Read, *, made_here: Set[str]
) -> Iterator[tuple[Attempt, Mapping[str, RunDirectory]]]:
    """Yield each attempt with the directories that hold its outputs, by series.

    Args:
        run: the operator in its run.
        todo: the inputs of each series to compute.
        made_here: series that this run computed before its process died. They are counted when the series are
            divided into chunks, so that the chunks are the same again and running containers are adopted.
    """
    if run.request.mode == "single":
        for group in _chunks(list(todo), _SINGLE_GROUP):
            yield _one_by_one(run, {uid: todo[uid] for uid in group})
            _raise_if_cancelled(run)
        return
    as_begun = sorted(todo.keys() | made_here)
    chunks = [
        {uid: todo[uid] for uid in chunk if uid in todo} for chunk in _chunks(as_begun, run.stores.series_per_launch)
    ]
    at_once = min(len(chunks), run.stores.runner.parallel_launches)

    def launch(chunk: _Read) -> tuple[Attempt, Mapping[str, RunDirectory]]:
        return _staged_attempt(run, run.directory, chunk), dict.fromkeys(chunk, run.directory)

    yield from as_they_end(run, launch, chunks, at_once=at_once)
    _raise_if_cancelled(run)


def _chunks(series: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(series), size):
        yield series[start : start + size]


def _one_by_one(run: OperatorRun, todo: _Read) -> tuple[Attempt, Mapping[str, RunDirectory]]:
    directories = {uid: run.directory.of_series(uid) for uid in todo}

    def one(uid: str) -> Attempt:
        try:
            run.directory.for_series(uid)
        except UnsafePath as exc:
            return Attempt(failed={uid: str(exc)})
        return _staged_attempt(run, directories[uid], {uid: todo[uid]})

    together = Attempt()
    for attempt in as_they_end(run, one, todo, at_once=run.stores.parallel_series):
        together.add(attempt)
    return together, directories


def _staged_attempt(run: OperatorRun, directory: RunDirectory, todo: _Read) -> Attempt:
    """Stage the inputs and attempt the series; those whose inputs cannot be staged have failed."""

    def problem(uid: str) -> str | None:
        if run.cancelled.is_set():
            return "the run was cancelled"
        try:
            stage_series(run, directory, uid, todo[uid])
        except (InputError, UnsafePath) as exc:
            return str(exc)
        return None

    problems = dict(zip(todo, in_order(problem, todo, at_once=run.stores.parallel_retrievals), strict=True))
    attempt = Attempt(failed={uid: reason for uid, reason in problems.items() if reason is not None})
    ready = [uid for uid, reason in problems.items() if reason is None]
    if ready and not run.cancelled.is_set():
        attempt.add(attempt_series(run, directory, ready))
    return attempt


def _by_series(inputs: Inputs, series: Iterable[str]) -> _Read:
    return {uid: _read(inputs, uid) for uid in series}


def _read(inputs: Inputs, uid: str) -> dict[str, str]:
    return {folder: versions[uid] for folder, versions in inputs.items() if uid in versions}


def _is_current(run: OperatorRun, manifest: Manifest, fingerprint: str) -> bool:
    # With force, and for operators that are not reused, only outputs of this very run count, so that a
    # re-execution after a failure computes only what failed.
    made_here = manifest.run == run.directory.name
    again = run.request.force or not run.operator.is_reused
    if manifest.fingerprint != fingerprint or (again and not made_here):
        return False
    if not isinstance(run.operator, PythonOperator) or run.operator.is_there is None:
        return True
    entry = run.stores.shelf.entry(manifest.workflow, manifest.operator, manifest.partition)
    return run.operator.is_there(run.stores.objects, entry)


def _forget_leftovers(run: OperatorRun, uid: str) -> None:
    """Remove the series' output from the run directory: a killed run may have left it there incomplete."""
    for directory in (run.directory, run.directory.of_series(uid)):
        try:
            directory.remove(*directory.names_of(uid, run.operator.out_dir))
        except UnsafePath as exc:  # whoever reads it refuses it, too
            run.log.warning("%s: %s", run.operator.full_name, exc)


def _publish(run: OperatorRun, outputs: Mapping[str, tuple[Path, str]]) -> tuple[dict[str, Manifest], dict[str, str]]:
    folder = run.directory.path.parent
    return run.stores.shelf.publish(_origin(run), outputs, within=folder, limits=run.stores.limits)


def _origin(run: OperatorRun) -> Origin:
    request = run.request
    return Origin(
        workflow=run.workflow.name,
        operator=run.operator.full_name,
        run=run.directory.name,
        dagster_run_id=request.dagster_run_id,
        created=request.created,
    )


def _check_unchanged(run: OperatorRun, code: str) -> None:
    """Check that the code did not change during the launch: outputs are published under its version.

    Raises:
        OperatorFailed: the image or function has changed.
    """
    if run.code_version() != code:
        image = f"image {run.operator.image}" if isinstance(run.operator, ContainerOperator) else "function"
        raise OperatorFailed(f"operator {run.operator.full_name}: its {image} was changed while it ran: run it again")


def _done(manifest: Manifest, input_fingerprint: str, *, reused: bool) -> Done:
    return Done(manifest.fingerprint, input_fingerprint, reused, len(manifest.files), manifest.size_bytes)


def _raise_if_cancelled(run: OperatorRun) -> None:
    if run.cancelled.is_set():
        raise OperatorFailed(f"operator {run.operator.full_name} was cancelled")
