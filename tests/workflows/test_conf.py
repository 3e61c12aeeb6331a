"""conf.json says what was asked, under the platform's own keys and under those that Kaapana's scripts read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kaapana_assets.execution.run_context import RunRequest
from kaapana_assets.workflows import ContainerOperator, Parameter, Workflow

READ = 'cat "$WORKFLOW_DIR/conf/conf.json" > "$out/conf.json"'
PARAMETERS = (Parameter("level", 1), Parameter("deep", True), Parameter("other", "x"))


def workflow() -> Workflow:
    operator = ContainerOperator(name="read", image="read", parameters=("level", "deep"))
    return Workflow(name="readers", operators=(operator,), parameters=PARAMETERS)


def read(place: Any, uid: str) -> dict[str, Any]:
    return json.loads((place.shelf.entry("readers", "read", uid) / "conf.json").read_text())


@pytest.mark.parametrize("mode", ["batch", "single"])
def test_an_operator_finds_the_keys_of_kaapana(place, mode: str) -> None:
    place.each("read", READ)
    series = place.series("1", "2")
    place.run(workflow(), series, mode=mode, parameters={"level": 3})
    for uid in series:
        conf = read(place, uid)
        form = {"single_execution": mode == "single", "username": "system", "level": 3, "deep": True}
        assert conf["workflow_form"] == conf["form_data"] == conf["conf"]["form_data"] == form
        given = series if mode == "batch" else [uid]
        assert conf["data_form"] == {"identifiers": given, "dataset_name": "all", "dataset_limit": None}
        assert conf["project_form"] == {"id": "admin", "name": "admin", "opensearch_index": None}


def test_a_launch_of_some_series_is_told_only_of_these(place) -> None:
    place.each("read", READ)
    first, second = place.series("1", "2")
    place.run(workflow(), [first])
    place.run(workflow(), [first, second])
    assert read(place, second)["data_form"]["identifiers"] == [second]


def test_the_next_step_of_a_run_reads_what_was_asked_of_it(place) -> None:
    place.each("read", READ)
    work = place.work(workflow(), place.series("1", "2"), parameters={"other": "y"})
    place.step(work)
    assert RunRequest.from_json(work.directory.conf()) == work.request
