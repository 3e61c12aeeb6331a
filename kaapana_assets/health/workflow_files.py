"""The state of the workflow files, asked of ``kaapana-assets workflows`` in a process of its own.

Loading them executes what their authors wrote, which may be slow, hang or end the process: nothing that
the process which serves the health page should do itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from kaapana_assets.health.findings import Finding, State
from kaapana_assets.home_paths import HomePaths
from kaapana_assets.withheld import without_secrets

if TYPE_CHECKING:
    from kaapana_assets.settings import Settings

_WAIT_S = 4.0  # below the deadline of all checks
_AGAIN_S = 10.0
_TIMEOUT_S = 300.0


class WorkflowFiles:
    """Asks again and again, at most every ten seconds, and gives the last answer meanwhile.

    Args:
        settings: of the platform whose files they are.
    """

    def __init__(self, settings: Settings) -> None:
        self._home = settings.home
        self._answer: Finding | None = None
        self._asked: float | None = None
        self._answered = threading.Event()
        self._going = threading.Event()

    def check(self) -> Finding:
        """What is wrong with which file; that they are still being loaded is no failure."""
        if not self._going.is_set() and (self._asked is None or time.monotonic() - self._asked > _AGAIN_S):
            self._going.set()
            self._asked = time.monotonic()
            threading.Thread(target=self._ask, name="workflow files", daemon=True).start()
        self._answered.wait(_WAIT_S)
        if self._answer is not None:
            return self._answer
        problem = "still being loaded: ask again, or see `kaapana-assets workflows`"
        return Finding(state=State.OFF, where=self._where, problem=problem)

    @property
    def _where(self) -> str:
        return f"folder {HomePaths(self._home).workflow_files}"

    def _ask(self) -> None:
        try:
            self._answer = self._finding()
        finally:
            self._going.clear()
            self._answered.set()

    def _finding(self) -> Finding:
        try:
            done = subprocess.run(
                [sys.executable, "-m", "kaapana_assets", "workflows", "--json"],
                env={**without_secrets(os.environ), "KAAPANA_HOME": str(self._home)},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=_TIMEOUT_S,
            )
        except subprocess.TimeoutExpired:
            return Finding(state=State.BROKEN, where=self._where, problem=f"not loaded in {_TIMEOUT_S:.0f} s")
        try:
            answer = json.loads(done.stdout)
        except ValueError:
            said = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
            return Finding(state=State.BROKEN, where=self._where, problem=f"cannot be loaded: {said[0]}")
        return _finding(answer, self._where)


def _finding(answer: dict[str, Any], where: str) -> Finding:
    problems = {file["file"]: file["problems"] for file in answer["files"] if file["problems"]}
    counts = {"workflows": sum(len(file["workflows"]) for file in answer["files"])}
    # Nobody has to build the images of built-in workflows that are not used.
    own = [name for name in problems if not name.startswith("built_in/")]
    said = [f"{name}: {_last_line(each)}" for name, texts in problems.items() for each in texts]
    return Finding(state=State.BROKEN if own else State.WORKS, where=where, counts=counts, problem="\n".join(said))


def _last_line(problem: str) -> str:
    return problem.strip().splitlines()[-1]
