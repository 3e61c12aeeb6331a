"""No step works by another plan than the one that its run was launched for.

The code server hands its plan on with each run that is launched from it, in the snapshot of the run's
execution plan, and Dagster gives that to the process which works the run: cohort runs, backfills and
runs from the web UI alike. A process that loaded other files keeps the run's steps, so that it can begin, and
each of them says the reason instead of working.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster._core.definitions.definitions_load_context import DefinitionsLoadContext, DefinitionsLoadType

from kaapana_assets.workflows.file_states import last_line
from kaapana_assets.workflows.model import Workflow
from kaapana_assets.workflows.operators import ContainerOperator
from kaapana_assets.workflows.plan import PLAN_TAG, Plan

_KEY = PLAN_TAG


@dataclass(frozen=True)
class Gate:
    """What every step of a workflow has to pass before it does anything.

    Attributes:
        plan: what this process has loaded.
        refusal: why no step may work here; empty if they may.
    """

    plan: Plan
    refusal: str = ""

    @contextmanager
    def passed(self, context: dg.OpExecutionContext) -> Iterator[None]:
        """Within it the run is known to be of the plan that is loaded.

        Raises:
            dagster.Failure: it is of another; says which files differ and what to do.
        """
        reason = self.refusal or self._other_plan(context)
        if reason:
            raise dg.Failure(reason, allow_retries=False)
        yield

    def config(self, schema: Mapping[str, Any]) -> Any:  # noqa: ANN401 - as Dagster has it
        """The schema of a step's configuration; steps that only say why they refuse take any."""
        return dict if self.refusal else dict(schema)

    def _other_plan(self, context: dg.OpExecutionContext) -> str:
        run = context.run
        if run.parent_run_id is not None:
            root_id = run.root_run_id or run.parent_run_id
            root = context.instance.get_run_by_id(root_id)
            if root is None:
                return _repeat(root_id, "that run is not there any more, and its plan not known")
            launched = _plan_of(context.instance, root)
            if launched is not None and launched.digest != self.plan.digest:
                return _repeat(root_id, launched.changes_to(self.plan))
            if launched is None and root.tags.get(PLAN_TAG, "") not in ("", self.plan.digest):
                return _repeat(root_id, "they changed since")
        if run.tags.get(PLAN_TAG, self.plan.digest) != self.plan.digest:
            return _refusal("they changed between its launch and its start")
        return ""


def launched_plan() -> Plan | None:
    """The plan that the run was launched for that this process works; None in any other process."""
    context = DefinitionsLoadContext.get()
    if context.load_type is not DefinitionsLoadType.RECONSTRUCTION:
        return None
    text = context.reconstruction_metadata.get(_KEY)
    return None if text is None else Plan.from_text(text)


def hand_on(plan: Plan) -> None:
    """Let the processes of all runs that are launched from here know the plan."""
    DefinitionsLoadContext.get().add_to_pending_reconstruction_metadata(_KEY, plan.as_text())


def gate_for(launched: Plan | None, loaded: Plan, problems: Mapping[str, str]) -> Gate:
    """The gate of a process.

    Args:
        launched: the plan of the run that it works; None if it works none.
        loaded: its own.
        problems: what is wrong with workflow files, by their names.
    """
    if launched is None or launched.digest == loaded.digest:
        return Gate(loaded)
    changes = launched.changes_to(loaded)
    broken = "".join(f"; {name}: {last_line(text)}" for name, text in problems.items())
    return Gate(loaded, _refusal(f"{changes}{broken}"))


def stand_ins(launched: Plan) -> list[Workflow]:
    """Workflows with the steps that a run was launched for, which all refuse."""
    return [
        Workflow(
            name=name,
            operators=tuple(
                ContainerOperator(name=operator, image="none", level="cohort" if level == "cohort" else "series")
                for operator, level in operators
            ),
            source="the plan of a run",
        )
        for name, operators in launched.operators.items()
    ]


def _plan_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Plan | None:
    if run.execution_plan_snapshot_id is None:
        return None
    data = instance.get_execution_plan_snapshot(run.execution_plan_snapshot_id).repository_load_data
    value = None if data is None else data.reconstruction_metadata.get(_KEY)
    return None if value is None else Plan.from_text(getattr(value, "data", value))


def _refusal(changes: str) -> str:
    return (
        f"the workflow files or images are not those that this run was launched for: {changes}. Nothing was done. "
        "Load the workflows again (Dagster's web UI, Deployment, Reload; `kaapana-assets run` does so itself) and "
        "launch a new run"
    )


def _repeat(run_id: str, changes: str) -> str:
    return (
        f"the workflow files or images are not those that the run to be repeated ({run_id}) worked with: {changes}. "
        "A repeat would mix both, so nothing was done: send the cohort anew; what is done already is used again"
    )
