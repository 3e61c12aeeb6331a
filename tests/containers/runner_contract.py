"""What every runner promises, as tests; test_process_runner.py and test_docker_runner.py inherit them.

A ``Place`` makes images of scripts and starts them. What only one runner promises is tested beside it.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kaapana_assets.containers.protocol import Launch, Outcome, Runner
from kaapana_assets.errors import (
    ConfigurationError,
    InvalidIdentifier,
    NotFound,
    OperatorError,
    OperatorFailed,
    OperatorOutOfMemory,
    OperatorTimeout,
)

CONTRACT = {
    "WORKFLOW_DIR",
    "BATCH_NAME",
    "OPERATOR_IN_DIR",
    "OPERATOR_OUT_DIR",
    "BATCHES_INPUT_DIR",
    "RUN_ID",
    "DAG_ID",
    "TASK_ID",
}
# What a shell or Python adds by itself.
_OF_PROGRAMS = {"_", "SHLVL", "OLDPWD", "LC_CTYPE"}
PYTHON = '["python", "main.py"]'
SHELL = '["/bin/sh", "main.sh"]'
GONE_WITHIN_S = 10.0


class Place:
    """Images, a run directory and a runner.

    Attributes:
        directory: the run directory.
        workflow_dir: the same as operators see it.
        variables: names of those that operators see beside the contract's and their own.
        lines: what operators wrote.
    """

    cancelled_within_s = 5.0
    killed: type[OperatorError] = OperatorOutOfMemory  # the most likely reason, where no other is known
    runner: Runner
    workflow_dir: str
    variables: frozenset[str]

    def __init__(self, folder: Path) -> None:
        self.images = folder / "images"
        self.directory = folder / "run"
        self.directory.mkdir()
        self.lines: list[str] = []

    def image(self, script: str, *, entrypoint: str = PYTHON) -> None:
        """Make the image ``made``, which runs a script in its working directory."""
        raise NotImplementedError

    def has_ended(self, name: str) -> bool:
        """Whether the process is gone that wrote its ID into this file of the run directory."""
        raise NotImplementedError

    def write_image(self, script: str, *, dockerfile: str, name: str = "made", requirements: str = "") -> None:
        folder = self.images / name
        (folder / "files").mkdir(parents=True, exist_ok=True)
        (folder / "Dockerfile").write_text(dockerfile)
        (folder / "requirements.txt").write_text(requirements)
        for file in ("main.py", "main.sh"):
            (folder / "files" / file).write_text(script)

    def launch(self, **changes: object) -> Launch:
        given: dict[str, object] = {
            "run_id": "flow-261123",
            "workflow": "flow",
            "operator": "made",
            "image": "made",
            "directory": self.directory,
            "operator_in_dir": "initial-input",
            "operator_out_dir": "made-out",
        }
        return Launch(**{**given, **changes})  # type: ignore[arg-type]

    def run(self, **changes: object) -> Outcome:
        return self.runner.run(self.launch(**changes), output=self.lines.append)


def until(holds: Callable[[], bool], *, within_s: float = GONE_WITHIN_S) -> bool:
    end = time.monotonic() + within_s
    waiting = threading.Event()
    while time.monotonic() < end:
        if holds():
            return True
        waiting.wait(0.02)
    return holds()


class RunnerContract:
    """The tests; a subclass has the fixture ``place``."""

    @pytest.mark.parametrize(
        ("code", "expected"),
        [
            pytest.param(0, Outcome.DONE, id="zero is done"),
            pytest.param(126, Outcome.SKIPPED, id="126 is skipped"),
        ],
    )
    def test_exit_code_tells_the_outcome(self, place: Place, code: int, expected: Outcome) -> None:
        place.image(f"raise SystemExit({code})")
        assert place.run() is expected

    @pytest.mark.parametrize(
        ("script", "error", "said"),
        [
            pytest.param("raise SystemExit(3)", OperatorFailed, "exit code 3, without output", id="other code"),
            pytest.param("print('why')\nraise SystemExit(1)", OperatorFailed, "why", id="last lines are shown"),
            pytest.param("raise SystemExit(143)", OperatorFailed, "exit code 143", id="ended by SIGTERM"),
        ],
    )
    def test_a_failure_says_how_it_ended(self, place: Place, script: str, error: type[Exception], said: str) -> None:
        place.image(script)
        with pytest.raises(error, match=said) as raised:
            place.run()
        assert "operator made of flow-261123" in str(raised.value)

    def test_a_killed_operator_is_told_as_that(self, place: Place) -> None:
        place.image("raise SystemExit(137)")
        with pytest.raises(place.killed, match=r"killed .*137"):
            place.run()

    def test_a_failure_shows_only_the_last_thirty_lines(self, place: Place) -> None:
        place.image("[print('line', n) for n in range(100)]\nraise SystemExit(1)")
        with pytest.raises(OperatorFailed) as raised:
            place.run()
        assert str(raised.value).splitlines()[1:] == [f"  line {number}" for number in range(70, 100)]
        assert len(place.lines) == 100

    def test_the_contract_is_all_that_an_operator_sees(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KAAPANA_S3_SECRET_KEY", "secret")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setenv("PYTHONPATH", "/somewhere")
        place.image("import json, os; print(json.dumps(dict(os.environ)))")
        place.run(parameters={"patterns": "*.json", "dag_id": "forged"}, env_vars={"PATTERNS": "*", "OWN": "1"})
        seen: Mapping[str, str] = json.loads(place.lines[-1])
        given = CONTRACT | {"PATTERNS", "OWN"}
        assert {name: value for name, value in seen.items() if name in given} == {
            "BATCHES_INPUT_DIR": f"{place.workflow_dir}/batch",
            "BATCH_NAME": "batch",
            "DAG_ID": "flow",
            "OPERATOR_IN_DIR": "initial-input",
            "OPERATOR_OUT_DIR": "made-out",
            "OWN": "1",
            "PATTERNS": "*.json",
            "RUN_ID": "flow-261123",
            "TASK_ID": "made",
            "WORKFLOW_DIR": place.workflow_dir,
        }
        assert seen.keys() - given - _OF_PROGRAMS == place.variables

    def test_home_and_temporary_folder_are_new_and_can_be_written(self, place: Place) -> None:
        place.image(
            "import os, tempfile\nfor folder in (os.environ['HOME'], os.environ['TMPDIR'], tempfile.gettempdir()):\n"
            "    print(os.listdir(folder))\n"
            "for folder in (os.environ['HOME'], os.environ['TMPDIR']): open(folder + '/x', 'w').close()"
        )
        for _ in range(2):
            place.run()
        assert place.lines[-6:] == ["[]"] * 6

    def test_the_packages_of_the_platform_are_not_seen(self, place: Place) -> None:
        place.image("import importlib.util; print(importlib.util.find_spec('kaapana_assets'))")
        place.run()
        assert place.lines[-1] == "None"

    def test_outputs_are_in_the_run_directory(self, place: Place) -> None:
        """Also below folders that the platform made."""
        (place.directory / "batch" / "1.2").mkdir(parents=True)
        place.image(
            "import os\ne = os.environ\nfor place in (e['BATCHES_INPUT_DIR'] + '/1.2', e['WORKFLOW_DIR']):\n"
            "    os.mkdir(f\"{place}/{e['OPERATOR_OUT_DIR']}\")\n"
            "    open(f\"{place}/{e['OPERATOR_OUT_DIR']}/x\", 'w').write('out')"
        )
        place.run()
        for folder in ("batch/1.2/made-out", "made-out"):
            assert (place.directory / folder / "x").read_text() == "out"

    def test_a_command_replaces_the_entrypoint(self, place: Place) -> None:
        place.image("raise SystemExit(1)")
        place.run(command=("python", "-c", "import os; print(sorted(os.listdir()))"))
        assert place.lines[-1] == "['main.py', 'main.sh']"

    @pytest.mark.parametrize(
        "entrypoint",
        [
            pytest.param('["nothing-of-this-name"]', id="not installed"),
            pytest.param('["./main.py"]', id="not executable"),
            pytest.param('["./nothing.py"]', id="not there"),
        ],
    )
    def test_an_entrypoint_that_cannot_be_executed_is_not_taken_for_skipped(
        self, place: Place, entrypoint: str
    ) -> None:
        place.image("", entrypoint=entrypoint)
        with pytest.raises(ConfigurationError, match="operator made of flow-261123"):
            place.run()

    @pytest.mark.parametrize(
        ("reference", "error"), [("absent", NotFound), ("..", InvalidIdentifier), ("", InvalidIdentifier)]
    )
    def test_an_image_that_is_not_there_is_said(self, place: Place, reference: str, error: type[Exception]) -> None:
        place.images.mkdir()
        with pytest.raises(error):
            place.run(image=reference)
        with pytest.raises(error):
            place.runner.image_digest(reference)

    def test_output_comes_live(self, place: Place) -> None:
        place.image(
            "import os, time\nprint('first')\n"
            "while not os.path.exists(os.environ['WORKFLOW_DIR'] + '/go-on'): time.sleep(0.01)\nprint('second')"
        )

        def heard(line: str) -> None:
            place.lines.append(line)
            if line == "first":  # the operator ends only if this line is heard while it runs
                (place.directory / "go-on").touch()

        assert place.runner.run(place.launch(timeout_s=60), output=heard) is Outcome.DONE
        assert place.lines[-2:] == ["first", "second"]

    def test_output_is_given_in_the_calling_thread(self, place: Place) -> None:
        place.image("print('x')")
        threads: set[str] = set()
        place.runner.run(place.launch(), output=lambda _: threads.add(threading.current_thread().name))
        assert threads == {threading.current_thread().name}

    def test_any_bytes_are_given_as_lines(self, place: Place) -> None:
        place.image(
            "import sys\nw = sys.stdout.buffer.write\nw(b'a\\xffb\\r\\n10%\\r20%\\r\\nnul\\0\\n')\nsys.stdout.flush()\n"
            "w('é'.encode() * 40_000)\nw(b'\\n\\nlast')"
        )
        place.run()
        text = place.lines
        start = text.index("a\ufffdb")
        assert text[start : start + 4] == ["a\ufffdb", "10%", "20%", "nul\ufffd"]
        assert "".join(text[start + 4 : -2]) == "é" * 40_000
        assert max(map(len, text)) <= 16_384
        assert text[-2:] == ["", "last"]

    def test_both_streams_are_output(self, place: Place) -> None:
        place.image(
            "import os, sys, time\n"
            "def heard(line):\n"
            "    while not os.path.exists(os.environ['WORKFLOW_DIR'] + '/heard-' + line): time.sleep(0.01)\n"
            "print('out', flush=True)\nheard('out')\nprint('err', file=sys.stderr, flush=True)\nheard('err')\n"
            "print('out again')"
        )

        def heard(line: str) -> None:
            place.lines.append(line)
            if line in ("out", "err"):
                (place.directory / f"heard-{line}").touch()

        assert place.runner.run(place.launch(timeout_s=60), output=heard) is Outcome.DONE
        assert place.lines[-3:] == ["out", "err", "out again"]

    def test_more_output_than_a_pipe_holds_does_not_hang(self, place: Place) -> None:
        place.image("print('x' * 99 + chr(10), end='') or [print('y' * 99) for _ in range(20_000)]")
        assert place.run(timeout_s=120) is Outcome.DONE
        assert len(place.lines) == 20_001

    def test_an_operator_over_its_time_is_ended_with_all_it_started(self, place: Place) -> None:
        place.image('sleep 600 &\necho $! > "$WORKFLOW_DIR/pid"\necho waiting\nwait\n', entrypoint=SHELL)
        started = time.monotonic()
        with pytest.raises(OperatorTimeout, match=r"limit of 1 s\n  waiting"):
            place.run(timeout_s=1)
        assert time.monotonic() - started < 30
        assert until(lambda: place.has_ended("pid"))

    def test_an_operator_that_ignores_sigterm_is_killed(self, place: Place) -> None:
        place.image('trap "" TERM\necho $$ > "$WORKFLOW_DIR/pid"\nwhile :; do sleep 1; done\n', entrypoint=SHELL)
        with pytest.raises(OperatorTimeout):
            place.run(timeout_s=0.5)
        assert until(lambda: place.has_ended("pid"))

    def test_an_operator_can_tidy_up_on_sigterm(self, place: Place) -> None:
        place.image('trap "echo tidied; exit 0" TERM\necho ready\nwhile :; do sleep 0.1; done\n', entrypoint=SHELL)
        with pytest.raises(OperatorTimeout, match="tidied"):
            place.run(timeout_s=1)

    def test_a_grandchild_that_keeps_the_output_open_is_not_waited_for(self, place: Place) -> None:
        place.image('sleep 600 &\necho $! > "$WORKFLOW_DIR/pid"\necho done\n', entrypoint=SHELL)
        started = time.monotonic()
        assert place.run() is Outcome.DONE
        assert time.monotonic() - started < 30
        assert place.lines[-1] == "done"
        assert until(lambda: place.has_ended("pid"))

    def test_a_child_of_another_session_ends_with_a_timeout(self, place: Place) -> None:
        place.image(
            "import os, subprocess\n"
            "child = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
            "open(os.environ['WORKFLOW_DIR'] + '/pid', 'w').write(str(child.pid))\nchild.wait()"
        )
        with pytest.raises(OperatorTimeout):
            place.run(timeout_s=2)
        assert until(lambda: place.has_ended("pid"))

    def test_a_cancelled_operator_is_ended(self, place: Place) -> None:
        cancelled = threading.Event()
        place.image('echo $$ > "$WORKFLOW_DIR/pid"\necho started\nexec sleep 600\n', entrypoint=SHELL)
        at: list[float] = []

        def heard(line: str) -> None:
            if line == "started":
                cancelled.set()
                at.append(time.monotonic())

        with pytest.raises(OperatorFailed, match="cancelled"):
            place.runner.run(place.launch(), output=heard, cancelled=cancelled)
        assert time.monotonic() - at[0] < place.cancelled_within_s
        assert place.has_ended("pid")

    def test_an_exception_in_the_worker_ends_the_operator(self, place: Place) -> None:
        """Dagster interrupts a run by an exception in its main thread."""
        place.image('echo $$ > "$WORKFLOW_DIR/pid"\necho started\nexec sleep 600\n', entrypoint=SHELL)

        def heard(line: str) -> None:
            if line == "started":
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            place.runner.run(place.launch(), output=heard)
        assert place.has_ended("pid")

    def test_memory_over_the_limit_is_told_apart(self, place: Place) -> None:
        place.image("x = bytearray(600 * 2**20)")
        with pytest.raises(OperatorOutOfMemory):
            place.run(memory_mb=300)
        assert place.run(memory_mb=2000) is Outcome.DONE

    def test_several_operators_run_at_once(self, place: Place) -> None:
        place.image("import os; print(os.environ['NUMBER'])")

        def one(number: int) -> list[str]:
            lines: list[str] = []
            directory = place.directory / str(number)
            directory.mkdir()
            launch = place.launch(parameters={"number": str(number)}, directory=directory)
            place.runner.run(launch, output=lines.append)
            return lines[-1:]

        place.run(parameters={"number": "first"})
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(one, range(12))) == [[str(number)] for number in range(12)]

    def test_a_launch_of_nobody_is_not_adopted(self, place: Place) -> None:
        place.image("print('x')")
        assert not place.runner.adopts(place.launch())
        place.run()
        assert not place.runner.adopts(place.launch())
