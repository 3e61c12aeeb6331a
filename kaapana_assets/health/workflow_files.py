"""Checks the workflow files by ``kaapana-assets workflows`` in a process of its own.

Loading a workflow file executes the code of its author, which may be slow, hang or end the process. The
process that serves the health page must not do that.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from kaapana_assets.health.findings import HealthFinding, HealthState
from kaapana_assets.home_paths import HomePaths
from kaapana_assets.withheld import without_secrets

if TYPE_CHECKING:
    from kaapana_assets.settings import Settings

_ANSWER_TIMEOUT_S = 4.0  # below the deadline of all checks
_MIN_INTERVAL_S = 10.0
_LOAD_TIMEOUT_S = 300.0


class WorkflowFilesCheck:
    """Loads the workflow files at most every ten seconds, and returns the latest finding in between.

    Args:
        settings: the settings of the platform.
    """

    def __init__(self, settings: Settings) -> None:
        self._home = settings.home
        self._latest: HealthFinding | None = None
        self._started: float | None = None
        self._answered = threading.Event()
        self._loading = threading.Event()

    def check(self) -> HealthFinding:
        """The problems of each workflow file; files that are still being loaded are no failure."""
        if not self._loading.is_set() and (self._started is None or time.monotonic() - self._started > _MIN_INTERVAL_S):
            self._loading.set()
            self._started = time.monotonic()
            threading.Thread(target=self._load, name="workflow files", daemon=True).start()
        self._answered.wait(_ANSWER_TIMEOUT_S)
        if self._latest is not None:
            return self._latest
        problem = "still being loaded: ask again, or see `kaapana-assets workflows`"
        return HealthFinding(state=HealthState.OFF, where=self._where, problem=problem)

    @property
    def _where(self) -> str:
        return f"folder {HomePaths(self._home).workflow_files}"

    def _load(self) -> None:
        try:
            self._latest = self._finding()
        finally:
            self._loading.clear()
            self._answered.set()

    def _finding(self) -> HealthFinding:
        try:
            done = subprocess.run(
                [sys.executable, "-m", "kaapana_assets", "workflows", "--json"],
                env={**without_secrets(os.environ), "KAAPANA_HOME": str(self._home)},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=_LOAD_TIMEOUT_S,
            )
        except subprocess.TimeoutExpired:
            return HealthFinding(
                state=HealthState.BROKEN, where=self._where, problem=f"not loaded in {_LOAD_TIMEOUT_S:.0f} s"
            )
        try:
            answer = json.loads(done.stdout)
        except ValueError:
            reason = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
            return HealthFinding(state=HealthState.BROKEN, where=self._where, problem=f"cannot be loaded: {reason[0]}")
        return _finding(answer, self._where)


def _finding(answer: dict[str, Any], where: str) -> HealthFinding:
    problems = {file["file"]: file["problems"] for file in answer["files"] if file["problems"]}
    counts = {"workflows": sum(len(file["workflows"]) for file in answer["files"])}
    # A user need not build the images of built-in workflows.
    own = [name for name in problems if not name.startswith("built_in/")]
    lines = [f"{name}: {_last_line(each)}" for name, texts in problems.items() for each in texts]
    return HealthFinding(
        state=HealthState.BROKEN if own else HealthState.WORKS, where=where, counts=counts, problem="\n".join(lines)
    )


def _last_line(problem: str) -> str:
    return problem.strip().splitlines()[-1]
