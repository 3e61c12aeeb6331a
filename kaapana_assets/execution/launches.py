"""Launches one operator on series of a directory, verifies the outputs, and retries what failed.

``operator_run`` decides which series need to be computed, and publishes the outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from kaapana_assets.containers.protocol import Launch, Outcome
from kaapana_assets.errors import KaapanaAssetsError, OperatorError, OperatorFailed, StoreUnavailable, UnsafePath
from kaapana_assets.execution.concurrency import as_they_end
from kaapana_assets.execution.run_context import OperatorRun, RunContext
from kaapana_assets.execution.verification import Left, verify
from kaapana_assets.execution.views import lay_out, remove_view, take_output, view_of
from kaapana_assets.stores.files.run_directory import RunDirectory
from kaapana_assets.workflows.operators import ContainerOperator, Operator, OperatorContext, PythonOperator
from kaapana_assets.workflows.parameters import as_text


@dataclass
class Attempt:
    """The result of a launch and its retries.

    Attributes:
        verified: series whose output was verified.
        skipped: series for which the operator found nothing to do.
        failed: the reason of the failure, by series.
        launches: number of launches.
    """

    verified: set[str] = field(default_factory=set)
    skipped: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    launches: int = 0

    def add(self, other: Attempt) -> None:
        """Add the result of another attempt, which worked on other series."""
        self.verified |= other.verified
        self.skipped |= other.skipped
        self.failed.update(other.failed)
        self.launches += other.launches


def attempt_series(run: OperatorRun, directory: RunDirectory, series: Sequence[str]) -> Attempt:
    """Run the operator on all series in one launch, and retry failed series one by one.

    Only outputs of a successful launch count, because a failed one may have left an incomplete file for any
    series. After a failure, the series that have an output are first retried together, without the others;
    if that fails too, every series is retried alone.

    Args:
        run: the operator in its run.
        directory: holds the inputs of the series, and receives their outputs.
        series: the SeriesInstanceUIDs.

    Raises:
        KaapanaAssetsError: any error but OperatorError: no launch can succeed (no such image, no store).
    """
    result, error = _launch(run, directory, series)
    if len(series) == 1 or (error is None and not result.failed):
        return result
    alone = sorted(result.failed)
    result.failed.clear()
    if error is not None:
        promising = sorted(result.verified)
        result.verified.clear()
        if promising and alone:
            run.log.info("%s: %d series are tried again together", run.operator.full_name, len(promising))
            again, error = _launch(run, directory, promising)
            result.launches += again.launches
            alone += sorted(again.failed)
            if error is None:
                result.verified |= again.verified
                result.skipped |= again.skipped
            else:
                alone += sorted(again.verified)
        else:
            alone += promising
    run.log.info("%s: %d series are tried one by one", run.operator.full_name, len(alone))

    def launch_alone(uid: str) -> Attempt:
        return Attempt() if run.cancelled.is_set() else _launch(run, directory, [uid])[0]

    for attempt in as_they_end(run, launch_alone, alone, at_once=run.stores.runner.parallel_launches):
        result.add(attempt)
    return result


def attempt_pooled(run: OperatorRun, directory: RunDirectory, series: Sequence[str]) -> int:
    """Run the operator once for the whole cohort; return the number of launches.

    Raises:
        OperatorError: the operator failed, or its output is missing or refused.
    """
    view = view_of(run.operator, directory, series)
    outcome, error, launches = _start(run, directory, view, series)
    if error is None and outcome is Outcome.SKIPPED:
        error = OperatorFailed(f"operator {run.operator.full_name} said that there is nothing to do for the cohort")
    if error is not None:
        raise OperatorFailed(str(error)) from error
    left = verify(run, view, series)
    refused = left.refused_launch or next(iter(left.refused.values()), None)
    reason = _named_refusal(run.operator, refused) or left.missing(run.operator)
    if reason:
        raise OperatorFailed(reason)
    _take(run.operator, view, directory, run.operator.out_dir)
    remove_view(run, directory, view)
    return launches


def _launch(run: OperatorRun, directory: RunDirectory, series: Sequence[str]) -> tuple[Attempt, OperatorError | None]:
    view = view_of(run.operator, directory, series)
    outcome, error, launches = _start(run, directory, view, series)
    result = Attempt(launches=launches)
    left = Left() if error is not None and len(series) == 1 else verify(run, view, series)
    for uid in series:
        refused = _named_refusal(run.operator, left.refused.get(uid) or left.refused_launch)
        reason = refused or left.missing(run.operator, uid)
        if error is not None and (reason or len(series) == 1):
            result.failed[uid] = str(error)
        elif reason is None and not (run.operator.only_acts and outcome is Outcome.SKIPPED):
            result.verified.add(uid)
        elif outcome is Outcome.SKIPPED and refused is None:
            result.skipped.add(uid)
        else:
            result.failed[uid] = f"series {uid}: operator {run.operator.full_name} ended well, but {reason}"
    if error is None:
        for uid in sorted(result.verified):
            try:
                _take(run.operator, view, directory, *directory.names_of(uid, run.operator.out_dir))
            except UnsafePath as exc:  # changed after its verification, or not permitted to be moved
                result.verified.discard(uid)
                result.failed[uid] = f"series {uid}: {_named_refusal(run.operator, str(exc))}"
    # Series that failed together are retried alone; the view of a series that failed alone is kept for inspection.
    if not result.failed or len(series) > 1:
        remove_view(run, directory, view)
    return result, error


def _start(
    run: OperatorRun, directory: RunDirectory, view: RunDirectory, series: Sequence[str]
) -> tuple[Outcome | None, OperatorError | None, int]:
    error: OperatorError | None = None
    for launches in range(1, run.operator.retries + 2):
        # Each launch gets a new view, so that it never sees what a failed launch did to its input.
        try:
            if not _goes_on(run, view, series):
                lay_out(run, directory, view, series)
            if isinstance(run.operator, ContainerOperator):
                launch = _container_launch(run, run.operator, view)
                outcome = run.stores.runner.run(launch, output=run.output, cancelled=run.cancelled)
            else:
                outcome = _call(run, view, series)
        except OperatorError as exc:
            error = exc
            run.log.warning("%s failed on %d series: %s", run.operator.full_name, len(series), exc)
            if run.cancelled.is_set():
                break
        else:
            return outcome, None, launches
    return None, error, launches


def _goes_on(run: OperatorRun, view: RunDirectory, series: Sequence[str]) -> bool:
    """Whether the runner adopts an equal launch that a dead process started in the view."""
    if not isinstance(run.operator, ContainerOperator):
        return False
    if not run.stores.runner.adopts(_container_launch(run, run.operator, view)):
        return False
    run.log.info("%s: going on with the container that is there for %d series", run.operator.full_name, len(series))
    return True


def _container_launch(run: RunContext, operator: ContainerOperator, view: RunDirectory) -> Launch:
    return Launch(
        run_id=run.directory.name,
        workflow=run.workflow.name,
        cohort=run.request.cohort,
        operator=operator.full_name,
        image=operator.image,
        directory=view.path,
        operator_in_dir=run.workflow.in_dir(operator),
        operator_out_dir=operator.out_dir,
        parameters={name: as_text(value) for name, value in operator.seen(run.request.parameters).items()},
        env_vars=operator.env_vars,
        command=operator.command,
        timeout_s=operator.timeout_s,
        memory_mb=operator.memory_mb,
        cpu=operator.cpu,
        gpus=operator.gpus,
        network=operator.network,
        image_pull_secrets=operator.image_pull_secrets,
    )


def _call(run: OperatorRun, view: RunDirectory, series: Sequence[str]) -> Outcome:
    if not isinstance(run.operator, PythonOperator):
        raise TypeError(f"no such kind of operator: {type(run.operator).__name__}")
    context = OperatorContext(
        directory=view.path,
        series=tuple(series),
        operator_in_dir=run.workflow.in_dir(run.operator),
        operator_out_dir=run.operator.out_dir,
        parameters=run.operator.seen(run.request.parameters),
        settings=run.operator.settings,
        cohort=run.request.cohort,
        objects=run.stores.objects,
        log=run.log,
    )
    try:
        run.operator.function(context)
    except StoreUnavailable:
        raise  # not a fault of the series: the step is retried later
    except KaapanaAssetsError as exc:
        raise OperatorFailed(f"operator {run.operator.full_name}: {exc}") from exc
    except Exception as exc:  # the function is the author's code and may raise anything
        raise OperatorFailed(f"operator {run.operator.full_name}: {type(exc).__name__}: {exc}") from exc
    return Outcome.DONE


def _take(operator: Operator, view: RunDirectory, directory: RunDirectory, *place: str) -> None:
    if operator.only_acts:  # an empty folder, which is published like any output
        view.remove(*place)
        with view.opened(*place, make=True):
            pass
    take_output(view, directory, *place)


def _named_refusal(operator: Operator, reason: str | None) -> str | None:
    return None if reason is None else f"what operator {operator.full_name} left is refused: {reason}"
