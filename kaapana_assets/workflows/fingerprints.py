"""Fingerprints: one digest of all that an output depends on. No output is computed twice for one fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from kaapana_assets.containers.protocol import Runner
from kaapana_assets.errors import WorkflowError
from kaapana_assets.workflows.function_code import code_of
from kaapana_assets.workflows.model import Workflow
from kaapana_assets.workflows.operators import ContainerOperator, Operator, PythonOperator
from kaapana_assets.workflows.parameters import Value, as_text

Inputs = Mapping[str, Mapping[str, str]]
"""By folder: SeriesInstanceUID (the cohort's name for a pooled output) -> fingerprint.

All folders of series have the same keys: the series for which every one of these folders exists.
"""


def code_version(workflow: Workflow, operator: Operator, runner: Runner, parameters: Mapping[str, Value]) -> str:
    """Return the digest of all that an operator's output depends on, except its inputs.

    It covers the image and its content, the command, the environment, the parameters that the operator sees,
    the folders that it reads and writes, and the output patterns. Timeouts and memory limits are left out:
    they decide whether there is an output, not what it contains.

    Raises:
        NotFound: there is no such image.
        WorkflowError: the source of a Python operator's function cannot be read.
    """
    seen = operator.seen(parameters)
    return _digest(
        {
            "what": _implementation(operator, runner),
            "level": operator.level,
            "in": workflow.in_dir(operator),
            "out": operator.out_dir,
            "patterns": None if operator.only_acts else list(operator.output_patterns),
            "parameters": {name: as_text(value) for name, value in sorted(seen.items())},
        }
    )


def input_fingerprint(by_folder: Mapping[str, str]) -> str:
    """Return the fingerprint of all inputs of one series: that of its single folder, or one digest of several."""
    return next(iter(by_folder.values())) if len(by_folder) == 1 else _digest({"inputs": dict(by_folder)})


def series_fingerprint(code: str, input_fingerprint: str) -> str:
    """Return the fingerprint of one series' output."""
    return _digest({"code": code, "input": input_fingerprint})


def pooled_fingerprint(code: str, inputs: Inputs) -> str:
    """Return the fingerprint of a cohort's output."""
    found = {folder: sorted(versions.items()) for folder, versions in inputs.items()}
    return _digest({"code": code, "inputs": next(iter(found.values())) if len(found) == 1 else found})


def _implementation(operator: Operator, runner: Runner) -> dict[str, object]:
    if isinstance(operator, ContainerOperator):
        return {
            "image": operator.image,
            "digest": runner.image_digest(operator.image),
            "command": operator.command,
            "env_vars": dict(sorted(operator.env_vars.items())),
        }
    if isinstance(operator, PythonOperator):
        try:
            code = code_of(operator.function)
        except (OSError, TypeError, ValueError) as exc:
            raise WorkflowError(
                f"operator {operator.full_name!r}: its function's source cannot be read ({exc}); give it a function "
                "that is written in a file, what configures it goes into settings"
            ) from exc
        return {"function": code, "settings": dict(sorted(operator.settings.items()))}
    raise TypeError(f"no such kind of operator: {type(operator).__name__}")


def _digest(values: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:40]
