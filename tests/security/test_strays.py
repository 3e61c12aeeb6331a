"""Processes that an operator leaves behind end with it, whatever session they went to."""

import os
import time
from pathlib import Path

import pytest
from workflows.conftest import Place, environments, place  # noqa: F401 - fixtures

from kaapana_assets.workflows import ContainerOperator, Workflow

LEFT = {
    "in a session of its own": "setsid sleep 100 > /dev/null 2>&1 &\n",
    "twice forked": '(setsid sh -c "sleep 100 & sleep 100" > /dev/null 2>&1 &)\n',
    "that holds the output": "setsid sleep 100 &\n",
    "that ignores signals": 'setsid sh -c "trap : TERM INT HUP; while :; do sleep 1; done" &\n',
    "that writes": 'setsid sh -c "while :; do date >> $WORKFLOW_DIR/late; mkdir -p $WORKFLOW_DIR/$RANDOM; done" &\n',
    "that begins others": 'setsid sh -c "while :; do setsid sleep 100 & sleep 0.01; done" &\n',
}


@pytest.mark.parametrize("ending", ["exit 0", "exit 1", "sleep 100"])
@pytest.mark.parametrize("case", LEFT)
def test_no_process_of_an_operator_outlives_it(place: Place, case: str, ending: str):  # noqa: F811
    place.each("copy", after=f"{LEFT[case]}sleep 0.2\n{ending}")
    workflow = Workflow(
        name="flow",
        operators=(ContainerOperator(name="copy", image="copy", timeout_s=1 if "sleep" in ending else None),),
    )
    began = time.monotonic()
    result = place.step(place.work(workflow, place.series("1")))
    assert bool(result.done) == (ending == "exit 0")
    assert time.monotonic() - began < 20
    assert processes_of(place.home) == []


def processes_of(home: Path) -> list[str]:
    """The command lines of processes whose environment names the home."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables, command = (folder / "environ").read_bytes(), (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if int(folder.name) != os.getpid() and os.fsencode(home) in variables:
            found.append(command.replace(b"\0", b" ").decode())
    return found
