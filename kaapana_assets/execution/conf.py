"""What an operator may read in ``conf/conf.json``: what was asked, also under the keys of Kaapana.

Today's scripts read ``workflow_form``, ``data_form`` and ``project_form`` (``load_workflow_config`` of
kaapanapy), those before 0.5 ``form_data``, the first ones ``conf.form_data``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from kaapana_assets.execution.run_context import OperatorRun, Request
from kaapana_assets.stores.files.run_directory import RunDirectory
from kaapana_assets.workflows.parameters import Value

# What Kaapana calls them where nobody chose: there are no projects and no users of its kind here.
_PROJECT = {"id": "admin", "name": "admin", "opensearch_index": None}
_USER = "system"


def kaapana_keys(request: Request, *, parameters: Mapping[str, Value], series: Sequence[str]) -> dict[str, Any]:
    """The keys of Kaapana.

    Args:
        request: what was asked.
        parameters: those that the operator sees, with their types.
        series: the SeriesInstanceUIDs that it is given.
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
    """Say in the directory of a launch what it is given.

    Only the parameters that the operator sees, and only its series: what is not part of a fingerprint
    must not reach an output.
    """
    request = run.request
    parameters = run.operator.seen(request.parameters)
    seen = {uid: request.series[uid] for uid in series}
    given = replace(request, parameters=parameters, series=seen, missing={}, forgotten=0)
    directory.show_conf({**given.as_json(), **kaapana_keys(request, parameters=parameters, series=series)})
