"""One operator of a run, for all its series: reuse, launch, verify, publish.

The one way that batch, single and backfill all go. Nothing here knows of Dagster.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from kaapana_assets.durable import full_disk_told
from kaapana_assets.errors import InputError, OperatorFailed, UnsafePath
from kaapana_assets.execution.concurrency import as_they_end
from kaapana_assets.execution.inputs import series_in
from kaapana_assets.execution.launches import Attempt, attempt_pooled, attempt_series
from kaapana_assets.execution.run_context import Done, OperatorResult, Work
from kaapana_assets.execution.staging import stage_pooled, stage_series
from kaapana_assets.stores.files.run_directory import RunDirectory
from kaapana_assets.stores.files.shelf import Manifest, Origin
from kaapana_assets.workflows.fingerprints import (
    Inputs,
    code_version,
    input_fingerprint,
    pooled_fingerprint,
    series_fingerprint,
)
from kaapana_assets.workflows.operators import ContainerOperator, Operator, PythonOperator

_Result = TypeVar("_Result")
_Read = Mapping[str, Mapping[str, str]]
"""What is read of each series: SeriesInstanceUID -> folder -> fingerprint."""

_SINGLE_GROUP = 64  # series worked on singly whose outputs become durable together


def run_operator(work: Work, operator: Operator, inputs: Inputs) -> OperatorResult:
    """What a series operator made of each series, all of it verified and on the shelf.

    Only series whose shelf entry is missing or has another fingerprint are computed, unless the
    request says force.

    Args:
        work: the run.
        operator: an operator of level series.
        inputs: the folders that it reads, for the series to work on.

    Raises:
        KaapanaAssetsError: nothing can be done for any series (no such image, a store is away, a full disk).
    """
    with full_disk_told(f"operator {operator.full_name}"):
        return _run_series(work, operator, inputs)


def _run_series(work: Work, operator: Operator, inputs: Inputs) -> OperatorResult:
    began = time.monotonic()
    code = code_version(work.workflow, operator, work.stores.runner, work.request.parameters)
    read = _by_series(inputs, series_in(work, operator, inputs))
    sources = {uid: input_fingerprint(by_folder) for uid, by_folder in read.items()}
    wanted = {uid: series_fingerprint(code, source) for uid, source in sources.items()}
    result = OperatorResult(code_version=code)
    kept = work.stores.shelf.entries(work.workflow.name, operator.full_name, list(wanted))
    for uid, manifest in kept.items():
        if _is_current(work, operator, manifest, wanted[uid]):
            result.done[uid] = _done(manifest, sources[uid], reused=True)
            _forget_leftovers(work, operator, uid)
    todo = {uid: read[uid] for uid in wanted if uid not in result.done}
    made_here = {uid for uid in result.done if kept[uid].run == work.directory.name}
    launches = 0
    for attempt, directories in _attempts(work, operator, todo, result.failed, made_here=made_here):
        launches += attempt.launches
        _check_unchanged(work, operator, code)
        result.failed.update(attempt.failed)
        result.skipped.update(dict.fromkeys(attempt.skipped, "the operator found nothing to do"))
        outputs = {
            uid: (directories[uid].series_dir(uid, operator.out_dir), wanted[uid]) for uid in sorted(attempt.verified)
        }
        manifests, refused = _publish(work, operator, outputs)
        result.failed.update(refused)
        result.done.update({uid: _done(manifest, sources[uid], reused=False) for uid, manifest in manifests.items()})
    return OperatorResult(
        code_version=code,
        done=result.done,
        skipped=result.skipped,
        failed=result.failed,
        launches=launches,
        seconds=round(time.monotonic() - began, 3),
    )


def run_pooled(work: Work, operator: Operator, inputs: Inputs) -> OperatorResult:
    """What a pooled operator made of the cohort, verified and on the shelf.

    Args:
        work: the run.
        operator: an operator of level cohort.
        inputs: the folders that it reads, for the series that came so far.

    Raises:
        OperatorError: it failed.
        StoreUnavailable: a store is away, or the disk is full.
    """
    with full_disk_told(f"operator {operator.full_name}"):
        return _run_pooled(work, operator, inputs)


def _run_pooled(work: Work, operator: Operator, inputs: Inputs) -> OperatorResult:
    began = time.monotonic()
    cohort = work.request.cohort
    code = code_version(work.workflow, operator, work.stores.runner, work.request.parameters)
    fingerprint = pooled_fingerprint(code, inputs)
    source = pooled_fingerprint("inputs", inputs)
    if not all(inputs.values()):
        raise OperatorFailed(f"operator {operator.full_name}: no series of cohort {cohort} reached it")
    kept = work.stores.shelf.manifest(work.workflow.name, operator.full_name, cohort)
    if kept is not None and _is_current(work, operator, kept, fingerprint):
        return OperatorResult(code_version=code, done={cohort: _done(kept, source, reused=True)})
    series = series_in(work, operator, inputs)
    stage_pooled(work, operator, inputs)
    _at_once(work, lambda uid: stage_series(work, operator, work.directory, uid, _read(inputs, uid)), series)
    launches = attempt_pooled(work, operator, work.directory, series)
    _check_unchanged(work, operator, code)
    output = work.directory.path / operator.out_dir
    manifests, refused = _publish(work, operator, {cohort: (output, fingerprint)})
    if refused:
        raise OperatorFailed(refused[cohort])
    return OperatorResult(
        code_version=code,
        done={cohort: _done(manifests[cohort], source, reused=False)},
        launches=launches,
        seconds=round(time.monotonic() - began, 3),
    )


def _attempts(
    work: Work, operator: Operator, todo: _Read, failed: dict[str, str], *, made_here: Set[str]
) -> Iterator[tuple[Attempt, Mapping[str, RunDirectory]]]:
    """Each attempt and the directories it left its outputs in, to be published before the next begins.

    Args:
        work: the run.
        operator: an operator of level series.
        todo: what is read of each series.
        failed: gets the series whose input cannot be had.
        made_here: what this run has made already, before its process died. The chunks are cut as they
            were then, so that containers that go on are found again.
    """
    if work.request.mode == "single":
        for group in _chunks(list(todo), _SINGLE_GROUP):
            yield _one_by_one(work, operator, {uid: todo[uid] for uid in group}, failed)
            _raise_if_cancelled(work, operator)
        return
    as_begun = sorted(todo.keys() | made_here)
    chunks = [
        {uid: todo[uid] for uid in chunk if uid in todo} for chunk in _chunks(as_begun, work.stores.series_per_launch)
    ]
    at_once = min(len(chunks), work.stores.runner.parallel_launches)

    def launch(chunk: _Read) -> tuple[Attempt, Mapping[str, RunDirectory]]:
        ready = _provided(work, operator, work.directory, chunk, failed) if chunk else []
        if not ready or work.cancelled.is_set():
            return Attempt(), {}
        attempt = attempt_series(work, operator, work.directory, ready)
        return attempt, dict.fromkeys(ready, work.directory)

    yield from as_they_end(work, launch, chunks, at_once=at_once)
    _raise_if_cancelled(work, operator)


def _chunks(series: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(series), size):
        yield series[start : start + size]


def _one_by_one(
    work: Work, operator: Operator, todo: _Read, failed: dict[str, str]
) -> tuple[Attempt, Mapping[str, RunDirectory]]:
    directories = {uid: work.directory.of_series(uid) for uid in todo}

    def one(uid: str) -> Attempt:
        try:
            work.directory.for_series(uid)
        except UnsafePath as exc:
            return Attempt(failed={uid: str(exc)})
        ready = _provided(work, operator, directories[uid], {uid: todo[uid]}, failed)
        if not ready or work.cancelled.is_set():
            return Attempt()
        return attempt_series(work, operator, directories[uid], ready)

    together = Attempt()
    for attempt in as_they_end(work, one, todo, at_once=work.stores.parallel_series):
        together.add(attempt)
    return together, directories


def _provided(
    work: Work, operator: Operator, directory: RunDirectory, todo: _Read, failed: dict[str, str]
) -> list[str]:
    """The series whose inputs are in the directory; why not, for the others, goes to ``failed``."""

    def refused(uid: str) -> str | None:
        if work.cancelled.is_set():
            return "the run was cancelled"
        try:
            stage_series(work, operator, directory, uid, todo[uid])
        except (InputError, UnsafePath) as exc:
            return str(exc)
        return None

    reasons = dict(zip(todo, _at_once(work, refused, todo), strict=True))
    failed.update({uid: reason for uid, reason in reasons.items() if reason is not None})
    return [uid for uid, reason in reasons.items() if reason is None]


def _at_once(work: Work, call: Callable[[str], _Result], series: Iterable[str]) -> list[_Result]:
    """What the call gives for each series, as many at once as may be brought from the PACS at once.

    The first error ends it: those that have not begun are left alone.
    """
    if work.stores.parallel_retrievals == 1:
        return [call(uid) for uid in series]
    with ThreadPoolExecutor(work.stores.parallel_retrievals, thread_name_prefix="retrieval") as pool:
        pending = [pool.submit(call, uid) for uid in series]
        try:
            return [each.result() for each in pending]
        except BaseException:  # also when the run is cancelled
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _by_series(inputs: Inputs, series: Iterable[str]) -> _Read:
    return {uid: _read(inputs, uid) for uid in series}


def _read(inputs: Inputs, uid: str) -> dict[str, str]:
    return {folder: versions[uid] for folder, versions in inputs.items() if uid in versions}


def _is_current(work: Work, operator: Operator, manifest: Manifest, fingerprint: str) -> bool:
    # With force, and for what acts in every run, what this run made itself counts: repeated after a
    # failure, it makes only what failed.
    made_here = manifest.run == work.directory.name
    again = work.request.force or not operator.is_reused
    if manifest.fingerprint != fingerprint or (again and not made_here):
        return False
    if not isinstance(operator, PythonOperator) or operator.is_there is None:
        return True
    entry = work.stores.shelf.entry(manifest.workflow, manifest.operator, manifest.partition)
    return operator.is_there(work.stores.objects, entry)


def _forget_leftovers(work: Work, operator: Operator, uid: str) -> None:
    """Where a killed run is repeated, its directory may hold half of what the shelf has whole."""
    for directory in (work.directory, work.directory.of_series(uid)):
        try:
            directory.remove(*directory.place(uid, operator.out_dir))
        except UnsafePath as exc:  # who reads it will refuse it, too
            work.log.warning("%s: %s", operator.full_name, exc)


def _publish(
    work: Work, operator: Operator, outputs: Mapping[str, tuple[Path, str]]
) -> tuple[dict[str, Manifest], dict[str, str]]:
    folder = work.directory.path.parent
    return work.stores.shelf.publish(_origin(work, operator), outputs, within=folder, limits=work.stores.limits)


def _origin(work: Work, operator: Operator) -> Origin:
    request = work.request
    return Origin(
        workflow=work.workflow.name,
        operator=operator.full_name,
        run=work.directory.name,
        dagster_run_id=request.dagster_run_id,
        created=request.created,
    )


def _check_unchanged(work: Work, operator: Operator, code: str) -> None:
    """What was made stands on the shelf for the code that made it; which code that was must be sure."""
    if code_version(work.workflow, operator, work.stores.runner, work.request.parameters) != code:
        image = f"image {operator.image}" if isinstance(operator, ContainerOperator) else "function"
        raise OperatorFailed(f"operator {operator.full_name}: its {image} was changed while it ran: run it again")


def _done(manifest: Manifest, input_fingerprint: str, *, reused: bool) -> Done:
    return Done(manifest.fingerprint, input_fingerprint, reused, len(manifest.files), manifest.size_bytes)


def _raise_if_cancelled(work: Work, operator: Operator) -> None:
    if work.cancelled.is_set():
        raise OperatorFailed(f"operator {operator.full_name} was cancelled")
