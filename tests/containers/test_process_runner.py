"""What the process runner promises, seen through real processes."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from containers.runner_contract import PYTHON, SHELL, RunnerContract, until
from containers.runner_contract import Place as ContractPlace

from kaapana_assets.containers.process.runner import ProcessRunner
from kaapana_assets.containers.protocol import Outcome
from kaapana_assets.errors import ConfigurationError, OperatorFailed, OperatorOutOfMemory
from kaapana_assets.settings import load_settings

DOCKERFILE = "FROM python:3.12-slim\nWORKDIR /app\nCOPY files/ /app/\nENTRYPOINT {}\n"


class Place(ContractPlace):
    """A folder of images and a run directory, with a runner that shares the cached environments."""

    variables = frozenset({"HOME", "LANG", "PATH", "PWD", "PYTHONUNBUFFERED", "TMPDIR", "VIRTUAL_ENV"})

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.workflow_dir = str(self.directory)
        self.runner = ProcessRunner(self.images, load_settings().environments, grace_s=1.0)

    def image(self, script: str, *, entrypoint: str = PYTHON, dockerfile: str | None = None) -> None:
        self.write_image(script, dockerfile=dockerfile or DOCKERFILE.format(entrypoint))

    def has_ended(self, name: str) -> bool:
        return is_gone(read_pid(self.directory / name))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def read_pid(file: Path) -> int:
    assert until(lambda: file.is_file() and file.read_text().strip() != "")
    return int(file.read_text())


class TestContract(RunnerContract):
    pass


@pytest.mark.parametrize(
    ("number", "error", "said"),
    [
        pytest.param(15, OperatorFailed, "exit code 143", id="ended by SIGTERM"),
        pytest.param(9, OperatorOutOfMemory, "137", id="killed is out of memory"),
    ],
)
def test_a_signal_is_an_exit_code(place: Place, number: int, error: type[Exception], said: str) -> None:
    place.image(f"import os; os.kill(os.getpid(), {number})")
    with pytest.raises(error, match=said):
        place.run()


def test_home_and_temporary_folder_are_gone_afterwards(place: Place) -> None:
    place.image(
        "import os, tempfile\nprint(os.environ['HOME'])\nprint(tempfile.mkdtemp())\n"
        "open(os.path.expanduser('~/x'), 'w').close()"
    )
    place.run()
    assert len(place.lines[-2:]) == 2
    assert not any(Path(line).exists() for line in place.lines[-2:])


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


@pytest.mark.parametrize(
    "reference", ["made", "made:0.1.0", "registry.example:5000/group/made:0.1.0", "made@sha256:abc", "group/made"]
)
def test_the_last_part_of_a_reference_names_the_folder(place: Place, reference: str) -> None:
    place.image("print('ran')")
    assert place.run(image=reference) is Outcome.DONE


@pytest.mark.parametrize(
    ("dockerfile", "said"),
    [
        pytest.param("FROM x\nCOPY files/absent /app/\n", "line 2: COPY files/absent .*not in the", id="no file"),
        pytest.param("FROM x\nWORKDIR ${A\n", "line 2: .* without its }", id="a brace without an end"),
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


def test_an_operator_may_wait_for_any_child(place: Place) -> None:
    """The watcher beside an operator must be none of its children, or this would never end."""
    place.image("import os\ntry:\n    os.wait()\nexcept ChildProcessError:\n    print('no children')")
    place.run(timeout_s=60)
    assert place.lines[-1] == "no children"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_operators_do_not_outlive_their_worker(place: Place, number: signal.Signals) -> None:
    place.image('sleep 600 &\necho $! > "$WORKFLOW_DIR/child"\necho $$ > "$WORKFLOW_DIR/pid"\nwait\n', entrypoint=SHELL)
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
from kaapana_assets.containers.process.runner import ProcessRunner
from kaapana_assets.containers.protocol import Launch
images, environments, directory = map(Path, sys.argv[1:])
ProcessRunner(images, environments).run(
    Launch(run_id="r", workflow="w", operator="o", image="made", directory=directory,
           operator_in_dir="i", operator_out_dir="o"), output=lambda line: None)
"""


def test_memory_over_the_limit_is_said_with_the_limit(place: Place) -> None:
    place.image("x = bytearray(600 * 2**20)")
    with pytest.raises(OperatorOutOfMemory, match="limit of 300 MiB"):
        place.run(memory_mb=300)


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
