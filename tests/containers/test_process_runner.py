"""What the process runner promises, seen through real processes."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from kaapana_assets.containers.process import ProcessRunner
from kaapana_assets.containers.runner import Launch, Outcome
from kaapana_assets.errors import (
    ConfigurationError,
    InvalidIdentifier,
    NotFound,
    OperatorFailed,
    OperatorOutOfMemory,
    OperatorTimeout,
)
from kaapana_assets.settings import load_settings

PYTHON = 'FROM python:3.12-slim\nWORKDIR /app\nCOPY files/ /app/\nENTRYPOINT ["python", "main.py"]\n'
SHELL = 'FROM bash:5\nWORKDIR /app\nCOPY files/ /app/\nENTRYPOINT ["/bin/sh", "main.sh"]\n'
GONE_WITHIN_S = 10.0


class Place:
    """A folder of images and a run directory, with a runner that shares the cached environments."""

    def __init__(self, folder: Path) -> None:
        self.images = folder / "images"
        self.directory = folder / "run"
        self.directory.mkdir()
        self.lines: list[str] = []
        self.runner = ProcessRunner(self.images, load_settings().environments, grace_s=1.0)

    def image(self, script: str, *, dockerfile: str = PYTHON, name: str = "made", requirements: str = "") -> None:
        folder = self.images / name
        (folder / "files").mkdir(parents=True, exist_ok=True)
        (folder / "Dockerfile").write_text(dockerfile)
        (folder / "requirements.txt").write_text(requirements)
        (folder / "files" / ("main.sh" if dockerfile is SHELL else "main.py")).write_text(script)

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


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def until(holds: Callable[[], bool], *, within_s: float = GONE_WITHIN_S) -> bool:
    end = time.monotonic() + within_s
    waiting = threading.Event()
    while time.monotonic() < end:
        if holds():
            return True
        waiting.wait(0.02)
    return holds()


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def read_pid(file: Path) -> int:
    assert until(lambda: file.is_file() and file.read_text().strip() != "")
    return int(file.read_text())


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        pytest.param(0, Outcome.DONE, id="zero is done"),
        pytest.param(126, Outcome.SKIPPED, id="126 is skipped"),
    ],
)
def test_exit_code_tells_the_outcome(place: Place, code: int, expected: Outcome) -> None:
    place.image(f"raise SystemExit({code})")
    assert place.run() is expected


@pytest.mark.parametrize(
    ("script", "error", "said"),
    [
        pytest.param("raise SystemExit(3)", OperatorFailed, "exit code 3, without output", id="other code"),
        pytest.param("print('why')\nraise SystemExit(1)", OperatorFailed, "why", id="last lines are in the message"),
        pytest.param("import os; os.kill(os.getpid(), 15)", OperatorFailed, "exit code 143", id="ended by SIGTERM"),
        pytest.param("import os; os.kill(os.getpid(), 9)", OperatorOutOfMemory, "137", id="killed is out of memory"),
    ],
)
def test_a_failure_says_how_it_ended(place: Place, script: str, error: type[Exception], said: str) -> None:
    place.image(script)
    with pytest.raises(error, match=said) as raised:
        place.run()
    assert "operator made of flow-261123" in str(raised.value)


def test_a_failure_shows_only_the_last_thirty_lines(place: Place) -> None:
    place.image("[print('line', n) for n in range(100)]\nraise SystemExit(1)")
    with pytest.raises(OperatorFailed) as raised:
        place.run()
    shown = str(raised.value).splitlines()[1:]
    assert shown == [f"  line {number}" for number in range(70, 100)]
    assert len(place.lines) == 100


def test_the_contract_is_all_that_an_operator_sees(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAAPANA_S3_SECRET_KEY", "secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    place.image("import json, os; print(json.dumps(dict(os.environ)))")
    place.run(parameters={"patterns": "*.json", "dag_id": "forged"}, env_vars={"PATTERNS": "*", "OWN": "1"})
    seen = json.loads(place.lines[-1])
    directory = str(place.directory)
    assert {name: seen.pop(name) for name in sorted(seen) if name in _CONTRACT or name in {"PATTERNS", "OWN"}} == {
        "BATCHES_INPUT_DIR": f"{directory}/batch",
        "BATCH_NAME": "batch",
        "DAG_ID": "flow",
        "OPERATOR_IN_DIR": "initial-input",
        "OPERATOR_OUT_DIR": "made-out",
        "OWN": "1",
        "PATTERNS": "*.json",
        "RUN_ID": "flow-261123",
        "TASK_ID": "made",
        "WORKFLOW_DIR": directory,
    }
    assert set(seen) - {"_", "SHLVL", "OLDPWD", "LC_CTYPE"} == {
        "HOME",
        "LANG",
        "PATH",
        "PWD",
        "PYTHONUNBUFFERED",
        "TMPDIR",
        "VIRTUAL_ENV",
    }


_CONTRACT = {
    "WORKFLOW_DIR",
    "BATCH_NAME",
    "OPERATOR_IN_DIR",
    "OPERATOR_OUT_DIR",
    "BATCHES_INPUT_DIR",
    "RUN_ID",
    "DAG_ID",
    "TASK_ID",
}


def test_home_and_temporary_folder_are_gone_afterwards(place: Place) -> None:
    place.image(
        "import os, tempfile\nprint(os.environ['HOME'])\nprint(tempfile.mkdtemp())\n"
        "open(os.path.expanduser('~/x'), 'w').close()"
    )
    place.run()
    assert len(place.lines[-2:]) == 2
    assert not any(Path(line).exists() for line in place.lines[-2:])


def test_the_packages_of_the_platform_are_not_seen(place: Place) -> None:
    place.image("import importlib.util; print(importlib.util.find_spec('kaapana_assets'))")
    place.run()
    assert place.lines[-1] == "None"


def test_variables_of_the_image_are_set_and_its_paths_lead_to_its_files(place: Place) -> None:
    dockerfile = (
        "ARG BASE_IMAGE=python:3.12-slim\nFROM ${BASE_IMAGE}\nENV MODEL=/app/model.txt \\\n    GREETING='good day'\n"
        'ENV OLD form of it\nWORKDIR /app\nCOPY files/ /app/\nUSER 1000\nENTRYPOINT ["python3", "-u"]\n'
        'CMD ["/app/main.py", "one"]\n'
    )
    script = "import os, sys; e = os.environ; print(open(e['MODEL']).read(), e['GREETING'], e['OLD'], sys.argv[1])"
    place.image(script, dockerfile=dockerfile)
    (place.images / "made" / "files" / "model.txt").write_text("weights")
    place.run()
    assert place.lines[-1] == "weights good day form of it one"


@pytest.mark.parametrize(
    ("copy", "argument"),
    [
        pytest.param("COPY files/ /app/", "/app/main.py", id="folder"),
        pytest.param("COPY files /app", "/app/main.py", id="folder without slashes"),
        pytest.param("COPY --chown=1000 files/main.py /other/", "/other/main.py", id="file into a folder"),
        pytest.param("COPY files/main.py /other/named.py", "/other/named.py", id="file renamed"),
        pytest.param('COPY ["files/main.py", "/other/"]', "/other/main.py", id="as a list"),
        pytest.param("COPY files .", "main.py", id="relative to WORKDIR"),
    ],
)
def test_what_was_copied_into_the_image_is_found(place: Place, copy: str, argument: str) -> None:
    place.image("print('ran')", dockerfile=f'FROM x\nWORKDIR /app\n{copy}\nCMD ["python", "{argument}"]\n')
    place.run()
    assert place.lines[-1] == "ran"


def test_a_command_replaces_the_entrypoint(place: Place) -> None:
    place.image("raise SystemExit(1)")
    place.run(command=("python", "-c", "import os; print(os.path.basename(os.getcwd()))"))
    assert place.lines[-1] == "files"


@pytest.mark.parametrize(
    "reference", ["made", "made:0.1.0", "registry.example:5000/group/made:0.1.0", "made@sha256:abc", "group/made"]
)
def test_the_last_part_of_a_reference_names_the_folder(place: Place, reference: str) -> None:
    place.image("print('ran')")
    assert place.run(image=reference) is Outcome.DONE


@pytest.mark.parametrize(
    ("dockerfile", "said"),
    [
        pytest.param("FROM x\nENTRYPOINT python main.py\n", "exec form", id="shell form"),
        pytest.param("FROM x\nCMD python main.py\n", "exec form", id="shell form CMD"),
        pytest.param("FROM x\n", "no ENTRYPOINT", id="none"),
        pytest.param('FROM x AS a\nENTRYPOINT ["python"]\nFROM y\n', "no ENTRYPOINT", id="of another stage"),
        pytest.param('FROM x\nENTRYPOINT ["nothing-of-this-name"]\n', "not an executable", id="not installed"),
        pytest.param('FROM x\nENTRYPOINT ["./main.py"]\n', "not an executable", id="not executable"),
    ],
)
def test_a_dockerfile_that_cannot_be_run_is_a_configuration_error(place: Place, dockerfile: str, said: str) -> None:
    place.image("", dockerfile=dockerfile)
    with pytest.raises(ConfigurationError, match=said):
        place.run()


@pytest.mark.parametrize(
    ("reference", "error"), [("absent", NotFound), ("..", InvalidIdentifier), ("", InvalidIdentifier)]
)
def test_an_image_that_is_not_there_is_said(place: Place, reference: str, error: type[Exception]) -> None:
    place.images.mkdir()
    with pytest.raises(error):
        place.run(image=reference)
    with pytest.raises(error):
        place.runner.image_digest(reference)


def test_output_comes_live(place: Place) -> None:
    go_on = place.directory / "go-on"
    place.image(
        f"import os, time\nprint('first')\nwhile not os.path.exists({str(go_on)!r}): time.sleep(0.01)\nprint('second')"
    )

    def heard(line: str) -> None:
        place.lines.append(line)
        if line == "first":  # the operator ends only if this line is heard while it runs
            go_on.touch()

    assert place.runner.run(place.launch(timeout_s=60), output=heard) is Outcome.DONE
    assert place.lines[-2:] == ["first", "second"]


def test_any_bytes_are_given_as_lines(place: Place) -> None:
    place.image(
        "import sys\nw = sys.stdout.buffer.write\nw(b'a\\xffb\\r\\n10%\\r20%\\r\\nnul\\0\\n')\nsys.stdout.flush()\n"
        "print('err', file=sys.stderr)\nw('é'.encode() * 40_000)\nw(b'\\n\\nlast')"
    )
    place.run()
    text = place.lines
    start = text.index("a\ufffdb")
    assert text[start : start + 5] == ["a\ufffdb", "10%", "20%", "nul\ufffd", "err"]
    assert "".join(text[start + 5 : -2]) == "é" * 40_000
    assert max(map(len, text)) <= 16_384
    assert text[-2:] == ["", "last"]


def test_more_output_than_a_pipe_holds_does_not_hang(place: Place) -> None:
    place.image("print('x' * 99 + chr(10), end='') or [print('y' * 99) for _ in range(20_000)]")
    assert place.run(timeout_s=120) is Outcome.DONE
    assert len(place.lines) == 20_001


def test_an_operator_over_its_time_is_ended_with_all_it_started(place: Place) -> None:
    place.image('sleep 600 &\necho $! > "$WORKFLOW_DIR/pid"\necho waiting\nwait\n', dockerfile=SHELL)
    started = time.monotonic()
    with pytest.raises(OperatorTimeout, match=r"limit of 1 s\n  waiting"):
        place.run(timeout_s=1)
    assert time.monotonic() - started < 30
    assert until(lambda: is_gone(read_pid(place.directory / "pid")))


def test_an_operator_that_ignores_sigterm_is_killed(place: Place) -> None:
    place.image('trap "" TERM\necho $$ > "$WORKFLOW_DIR/pid"\nwhile :; do sleep 1; done\n', dockerfile=SHELL)
    with pytest.raises(OperatorTimeout):
        place.run(timeout_s=0.5)
    assert until(lambda: is_gone(read_pid(place.directory / "pid")))


def test_an_operator_can_tidy_up_on_sigterm(place: Place) -> None:
    place.image('trap "echo tidied; exit 0" TERM\necho ready\nwhile :; do sleep 0.1; done\n', dockerfile=SHELL)
    with pytest.raises(OperatorTimeout, match="tidied"):
        place.run(timeout_s=1)


def test_a_grandchild_that_keeps_the_output_open_is_not_waited_for(place: Place) -> None:
    place.image('sleep 600 &\necho $! > "$WORKFLOW_DIR/pid"\necho done\n', dockerfile=SHELL)
    started = time.monotonic()
    assert place.run() is Outcome.DONE
    assert time.monotonic() - started < 30
    assert place.lines[-1] == "done"
    assert until(lambda: is_gone(read_pid(place.directory / "pid")))


def test_a_grandchild_of_another_session_that_keeps_the_output_open_is_not_waited_for(place: Place) -> None:
    place.image(
        "import os, subprocess\n"
        "child = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        "open(os.environ['WORKFLOW_DIR'] + '/pid', 'w').write(str(child.pid))\nprint('done')\nos._exit(0)"
    )
    started = time.monotonic()
    try:
        assert place.run() is Outcome.DONE
        assert time.monotonic() - started < 30
    finally:
        os.kill(read_pid(place.directory / "pid"), signal.SIGKILL)


def test_a_child_of_another_session_ends_with_a_timeout(place: Place) -> None:
    place.image(
        "import os, subprocess\n"
        "child = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        "open(os.environ['WORKFLOW_DIR'] + '/pid', 'w').write(str(child.pid))\nchild.wait()"
    )
    with pytest.raises(OperatorTimeout):
        place.run(timeout_s=2)
    assert until(lambda: is_gone(read_pid(place.directory / "pid")))


def test_an_operator_may_wait_for_any_child(place: Place) -> None:
    """The watcher beside an operator must be none of its children, or this would never end."""
    place.image("import os\ntry:\n    os.wait()\nexcept ChildProcessError:\n    print('no children')")
    place.run(timeout_s=60)
    assert place.lines[-1] == "no children"


def test_a_cancelled_operator_is_ended(place: Place) -> None:
    cancelled = threading.Event()
    place.image('echo $$ > "$WORKFLOW_DIR/pid"\necho started\nexec sleep 600\n', dockerfile=SHELL)

    def heard(line: str) -> None:
        if line == "started":
            cancelled.set()

    with pytest.raises(OperatorFailed, match="cancelled"):
        place.runner.run(place.launch(), output=heard, cancelled=cancelled)
    assert is_gone(read_pid(place.directory / "pid"))


def test_an_exception_in_the_worker_ends_the_operator(place: Place) -> None:
    """Dagster interrupts a run by an exception in its main thread."""
    place.image('echo $$ > "$WORKFLOW_DIR/pid"\necho started\nexec sleep 600\n', dockerfile=SHELL)

    def heard(line: str) -> None:
        if line == "started":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        place.runner.run(place.launch(), output=heard)
    assert is_gone(read_pid(place.directory / "pid"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_operators_do_not_outlive_their_worker(place: Place, number: signal.Signals) -> None:
    place.image('sleep 600 &\necho $! > "$WORKFLOW_DIR/child"\necho $$ > "$WORKFLOW_DIR/pid"\nwait\n', dockerfile=SHELL)
    place.run(command=("/bin/true",))
    worker = subprocess.Popen(
        [sys.executable, "-c", _WORKER, str(place.images), str(load_settings().environments), str(place.directory)],
        stderr=subprocess.DEVNULL,
    )
    try:
        pids = [read_pid(place.directory / name) for name in ("pid", "child")]
        assert not any(is_gone(pid) for pid in pids)
        worker.send_signal(number)
        worker.wait(timeout=30)
        assert until(lambda: all(is_gone(pid) for pid in pids))
    finally:
        worker.kill()
        worker.wait()


_WORKER = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background process would ignore it
from pathlib import Path
from kaapana_assets.containers.process import ProcessRunner
from kaapana_assets.containers.runner import Launch
images, environments, directory = map(Path, sys.argv[1:])
ProcessRunner(images, environments).run(
    Launch(run_id="r", workflow="w", operator="o", image="made", directory=directory,
           operator_in_dir="i", operator_out_dir="o"), output=lambda line: None)
"""


