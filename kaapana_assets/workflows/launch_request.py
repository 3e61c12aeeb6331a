"""The request to Dagster for a run of a workflow over a cohort, and the names of graphs and ops.

The compiler and everything that launches runs take these names from here. The request is plain data; nothing
here imports Dagster.
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
        partition: partition key of the cohort.
        run_config: Dagster run config.
        tags: tags of the run.
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
    """Return the request for a run of a workflow over a cohort.

    Args:
        workflow: the workflow to run.
        cohort: name of a frozen cohort.
        mode: ``batch``: one run directory for all series; ``single``: one, with its own launches, per series.
        parameters: values, or their text, of the parameters that differ from their defaults.
        force: whether to compute outputs again that are on the shelf already.
        plan_digest: digest of the plan that the caller loaded; a worker that loaded another plan refuses the
            run. Empty: any plan is accepted.

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
    """Return the run config of a cohort job, given the config of its first step (mode, force, parameters)."""
    return {"ops": {graph_name(job): {"ops": {op_name(job, PREPARE): {"config": dict(config)}}}}}


def graph_name(job: str) -> str:
    """Return the name of the graph that contains all steps of a run over a cohort."""
    return f"{job}_cohort"


def op_name(job: str, step: str) -> str:
    """Return the name of a step's op; the step is PREPARE, an operator's name in Dagster, or ``model.REPORT``."""
    return f"{job}_{step}"


def step_name(job: str, step_key: str) -> str:
    """Return the step of a Dagster step key, ``<graph>.<op>``; the inverse of ``op_name``."""
    return step_key.rpartition(".")[2].removeprefix(f"{job}_")


def operator_of_step(workflow: Workflow, step_key: str) -> str | None:
    """Return the full name of a step's operator, or PREPARE; None for any other step."""
    name = step_name(workflow.job_name, step_key)
    if name == PREPARE:
        return PREPARE
    return next((o.full_name for o in workflow.operators if name_in_dagster(o.full_name) == name), None)
