"""Compiles a workflow to Dagster: assets per series for backfills, and a job for cohorts.

Each series operator becomes an asset partitioned by series. The cohort run becomes a graph-backed asset partitioned
by cohorts, with one step per operator. A step of a series operator records each series on the operator's own asset.
The outputs of the graph are the outputs of pooled operators, and the report. All steps call the functions in ``ops``.
"""

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from kaapana_assets.defs.partitions import COHORT, COHORTS, SERIES
from kaapana_assets.defs.resources import Platform
from kaapana_assets.defs.workflows import ops, run_setup
from kaapana_assets.defs.workflows.plan_gate import Gate
from kaapana_assets.errors import WorkflowError
from kaapana_assets.workflows.launch_request import PREPARE, graph_name, op_name
from kaapana_assets.workflows.model import REPORT, Workflow
from kaapana_assets.workflows.operators import ContainerOperator, Operator, name_in_dagster
from kaapana_assets.workflows.parameters import Parameter
from kaapana_assets.workflows.plan import PLAN_TAG

_MODE = dg.Enum(
    "mode",
    [
        dg.EnumValue("batch", description="One run directory; every operator gets all its series at once."),
        dg.EnumValue("single", description="A run directory and launches for each series."),
    ],
)


@dataclass(frozen=True)
class Compiled:
    """The assets and the job of one workflow."""

    assets: Sequence[dg.AssetsDefinition]
    job: Any


def compile_workflow(workflow: Workflow, versions: Mapping[str, str], gate: Gate, *, series_per_run: int) -> Compiled:
    """Compile a workflow to its assets and its cohort job.

    Args:
        workflow: a valid workflow.
        versions: the version of each operator's code, so that outputs of changed operators show as out of date.
        gate: the check that every step passes first.
        series_per_run: the most partitions in one run of a backfill.

    Raises:
        WorkflowError: Dagster refuses the definitions.
    """
    try:
        return _compiled(workflow, versions, gate, series_per_run)
    except dg.DagsterInvalidDefinitionError as exc:
        raise WorkflowError(f"Dagster refuses it: {exc}") from exc


def _compiled(workflow: Workflow, versions: Mapping[str, str], gate: Gate, series_per_run: int) -> Compiled:
    series_assets = [
        _series_asset(workflow, operator, versions[operator.full_name], gate, series_per_run=series_per_run)
        for operator in workflow.operators
        if operator.level == "series"
    ]
    cohort_assets = _cohort_assets(workflow, versions, gate)
    job = dg.define_asset_job(
        workflow.job_name,
        selection=list(cohort_assets.keys),
        executor_def=dg.in_process_executor,
        description=workflow.description,
        tags={"kaapana_assets/workflow": workflow.name, PLAN_TAG: gate.plan.digest},
    )
    return Compiled([*series_assets, cohort_assets], job)


def _series_asset(
    workflow: Workflow, operator: Operator, version: str, gate: Gate, *, series_per_run: int
) -> dg.AssetsDefinition:
    @dg.asset(
        key=ops.asset_key(workflow, operator.full_name),
        partitions_def=SERIES,
        deps=ops.upstream_keys(workflow, operator),
        backfill_policy=dg.BackfillPolicy.multi_run(series_per_run),
        output_required=False,
        code_version=version,
        group_name=workflow.job_name,
        kinds=_kinds(operator),
        description=_description(workflow, operator),
        config_schema=gate.config({"force": _FORCE, "parameters": _parameters(workflow)}),
    )
    def output(context: dg.AssetExecutionContext, platform: Platform):  # type: ignore[no-untyped-def]  # noqa: ANN202
        with run_setup.asked_again(context.op_execution_context, platform), gate.passed(context.op_execution_context):
            ops.backfill_step(context.op_execution_context, platform, workflow, operator)
        return
        yield  # makes this a generator, as Dagster requires; the step has recorded each series

    return output


def _cohort_assets(workflow: Workflow, versions: Mapping[str, str], gate: Gate) -> dg.AssetsDefinition:
    pooled = [operator for operator in workflow.operators if operator.level == "cohort"]
    upstream = {f"upstream_{place}": key for place, key in enumerate(ops.upstream_of_cohort(workflow))}
    prepare = _prepare_op(workflow, [*upstream, "cohort"], gate)
    by_operator = {operator.full_name: _operator_op(workflow, operator, gate) for operator in workflow.operators}
    report = _report_op(workflow, gate)

    @dg.graph(
        name=graph_name(workflow.job_name),
        ins={name: dg.GraphIn() for name in (*upstream, "cohort")},
        out={name: dg.GraphOut() for name in (*(name_in_dagster(o.full_name) for o in pooled), REPORT)},
    )
    def cohort_run(**inputs):  # type: ignore[no-untyped-def]  # noqa: ANN003, ANN202
        begun = prepare(**inputs)
        ended: dict[str, Any] = {}
        for operator in workflow.operators:
            before = [ended[other.full_name] for other in workflow.predecessors(operator)]
            ended[operator.full_name] = by_operator[operator.full_name](after=[begun, *before])
        outputs = {name_in_dagster(operator.full_name): ended[operator.full_name] for operator in pooled}
        return {**outputs, REPORT: report(after=list(ended.values()))}

    assets = dg.AssetsDefinition.from_graph(
        cohort_run,
        keys_by_input_name={
            **upstream,
            "cohort": COHORT,
        },
        keys_by_output_name={
            **{name_in_dagster(o.full_name): ops.asset_key(workflow, o.full_name) for o in pooled},
            REPORT: ops.asset_key(workflow, REPORT),
        },
        partitions_def=COHORTS,
        group_name=workflow.job_name,
        backfill_policy=dg.BackfillPolicy.multi_run(1),
        descriptions_by_output_name={
            **{name_in_dagster(o.full_name): _description(workflow, o) for o in pooled},
            REPORT: "What became of each series of the cohort: done, reused, skipped or failed, and what was made.",
        },
    )
    by_key = {ops.asset_key(workflow, o.full_name): versions[o.full_name] for o in pooled}
    return assets.map_asset_specs(lambda spec: spec.replace_attributes(code_version=by_key.get(spec.key)))