def test_memory_over_the_limit_is_told_apart(place: Place) -> None:
    place.image("x = bytearray(600 * 2**20)")
    with pytest.raises(OperatorOutOfMemory, match="limit of 300 MiB"):
        place.run(memory_mb=300)
    assert place.run(memory_mb=2000) is Outcome.DONE


def test_several_operators_run_at_once(place: Place) -> None:
    place.image("import os; print(os.environ['NUMBER'])")

    def one(number: int) -> list[str]:
        lines: list[str] = []
        place.runner.run(place.launch(parameters={"number": str(number)}), output=lines.append)
        return lines[-1:]

    place.run(parameters={"number": "first"})
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(one, range(24))) == [[str(number)] for number in range(24)]


def test_the_image_digest_follows_the_content(place: Place) -> None:
    place.image("print(1)")
    first = place.runner.image_digest("made")
    main = place.images / "made" / "files" / "main.py"
    os.utime(main, (1, 1))
    (main.parent / "__pycache__").mkdir()
    (main.parent / "__pycache__" / "main.cpython-311.pyc").write_bytes(b"x")
    assert place.runner.image_digest("registry/made:9") == first
    main.write_text("print(2)")
    second = place.runner.image_digest("made")
    main.chmod(main.stat().st_mode | stat.S_IXUSR)
    third = place.runner.image_digest("made")
    main.rename(main.with_name("other.py"))
    assert len({first, second, third, place.runner.image_digest("made")}) == 4
