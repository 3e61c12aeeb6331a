"""What Dagster is asked for when a cohort is sent to a workflow, and the names that the compiler gives its ops.

Plain data: the compiler makes ops of these names, and whoever launches asks for them by this module alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from kaapana_assets.workflows.model import Workflow
from kaapana_assets.workflows.operators import name_in_dagster
from kaapana_assets.workflows.parameters import complete
from kaapana_assets.workflows.plan import PLAN_TAG

PREPARE = "prepare"
"""The step before the operators."""
MODE_TAG = "kaapana_assets/mode"
COHORT_TAG = "kaapana_assets/cohort"

Mode: TypeAlias = Literal["batch", "single"]


@dataclass(frozen=True, kw_only=True)
class LaunchRequest:
    """A run to be launched.

    Attributes:
        job: name of the job.
        partition: key of the cohort's partition.
        run_config: Dagster run config.
        tags: of the run.
    """

    job: str
    partition: str
    run_config: Mapping[str, Any]
    tags: Mapping[str, str]


def launch_request(
    workflow: Workflow,
    cohort: str,
    *,
    mode: Mode = "batch",
    parameters: Mapping[str, object] | None = None,
    force: bool = False,
    plan_digest: str = "",
) -> LaunchRequest:
    """The run of a workflow over a cohort.

    Args:
        workflow: what to run.
        cohort: name of a frozen cohort.
        mode: all series at once, or a run directory and launches for each.
        parameters: those that differ from their defaults, as values or their text.
        force: compute again what is on the shelf already.
        plan_digest: of the workflow files, plugins and images that were looked at; a worker that loaded others
            refuses the run.

    Raises:
        ParameterError: an unknown name, or a value of the wrong type.
    """
    config = {"mode": mode, "force": force, "parameters": complete(workflow.parameters, parameters or {})}
    tags = {COHORT_TAG: cohort, MODE_TAG: mode}
    return LaunchRequest(
        job=workflow.job_name,
        partition=cohort,
        run_config=cohort_run_config(workflow.job_name, config),
        tags={**tags, PLAN_TAG: plan_digest} if plan_digest else tags,
    )


def cohort_run_config(job: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The run config of a job over a cohort, from that of its first step (mode, force, parameters)."""
    return {"ops": {graph_name(job): {"ops": {op_name(job, PREPARE): {"config": dict(config)}}}}}


def graph_name(job: str) -> str:
    """The graph of all steps of a run over a cohort."""
    return f"{job}_cohort"


def op_name(job: str, step: str) -> str:
    """The op of a step: PREPARE, an operator by its name in Dagster, or ``model.REPORT``."""
    return f"{job}_{step}"


def step_name(job: str, step_key: str) -> str:
    """The step that an op's key, ``<graph>.<op>``, is of; as ``op_name`` takes it."""
    return step_key.rpartition(".")[2].removeprefix(f"{job}_")


def operator_of_step(workflow: Workflow, step_key: str) -> str | None:
    """The full name of the operator of a step, or PREPARE; None for any other step."""
    name = step_name(workflow.job_name, step_key)
    if name == PREPARE:
        return PREPARE
    return next((o.full_name for o in workflow.operators if name_in_dagster(o.full_name) == name), None)
