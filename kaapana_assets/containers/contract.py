"""The environment variables of an operator's container, the same for every runner."""

from __future__ import annotations

import re

from kaapana_assets.containers.protocol import Launch
from kaapana_assets.errors import ParameterError

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def environment(launch: Launch, *, workflow_dir: str) -> dict[str, str]:
    """Return the variables of one launch: the operator's own, the workflow's parameters, the contract's.

    Later ones win: a workflow parameter overrides the operator's variable of the same name, and nothing
    overrides the contract.

    Args:
        launch: the launch.
        workflow_dir: absolute path of the run directory as the operator sees it. Scripts join it to
            ``/``, which leaves an absolute path unchanged.

    Raises:
        ParameterError: a name is not valid for an environment variable, or a value contains a NUL byte.
    """
    chosen = {name.upper(): value for name, value in launch.parameters.items()}
    contract = {
        "WORKFLOW_DIR": workflow_dir,
        "BATCH_NAME": launch.batch_name,
        "OPERATOR_IN_DIR": launch.operator_in_dir,
        "OPERATOR_OUT_DIR": launch.operator_out_dir,
        "BATCHES_INPUT_DIR": f"{workflow_dir}/{launch.batch_name}",
        "RUN_ID": launch.run_id,
        "DAG_ID": launch.workflow,
        "TASK_ID": launch.operator,
    }
    variables = {**launch.env_vars, **chosen, **contract}
    for name, value in variables.items():
        if not _VARIABLE.fullmatch(name) or "\0" in value:
            raise ParameterError(
                f"operator {launch.operator} of workflow {launch.workflow}: {name[:80]!r} and its value cannot "
                "be an environment variable; use letters, digits and '_' for the name, no NUL in the value"
            )
    return variables
