"""What every runner promises, held by pods of a real cluster."""

import itertools
import json
from collections.abc import Iterator

import pytest
from containers.runner_contract import PYTHON, SHELL, RunnerContract
from containers.runner_contract import Place as ContractPlace
from services.cluster import Cluster
from services.images import BASE_IMAGE
from services.operators import Operators, operators_of

from kaapana_assets.containers.protocol import Launch, Outcome
from kaapana_assets.errors import OperatorFailed

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

_NUMBERS = itertools.count()
# Where the API server is, which Kubernetes tells every pod; without a token it is of no use to one.
_ADDRESS = ("", "_PROTO", "_PORT", "_ADDR")
_OF_THE_CLUSTER = {"KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "KUBERNETES_SERVICE_PORT_HTTPS"}
_OF_THE_CLUSTER |= {"KUBERNETES_PORT", *(f"KUBERNETES_PORT_443_TCP{end}" for end in _ADDRESS)}


class _OfTheOperator(list[str]):
    """Lines, without what the runner says of its waiting."""

    def append(self, line: str) -> None:
        if not line.startswith("[made] "):
            super().append(line)


class Place(ContractPlace):
    """A run directory in the volume; scripts are given to the base image as its command."""

    killed = OperatorFailed  # a cluster says which operators used too much memory
    cancelled_within_s = 30.0  # the grace of pods, and what a busy node takes to end one
    workflow_dir = "/data"
    variables = frozenset({"HOME", "HOSTNAME", "PATH", "PYTHONUNBUFFERED", "TMPDIR", *_OF_THE_CLUSTER})

    def __init__(self, operators: Operators) -> None:
        folder = operators.home / "workflows" / f"contract-{next(_NUMBERS)}"
        folder.mkdir(parents=True)
        super().__init__(folder)
        self.operators = operators
        self.runner = operators.runner(retention_s=0.0)
        self.lines = _OfTheOperator()
        self._command: tuple[str, ...] = ()

    def image(self, script: str, *, entrypoint: str = PYTHON) -> None:
        started = {PYTHON: ("python", "-c", script), SHELL: ("/bin/sh", "-c", script)}
        self._command = started.get(entrypoint) or tuple(json.loads(entrypoint))

    def launch(self, **changes: object) -> Launch:
        return super().launch(**{"image": BASE_IMAGE, "command": self._command, **changes})

    def has_ended(self, name: str) -> bool:
        pods = self.operators.pods(self.launch())
        return not any(pod["status"]["phase"] in ("Pending", "Running") for pod in pods)


@pytest.fixture(scope="module")
def operators(kubernetes_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operators]:
    with operators_of(kubernetes_cluster, tmp_path_factory.mktemp("contract") / "home") as made:
        yield made


@pytest.fixture
def place(operators: Operators) -> Place:
    return Place(operators)


class TestContract(RunnerContract):
    def test_a_command_replaces_the_entrypoint(self, place: ContractPlace) -> None:
        """All others are given as commands; one without a command starts what the image says."""
        place.run(command=None)
        place.run(command=("python", "-c", "print('a command')"))
        assert place.lines == ["a command"]

    def test_more_output_than_a_pipe_holds_does_not_hang(self, place: ContractPlace) -> None:
        """It lives on for a moment: containerd may lose what a container writes just before its end."""
        place.image("import time\nfor _ in range(20_000): print('y' * 99)\nprint('z', flush=True)\ntime.sleep(3)")
        assert place.run(timeout_s=120) is Outcome.DONE
        assert (len(place.lines), place.lines[-1]) == (20_001, "z")
