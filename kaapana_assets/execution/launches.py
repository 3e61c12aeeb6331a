"""One operator started on some series of a directory, and its outputs verified.

Nothing here decides which series need work or what is kept; see ``execution``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from kaapana_assets.containers.protocol import Launch, Outcome
from kaapana_assets.errors import KaapanaAssetsError, OperatorError, OperatorFailed, StoreUnavailable, UnsafePath
from kaapana_assets.execution.concurrency import as_they_end
from kaapana_assets.execution.run_context import Work
from kaapana_assets.execution.verification import Left, verify
from kaapana_assets.execution.views import lay_out, remove_view, take_output, view_of
from kaapana_assets.stores.files.run_directory import RunDirectory
from kaapana_assets.workflows.operators import ContainerOperator, Operator, OperatorContext, PythonOperator
from kaapana_assets.workflows.parameters import as_text


@dataclass
class Attempt:
    """What a launch, and the launches that mend it, left in the directory.

    Attributes:
        verified: series whose output is whole.
        skipped: series for which the operator said that there is nothing to do.
        failed: series and why.
        launches: containers started.
    """

    verified: set[str] = field(default_factory=set)
    skipped: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    launches: int = 0

    def add(self, other: Attempt) -> None:
        """Take over what another attempt did with other series."""
        self.verified |= other.verified
        self.skipped |= other.skipped
        self.failed.update(other.failed)
        self.launches += other.launches


def attempt_series(work: Work, operator: Operator, directory: RunDirectory, series: Sequence[str]) -> Attempt:
    """Run the operator on all the series at once; what goes wrong is tried again series by series.

    Args:
        work: the run.
        operator: an operator of level series.
        directory: holds the input of the series, and gets their outputs.
        series: the SeriesInstanceUIDs.

    Only outputs of a launch that ended well count: one that failed may have left half a file for
    any of its series. After a failure the series that have an output are first made again together,
    without those that have none; if that fails too, each series is tried alone.

    Raises:
        KaapanaAssetsError: other than OperatorError: no launch can work (no such image, no store).
    """
    result, error = _launch(work, operator, directory, series)
    if len(series) == 1 or (error is None and not result.failed):
        return result
    alone = sorted(result.failed)
    result.failed.clear()
    if error is not None:
        promising = sorted(result.verified)
        result.verified.clear()
        if promising and alone:
            work.log.info("%s: %d series are tried again together", operator.full_name, len(promising))
            again, error = _launch(work, operator, directory, promising)
            result.launches += again.launches
            alone += sorted(again.failed)
            if error is None:
                result.verified |= again.verified
                result.skipped |= again.skipped
            else:
                alone += sorted(again.verified)
        else:
            alone += promising
    work.log.info("%s: %d series are tried one by one", operator.full_name, len(alone))

    def launch_alone(uid: str) -> Attempt:
        return Attempt() if work.cancelled.is_set() else _launch(work, operator, directory, [uid])[0]

    for attempt in as_they_end(work, launch_alone, alone, at_once=work.stores.runner.parallel_launches):
        result.add(attempt)
    return result


def attempt_pooled(work: Work, operator: Operator, directory: RunDirectory, series: Sequence[str]) -> int:
    """Run the operator once for the whole cohort; the number of launches.

    Raises:
        OperatorError: it failed, or its output is not there.
    """
    view = view_of(operator, directory, series)
    outcome, error, launches = _start(work, operator, directory, view, series)
    if error is None and outcome is Outcome.SKIPPED:
        error = OperatorFailed(f"operator {operator.full_name} said that there is nothing to do for the cohort")
    if error is not None:
        raise OperatorFailed(str(error)) from error
    left = verify(work, operator, view, series)
    refused = left.refused_launch or next(iter(left.refused.values()), None)
    reason = _named_refusal(operator, refused) or left.missing(operator)
    if reason:
        raise OperatorFailed(reason)
    _take(operator, view, directory, operator.out_dir)
    remove_view(work, directory, view)
    return launches


def _launch(
    work: Work, operator: Operator, directory: RunDirectory, series: Sequence[str]
) -> tuple[Attempt, OperatorError | None]:
    view = view_of(operator, directory, series)
    outcome, error, launches = _start(work, operator, directory, view, series)
    result = Attempt(launches=launches)
    left = Left() if error is not None and len(series) == 1 else verify(work, operator, view, series)
    for uid in series:
        refused = _named_refusal(operator, left.refused.get(uid) or left.refused_launch)
        reason = refused or left.missing(operator, uid)
        if error is not None and (reason or len(series) == 1):
            result.failed[uid] = str(error)
        elif reason is None and not (operator.only_acts and outcome is Outcome.SKIPPED):
            result.verified.add(uid)
        elif outcome is Outcome.SKIPPED and refused is None:
            result.skipped.add(uid)
        else:
            result.failed[uid] = f"series {uid}: operator {operator.full_name} ended well, but {reason}"
    if error is None:
        for uid in sorted(result.verified):
            try:
                _take(operator, view, directory, *directory.place(uid, operator.out_dir))
            except UnsafePath as exc:  # only now: somebody else writes there, or it may not be moved
                result.verified.discard(uid)
                result.failed[uid] = f"series {uid}: {_named_refusal(operator, str(exc))}"
    # What failed together is tried alone; the last view of a series that failed is kept to be looked into.
    if not result.failed or len(series) > 1:
        remove_view(work, directory, view)
    return result, error


def _start(
    work: Work, operator: Operator, directory: RunDirectory, view: RunDirectory, series: Sequence[str]
) -> tuple[Outcome | None, OperatorError | None, int]:
    error: OperatorError | None = None
    for launches in range(1, operator.retries + 2):
        # Also what a failed launch did to its input must not reach the next one.
        try:
            if not _goes_on(work, operator, view, series):
                lay_out(work, operator, directory, view, series)
            if isinstance(operator, ContainerOperator):
                launch = _container_launch(work, operator, view)
                outcome = work.stores.runner.run(launch, output=work.output, cancelled=work.cancelled)
            else:
                outcome = _call(work, operator, view, series)
        except OperatorError as exc:
            error = exc
            work.log.warning("%s failed on %d series: %s", operator.full_name, len(series), exc)
            if work.cancelled.is_set():
                break
        else:
            return outcome, None, launches
    return None, error, launches


def _goes_on(work: Work, operator: Operator, view: RunDirectory, series: Sequence[str]) -> bool:
    """Whether an equal launch of a process that died goes on in the view, or ended there."""
    if not isinstance(operator, ContainerOperator):
        return False
    if not work.stores.runner.adopts(_container_launch(work, operator, view)):
        return False
    work.log.info("%s: going on with the container that is there for %d series", operator.full_name, len(series))
    return True


def _container_launch(work: Work, operator: ContainerOperator, view: RunDirectory) -> Launch:
    return Launch(
        run_id=work.directory.name,
        workflow=work.workflow.name,
        cohort=work.request.cohort,
        operator=operator.full_name,
        image=operator.image,
        directory=view.path,
        operator_in_dir=work.workflow.in_dir(operator),
        operator_out_dir=operator.out_dir,
        parameters={name: as_text(value) for name, value in operator.seen(work.request.parameters).items()},
        env_vars=operator.env_vars,
        command=operator.command,
        timeout_s=operator.timeout_s,
        memory_mb=operator.memory_mb,
        cpu=operator.cpu,
        gpus=operator.gpus,
        network=operator.network,
        image_pull_secrets=operator.image_pull_secrets,
    )


def _call(work: Work, operator: Operator, view: RunDirectory, series: Sequence[str]) -> Outcome:
    if not isinstance(operator, PythonOperator):
        raise TypeError(f"no such kind of operator: {type(operator).__name__}")
    context = OperatorContext(
        directory=view.path,
        series=tuple(series),
        operator_in_dir=work.workflow.in_dir(operator),
        operator_out_dir=operator.out_dir,
        parameters=operator.seen(work.request.parameters),
        settings=operator.settings,
        cohort=work.request.cohort,
        objects=work.stores.objects,
        log=work.log,
    )
    try:
        operator.function(context)
    except StoreUnavailable:
        raise  # no fault of the series: the step is repeated later
    except KaapanaAssetsError as exc:
        raise OperatorFailed(f"operator {operator.full_name}: {exc}") from exc
    except Exception as exc:  # the function is the author's code and may raise anything
        raise OperatorFailed(f"operator {operator.full_name}: {type(exc).__name__}: {exc}") from exc
    return Outcome.DONE


def _take(operator: Operator, view: RunDirectory, directory: RunDirectory, *place: str) -> None:
    if operator.only_acts:  # an empty folder, which goes the way of all outputs
        view.remove(*place)
        with view.opened(*place, make=True):
            pass
    take_output(view, directory, *place)


def _named_refusal(operator: Operator, reason: str | None) -> str | None:
    return None if reason is None else f"what operator {operator.full_name} left is refused: {reason}"
