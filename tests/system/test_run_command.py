"""``kaapana-assets run``: what it prints when operators fail, read several inputs, are cancelled or killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from system.processes import is_run_worker
from system.series import write_image, write_series

pytestmark = pytest.mark.system

WRITES = """
import os
from pathlib import Path
for series in Path(os.environ["WORKFLOW_DIR"], "batch").iterdir():
    out = series / os.environ["OPERATOR_OUT_DIR"]
    out.mkdir()
    (out / "x").write_text("x")
"""
READS = WRITES.replace('write_text("x")', 'write_text(" ".join(sorted(p.name for p in series.iterdir())))')
RAISES = "import tqdm_is_not_there\n"
SYNTAX = "def f(:\n"
NOISY = """
import sys
print("=" * 40)
def convert(): raise ValueError("slices are not parallel")
for at in range(3): print(f"\\r slices:  {at}%|##   | {at}/3 [00:00<00:00, 9.1it/s]", file=sys.stderr)
convert()
"""
SLOW = WRITES + "import time\nprint('working', flush=True)\ntime.sleep(600)\n"
FLOW = """
from kaapana_assets.workflows import INITIAL_INPUT, ContainerOperator, Workflow, folder_of
first = ContainerOperator(name="first", image="writes")
middle = ContainerOperator(name="middle", image="{image}")
last = ContainerOperator(
    name="last", image="reads", input_operator=middle, inputs=(first, INITIAL_INPUT),
    env_vars={{"DICOM": folder_of(INITIAL_INPUT)}},
)
workflow = Workflow(name="flow-{image}", operators=(first, middle, last))
"""
SCRIPTS = {"writes": WRITES, "reads": READS, "raises": RAISES, "syntax": SYNTAX, "noisy": NOISY, "slow": SLOW}


@pytest.fixture(scope="module")
def up(module_platforms, tmp_path_factory) -> Iterator:
    folder = tmp_path_factory.mktemp("run")
    images = folder / "images"
    for name, script in SCRIPTS.items():
        write_image(images, name, script)
    home = module_platforms.new_home()
    dags = home / "workflows" / "dags"
    dags.mkdir(parents=True)
    for name in SCRIPTS:
        (dags / f"{name}.py").write_text(FLOW.format(image=name))
    platform = module_platforms.start(home, KAAPANA_IMAGES=str(images))
    series = [write_series(folder / "dicom", instances=1, SeriesDescription="run") for _ in range(2)]
    platform.kaapana("send", folder / "dicom")
    stored = platform.dagster.partition_status
    platform.wait_until(lambda: set(series) <= stored("series_metadata").materialized, 200, "series as assets")
    platform.kaapana("cohort", "create", "all", "--query", 'SeriesDescription:"run"')
    platform.images = images
    platform.series = sorted(series)
    return platform


REASONS = {
    "raises": "ModuleNotFoundError: No module named 'tqdm_is_not_there' (exit code 1)",
    "syntax": "SyntaxError: invalid syntax (exit code 1)",
    "noisy": "ValueError: slices are not parallel (exit code 1)",
}


@pytest.mark.parametrize("image", REASONS)
def test_reason_of_a_failure_is_printed_by_run_and_status_fresh_and_with_reused_inputs(up, image):
    for reused in ("", ", 2 reused"):
        done = up.kaapana("run", f"flow-{image}", "--cohort", "all", check=False)
        assert done.returncode == 1
        assert f"first: 2 done{reused}; 2 files in" in done.stdout
        assert "last: not begun: middle failed for all series" in done.stdout
        for uid in up.series:
            assert f"failed: {uid} at middle: {REASONS[image]}" in done.stdout
        assert f"all that was printed: {up.record.dagster_url}/runs/" in done.stdout
        said = up.kaapana("status", check=False).stdout
        assert REASONS[image] in said
        assert "it/s" not in said


@pytest.mark.parametrize("mode", ["batch", "single"])
def test_all_declared_inputs_are_there_in_a_second_run_that_reuses_them(up, mode):
    seen = []
    for _ in range(2):
        up.kaapana("run", "flow-writes", "--cohort", "all", f"--{mode}")
        entries = [up.home / "assets" / "flow-writes" / "last" / uid for uid in up.series]
        seen += [(entry / "x").read_text() for entry in entries]
        (up.images / "reads" / "files" / f"new-{mode}").write_text(str(len(seen)))
        up.dagster.reload()
    assert set(seen) == {"first initial-input last middle"}


@pytest.mark.parametrize("how", ["cancelled", "killed"])
def test_run_that_is_ended_from_outside_still_says_what_became_of_each_operator(up, how):
    data: Path = up.home / "workflows" / "data"
    pattern = "flow-slow-*/launches/middle-*/batch/*/middle/x"
    before = set(data.glob(pattern))
    said = subprocess.Popen(
        [sys.executable, "-m", "kaapana_assets", "run", "flow-slow", "--cohort", "all", "--force"],
        env=up.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        up.wait_until(lambda: set(data.glob(pattern)) - before, 120, "work")
        run = up.dagster.runs(job="flow_slow", limit=1)[0].run_id
        if how == "cancelled":
            up.dagster.terminate(run)
        else:
            for process in [each for each in psutil.process_iter() if is_run_worker(each, run)]:
                os.kill(process.pid, signal.SIGKILL)
        printed, _ = said.communicate(timeout=200)
    finally:
        said.kill()
        said.wait()
    assert said.returncode == 1
    assert "first: 2 done; 2 files in" in printed
    why = "cancelled: the run was cancelled" if how == "cancelled" else "interrupted: the run's process ended"
    assert f"middle: {why}" in printed
    assert f"last: not begun: middle was {'cancelled' if how == 'cancelled' else 'interrupted'}" in printed
    assert str(up.home / "assets" / "flow-slow" / "report" / "all" / "report.json") in printed
