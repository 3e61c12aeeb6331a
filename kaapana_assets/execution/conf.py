"""Writes ``conf/conf.json`` for operators: the request, also under the keys that Kaapana uses.

Today's scripts read ``workflow_form``, ``data_form`` and ``project_form`` (``load_workflow_config`` of
kaapanapy). Scripts before Kaapana 0.5 read ``form_data``, and the first ones ``conf.form_data``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from kaapana_assets.execution.run_context import OperatorRun, RunRequest
from kaapana_assets.stores.files.run_directory import RunDirectory
from kaapana_assets.workflows.parameters import Value

# Kaapana's default names, because this platform has neither projects nor users of that kind.
_PROJECT = {"id": "admin", "name": "admin", "opensearch_index": None}
_USER = "system"


def kaapana_keys(request: RunRequest, *, parameters: Mapping[str, Value], series: Sequence[str]) -> dict[str, Any]:
    """Return the request under the keys that Kaapana uses.

    Args:
        request: the request of the run.
        parameters: the parameters that the operator sees, with their types.
        series: the SeriesInstanceUIDs of the launch.
    """
    form = {"single_execution": request.mode == "single", "username": _USER, **parameters}
    return {
        "workflow_form": form,
        "data_form": {"identifiers": list(series), "dataset_name": request.cohort, "dataset_limit": None},
        "project_form": dict(_PROJECT),
        "form_data": form,
        "conf": {"form_data": form},
    }


def show_conf(run: OperatorRun, directory: RunDirectory, series: Sequence[str]) -> None:
    """Write ``conf/conf.json`` into the view of a launch.

    It holds only the parameters that the operator sees and only the series of the launch, because nothing
    that is not part of the fingerprint may influence an output.
    """
    request = run.request
    parameters = run.operator.seen(request.parameters)
    seen = {uid: request.series[uid] for uid in series}
    given = replace(request, parameters=parameters, series=seen, missing={}, forgotten=0)
    directory.show_conf({**given.as_json(), **kaapana_keys(request, parameters=parameters, series=series)})