def _prepare_op(workflow: Workflow, inputs: Sequence[str], gate: Gate) -> dg.OpDefinition:
    @dg.op(
        name=op_name(workflow.job_name, PREPARE),
        description="Reads the frozen cohort and lays out the run directory.",
        ins={name: dg.In(dg.Nothing) for name in inputs},
        out=dg.Out(dg.Nothing),
        config_schema=gate.config(
            {
                "mode": dg.Field(_MODE, default_value="batch", is_required=False),
                "force": _FORCE,
                "parameters": _parameters(workflow),
            }
        ),
    )
    def prepare(context: dg.OpExecutionContext, platform: Platform) -> None:
        with run_setup.asked_again(context, platform), gate.passed(context):
            # Published first, so that nobody takes an earlier run's report for this run's.
            ops.publish_report(context, run_setup.begin(context, platform, workflow))

    return prepare


def _operator_op(workflow: Workflow, operator: Operator, gate: Gate) -> dg.OpDefinition:
    name = name_in_dagster(operator.full_name)

    @dg.op(
        name=op_name(workflow.job_name, name),
        description=_description(workflow, operator),
        ins={"after": dg.In(dg.Nothing)},
        out={name: dg.Out(dg.Nothing)},
        tags={"kind": sorted(_kinds(operator))[0]},
    )
    def operate(context: dg.OpExecutionContext, platform: Platform):  # type: ignore[no-untyped-def]  # noqa: ANN202
        with (
            run_setup.asked_again(context, platform),
            gate.passed(context),
            run_setup.resume(context, platform, workflow) as run,
        ):
            with ops.told_in_report(context, run, operator):
                if operator.level == "cohort":
                    output = ops.pooled_step(context, run.of(operator))
                else:
                    ops.series_step(context, run.of(operator))
                    output = dg.Output(None, name)
            yield output

    return operate


def _report_op(workflow: Workflow, gate: Gate) -> dg.OpDefinition:
    @dg.op(
        name=op_name(workflow.job_name, REPORT),
        description="Says what became of each series; fails the run when a series failed.",
        ins={"after": dg.In(dg.Nothing)},
        out={REPORT: dg.Out(dg.Nothing)},
    )
    def report(context: dg.OpExecutionContext, platform: Platform):  # type: ignore[no-untyped-def]  # noqa: ANN202
        with (
            run_setup.asked_again(context, platform),
            gate.passed(context),
            run_setup.resume(context, platform, workflow) as run,
        ):
            if context.run.parent_run_id is not None:
                with ops.told_in_report(context, run, None):
                    ops.mend(context, run)
            output, failure = ops.report_step(context, run)
            yield output
            if failure is not None:
                raise failure
            ops.finish(run, platform)

    return report


_FORCE = dg.Field(
    bool, default_value=False, is_required=False, description="Compute again what is on the shelf already."
)


def _parameters(workflow: Workflow) -> dg.Field:
    fields: dict[str, Any] = {
        parameter.name: dg.Field(
            _config_type(parameter),
            default_value=parameter.default,
            is_required=False,
            description=_shown(parameter),
        )
        for parameter in workflow.parameters
    }
    # The Launchpad omits a field that is marked as not required from its proposed configuration.
    return dg.Field(dg.Shape(fields), description="The workflow's parameters.")  # type: ignore[no-untyped-call]


def _config_type(parameter: Parameter) -> type | dg.Enum:
    if parameter.choices and isinstance(parameter.default, str):
        return _enum(parameter.name, tuple(map(str, parameter.choices)))
    return type(parameter.default)


@functools.cache  # Dagster requires one object per name
def _enum(name: str, choices: tuple[str, ...]) -> dg.Enum:
    digest = hashlib.sha256("\0".join(choices).encode()).hexdigest()[:8]
    return dg.Enum(f"{name}_{digest}", [dg.EnumValue(choice) for choice in choices])


def _shown(parameter: Parameter) -> str | None:
    is_listed = parameter.choices and not isinstance(parameter.default, str)
    one_of = f"One of {', '.join(map(str, parameter.choices))}." if is_listed else ""
    return " ".join(filter(None, (parameter.description, one_of))) or None


def _description(workflow: Workflow, operator: Operator) -> str:
    what = "for the whole cohort" if operator.level == "cohort" else "of each series"
    made_by = f"image `{operator.image}`" if isinstance(operator, ContainerOperator) else "a function of the platform"
    if operator.only_acts:
        acts = "once for the whole cohort" if operator.level == "cohort" else "on each series"
        return f"That operator `{operator.full_name}` of workflow `{workflow.name}` acted {acts}, by {made_by}."
    return f"What operator `{operator.full_name}` of workflow `{workflow.name}` makes {what}, by {made_by}."


def _kinds(operator: Operator) -> set[str]:
    return {"docker"} if isinstance(operator, ContainerOperator) else {"python"}
