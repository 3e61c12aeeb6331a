"""Ensures that each step works by the plan for which its run was launched.

The code server stores its plan with each run that is launched from it, in the snapshot of the run's execution plan.
Dagster passes this to the process that executes the run, be it a cohort run, a backfill or a run from the web UI. A
process that loaded other files defines the steps of the launched plan, so that the run can start, and each step fails
with the reason.
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
    """The check that every step of a workflow passes before it works.

    Attributes:
        plan: the plan that this process loaded.
        refusal: why no step may work in this process; empty if steps may work.
    """

    plan: Plan
    refusal: str = ""

    @contextmanager
    def passed(self, context: dg.OpExecutionContext) -> Iterator[None]:
        """Enter the block only if the run was launched for the loaded plan.

        Raises:
            dagster.Failure: it was launched for another plan; says which files differ and what to do.
        """
        reason = self.refusal or self._other_plan(context)
        if reason:
            raise dg.Failure(reason, allow_retries=False)
        yield

    def config(self, schema: Mapping[str, Any]) -> Any:  # noqa: ANN401 - Dagster's own type
        """Return the schema of a step's configuration; steps that refuse accept any configuration."""
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
    """Return the launched plan of the run that this process executes; None if it executes no run."""
    context = DefinitionsLoadContext.get()
    if context.load_type is not DefinitionsLoadType.RECONSTRUCTION:
        return None
    text = context.reconstruction_metadata.get(_KEY)
    return None if text is None else Plan.from_text(text)


def hand_on(plan: Plan) -> None:
    """Pass the plan on to the processes of all runs that are launched from this process."""
    DefinitionsLoadContext.get().add_to_pending_reconstruction_metadata(_KEY, plan.as_text())


def gate_for(launched: Plan | None, loaded: Plan, problems: Mapping[str, str]) -> Gate:
    """Return the gate of a process.

    Args:
        launched: the plan of the run that the process executes; None if it executes no run.
        loaded: the plan that the process loaded.
        problems: the errors in workflow files, by file name.
    """
    if launched is None or launched.digest == loaded.digest:
        return Gate(loaded)
    changes = launched.changes_to(loaded)
    broken = "".join(f"; {name}: {last_line(text)}" for name, text in problems.items())
    return Gate(loaded, _refusal(f"{changes}{broken}"))


def stand_ins(launched: Plan) -> list[Workflow]:
    """Return workflows with the steps of the launched plan; every step of them refuses to work."""
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
