"""Sends a cohort to a workflow, follows the run and reads its results."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from kaapana_assets.cohorts import cohort as cohort_files
from kaapana_assets.containers.reasons import short_reason
from kaapana_assets.errors import ConfigurationError, DagsterUnavailable, InputError, NotFound
from kaapana_assets.execution.last_report import EndedRun, state_of, write_last_report
from kaapana_assets.execution.report import RunState, read_report, report_path
from kaapana_assets.graphql.answers import Run, told
from kaapana_assets.operations.cohorts import PARTITIONS
from kaapana_assets.operations.session import Session
from kaapana_assets.operations.workflows import load_workflows
from kaapana_assets.stores.files.shelf import Manifest
from kaapana_assets.workflows.launch_request import Mode, launch_request, step_name
from kaapana_assets.workflows.loader import Loaded
from kaapana_assets.workflows.model import Workflow
from kaapana_assets.workflows.plan import PLAN_TAG

_PARTITION_TAG = "dagster/partition"
_MOST_REASONS = 10


@dataclass(frozen=True, kw_only=True)
class CohortRun:
    """A run of a workflow over a cohort.

    Attributes:
        run_id: Dagster's id of the run.
        url: the run's page in Dagster's web UI.
        cohort: name of the cohort.
    """

    run_id: str
    url: str
    workflow: Workflow
    cohort: str


@dataclass(frozen=True)
class StepChange:
    """A change in the status of a run's step.

    Attributes:
        step: ``prepare``, ``report`` or the operator's name in Dagster.
        status: ``IN_PROGRESS``, ``SUCCESS``, ``FAILURE`` or ``SKIPPED``.
    """

    step: str
    status: str


@dataclass(frozen=True)
class RunResult:
    """The result of a run that has ended.

    Attributes:
        report: the outcomes of each operator and series, in the form of ``report.json``; None if another run of the
            same cohort has replaced the report, or no report could be written.
        report_path: the file of the report.
        reasons: why the run failed, one line each; for use without a report.
    """

    run: Run
    report: Mapping[str, Any] | None
    report_path: Path
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Output:
    """The output of an operator for a series or a cohort.

    Attributes:
        folder: the folder of its files.
        manifest: the list of its files with sizes and digests, and the run that made it.
    """

    folder: Path
    manifest: Manifest


def start(
    session: Session,
    workflow: str,
    cohort: str,
    *,
    mode: Mode = "batch",
    parameters: Mapping[str, object] | None = None,
    force: bool = False,
    on_reload: Callable[[str], None] | None = None,
) -> CohortRun:
    """Start a run of a workflow over a frozen cohort.

    Args:
        session: session on a platform that is up.
        workflow: name of the workflow, with hyphens or underscores.
        cohort: name of a frozen cohort.
        mode: ``batch`` for all series at once, or ``single`` for a run directory and launches per series.
        parameters: the parameters that differ from their defaults, as values or as text.
        force: compute outputs again that are on the shelf.
        on_reload: called with the reason when Dagster must reload the workflow files first.

    Raises:
        NotFound: no such workflow or cohort, or the workflow cannot be run; says why.
        ParameterError: a parameter has an unknown name or a value of the wrong type.
        ConfigurationError: Dagster loads other workflow files or images than this process.
        DagsterUnavailable: Dagster does not answer.
    """
    loaded = load_workflows(session)
    definition = loaded.named(workflow)
    frozen = cohort_files.read(session.settings.paths.cohorts, cohort)
    request = launch_request(
        definition, frozen.name, mode=mode, parameters=parameters, force=force, plan_digest=loaded.plan.digest
    )
    _let_dagster_load(session, definition, loaded, on_reload or (lambda _: None))
    dagster = session.dagster
    dagster.add_dynamic_partition(PARTITIONS, request.partition)
    run_id = dagster.launch(request.job, partition=request.partition, run_config=request.run_config, tags=request.tags)
    return CohortRun(run_id=run_id, url=dagster.run_url(run_id), workflow=definition, cohort=cohort)


def find(session: Session, run_id: str) -> CohortRun:
    """Return an existing run, whoever started it.

    Raises:
        NotFound: there is no such run, or it is not a run of an existing workflow over a cohort.
        DagsterUnavailable: Dagster does not answer.
    """
    return _cohort_run(session, session.dagster.run(run_id), load_workflows(session))


def latest(session: Session, *, workflow: str | None = None, limit: int = 20) -> list[tuple[CohortRun, Run]]:
    """Return the newest runs over cohorts, newest first.

    Args:
        session: session on a platform that is up.
        workflow: only runs of this workflow.
        limit: the most runs to return.

    Raises:
        NotFound: no such workflow.
        DagsterUnavailable: Dagster does not answer.
    """
    loaded = load_workflows(session)
    definitions = [loaded.named(workflow)] if workflow else list(loaded.workflows.values())
    runs = [run for each in definitions for run in session.dagster.runs(job=each.job_name, limit=limit)]
    # A queued run has no start time yet, and counts as the newest.
    runs.sort(key=lambda run: run.start_time or time.time(), reverse=True)
    return [(_cohort_run(session, run, loaded), run) for run in runs if _PARTITION_TAG in run.tags][:limit]


def follow(
    session: Session,
    run: CohortRun,
    *,
    on_step: Callable[[StepChange], None] | None = None,
    on_away: Callable[[], None] | None = None,
    timeout_s: float | None = None,
) -> RunResult:
    """Wait until a run has ended, and return its result.

    Args:
        session: session on a platform that is up.
        run: a run from ``start`` or ``find``.
        on_step: called when a step starts or ends.
        on_away: called when Dagster stops answering; the run continues.
        timeout_s: longest wait, in seconds.

    Raises:
        TimeoutError: the run did not end within ``timeout_s``; it continues.
        DagsterUnavailable: Dagster did not answer for two minutes.
    """
    seen: set[StepChange] = set()

    def progress(now: Run) -> None:
        for step in now.steps:
            change = StepChange(step_name(run.workflow.job_name, step.key), step.status)
            if on_step is not None and change not in seen:
                seen.add(change)
                on_step(change)

    def away(_: DagsterUnavailable) -> None:
        if on_away is not None:
            on_away()

    return _result(session, run, session.dagster.wait(run.run_id, progress, on_away=away, timeout_s=timeout_s))


def result(session: Session, run: CohortRun) -> RunResult:
    """Return the result of a run that has ended.

    Raises:
        InputError: the run has not ended.
        DagsterUnavailable: Dagster does not answer.
    """
    now = session.dagster.run(run.run_id)
    if not now.finished:
        raise InputError(f"run {run.run_id} of {run.workflow.name} on cohort {run.cohort} goes on: {run.url}")
    return _result(session, run, now)


def cancel(session: Session, run: CohortRun) -> None:
    """Ask a run to end together with its containers; does nothing if it has ended.

    Raises:
        DagsterUnavailable: Dagster does not answer.
    """
    if not session.dagster.run(run.run_id).finished:
        session.dagster.terminate(run.run_id)


def reexecute(session: Session, run: CohortRun) -> CohortRun:
    """Start a new run that repeats the failed steps of a run and the steps after them.

    Raises:
        InputError: the run has not ended, or it succeeded.
        DagsterUnavailable: Dagster does not answer.
    """
    before = session.dagster.run(run.run_id)
    if not before.finished or before.succeeded:
        what = "succeeded, nothing of it is left to repeat" if before.succeeded else "goes on"
        raise InputError(f"run {run.run_id} of {run.workflow.name} on cohort {run.cohort} {what}: {run.url}")
    run_id = session.dagster.reexecute_from_failure(run.run_id)
    return CohortRun(run_id=run_id, url=session.dagster.run_url(run_id), workflow=run.workflow, cohort=run.cohort)


def output(session: Session, workflow: str, operator: str, partition: str) -> Output | None:
    """Return the output of an operator for a series or cohort; None if the shelf has no complete output.

    Args:
        session: session on a home.
        workflow: name of the workflow, with hyphens.
        operator: full name of the operator.
        partition: a SeriesInstanceUID or the name of a cohort.

    Raises:
        InvalidIdentifier: one of the names is not valid.
    """
    manifest = session.shelf.manifest(workflow, operator, partition)
    return None if manifest is None else Output(session.shelf.entry(workflow, operator, partition), manifest)


def fetch(session: Session, workflow: str, operator: str, partition: str, into: Path) -> Output:
    """Copy the output of an operator into a new folder, and check the digest of each file.

    Raises:
        NotFound: the shelf has no complete output; says what to run.
    """
    manifest = session.shelf.fetch(workflow, operator, partition, into)
    return Output(into, manifest)


def _let_dagster_load(session: Session, workflow: Workflow, loaded: Loaded, on_reload: Callable[[str], None]) -> None:
    """Ensure that Dagster has loaded the same workflow files as this process; make it reload them if not."""
    known = _plan_in_dagster(session, workflow)
    if known == loaded.plan.digest:
        return
    what = "does not know this workflow yet" if known is None else "has loaded older workflow files, plugins or images"
    on_reload(f"Dagster {what}")
    session.dagster.reload()
    known = _plan_in_dagster(session, workflow)
    if known == loaded.plan.digest:
        return
    found = "has no such workflow" if known is None else "has others"
    settings = session.settings
    raise ConfigurationError(
        f"workflow {workflow.name!r} is not run: Dagster at {session.dagster.url} {found} after it loaded the workflow "
        "files and images again. Were they edited just now, run it again. Else it looks elsewhere than this command, "
        f"which sees the home {settings.home}, KAAPANA_IMAGES={settings.images} and KAAPANA_RUNNER={settings.runner}: "
        "set these as they were set for the platform"
    )


def _plan_in_dagster(session: Session, workflow: Workflow) -> str | None:
    try:
        return session.dagster.job_tags(workflow.job_name).get(PLAN_TAG, "")
    except NotFound:
        return None


def _cohort_run(session: Session, run: Run, loaded: Loaded) -> CohortRun:
    workflow = next((each for each in loaded.workflows.values() if each.job_name == run.job), None)
    cohort = run.tags.get(_PARTITION_TAG)
    if workflow is None or cohort is None:
        raise NotFound(f"run {run.run_id} of job {run.job} is no run of a workflow over a cohort")
    return CohortRun(run_id=run.run_id, url=session.dagster.run_url(run.run_id), workflow=workflow, cohort=cohort)


def _result(session: Session, run: CohortRun, ended: Run) -> RunResult:
    shelf, workflow = session.shelf, run.workflow
    if ended.succeeded:
        report = read_report(shelf, workflow, run.cohort)
        if report is not None and report["dagster_run_id"] != ended.run_id:
            report = None
    else:
        report = write_last_report(session.settings.home, workflow, _ended(session, run, ended))
    reasons = () if ended.succeeded else tuple(_reasons(session, ended))
    return RunResult(ended, report, report_path(shelf, workflow, run.cohort), reasons)


def _ended(session: Session, run: CohortRun, ended: Run) -> EndedRun:
    """Return how the run ended, from Dagster's run and its failures."""
    said = dict(each.partition(": ")[::2] for each in session.dagster.failures(ended.run_id))
    reason = short_reason(told(said.pop("run", "")))
    steps = RunState(
        status="cancelled" if ended.status == "CANCELED" else "failed",
        reason=reason or f"the run is {ended.status.lower()}",
        begun=frozenset(step.key for step in ended.steps if step.start_time is not None),
        failed={step: told(text) for step, text in said.items()},
    )
    return EndedRun(
        run_id=ended.run_id,
        root_run_id=ended.root_run_id or ended.run_id,
        cohort=run.cohort,
        ended=datetime.fromtimestamp(ended.end_time or time.time(), timezone.utc),
        state=state_of(run.workflow, steps),
    )


def _reasons(session: Session, run: Run) -> list[str]:
    """Return the distinct reasons for failure, without the names of exceptions, which the run's log has."""
    if run.status == "CANCELED":
        return ["the run was cancelled"]
    reasons = []
    for said in session.dagster.failures(run.run_id):
        step, _, text = said.partition(": ")
        reasons.append(f"{step.rpartition('.')[2]}: {short_reason(told(text))}")
    steps = [reason for reason in reasons if not reason.startswith("run: ")]
    return list(dict.fromkeys(steps or reasons))[:_MOST_REASONS]
