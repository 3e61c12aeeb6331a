"""A cluster that breaks while an operator runs: one of our own, since others' tests use the shared one."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from services.operators import Background, Operators, operators_of, wait_until
from services.plugin import own_cluster

from kaapana_assets.containers.protocol import Outcome
from kaapana_assets.errors import EngineUnavailable, OperatorFailed

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


@pytest.fixture
def operators() -> Iterator[Operators]:
    # Short: the path of a socket is limited to about 100 characters.
    place = Path(tempfile.mkdtemp(prefix="k8s-"))
    try:
        with own_cluster(place / "c") as cluster, operators_of(cluster, place / "home") as made:
            yield made
    finally:
        shutil.rmtree(place)


def test_api_server_that_is_started_again_loses_nothing(operators: Operators) -> None:
    launch = operators.launch("for n in $(seq 1 60); do echo line $n; sleep 0.2; done; echo made > /data/made")
    running = Background(operators.runner(), launch)
    running.wait_for_line("line 10")
    operators.cluster.restart_api_server(away_s=3)
    ended = running.ended()
    assert ended.outcome is Outcome.DONE, ended.error
    assert [line for line in ended.lines if line.startswith("line ")] == [f"line {n}" for n in range(1, 61)]
    assert (launch.directory / "made").read_text() == "made\n"
    operators.wait_for_nothing(launch)


def test_api_server_that_stays_away_lets_the_operator_go_on_for_the_next_worker(operators: Operators) -> None:
    launch = operators.launch("echo began; sleep 15; echo ends; date +%s%N >> /data/ends")
    running = Background(operators.runner(patience_s=3.0), launch)
    running.wait_for_line("began")
    operators.cluster.stop("kube-apiserver")
    assert isinstance(running.ended().error, EngineUnavailable)
    operators.cluster.start("kube-apiserver")
    again = operators.runner()
    wait_until("the cluster", lambda: again.adopts(launch))
    lines: list[str] = []
    assert again.run(launch, output=lines.append) is Outcome.DONE
    assert "ends" in lines
    assert len((launch.directory / "ends").read_text().splitlines()) == 1


def test_lost_node_is_told_and_its_pod_is_not_taken_for_ended(operators: Operators) -> None:
    launch = operators.launch("echo began; exec sleep 600")
    running = Background(operators.runner(patience_s=20.0), launch)
    running.wait_for_line("began")
    operators.cluster.lose_node()
    try:
        wait_until("the news", lambda: any("does not answer" in line for line in running.lines), within_s=120)
        ended = running.ended()
        assert isinstance(ended.error, EngineUnavailable), ended.error
        assert "cannot be seen" in str(ended.error)
    finally:
        operators.cluster.return_node()
    began = time.monotonic()
    with pytest.raises(OperatorFailed):
        operators.runner().run(launch, output=print)
    assert time.monotonic() - began < 120
