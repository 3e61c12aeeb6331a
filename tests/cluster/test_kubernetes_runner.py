"""Operators as pods of a real cluster: what each end is told as, and that nothing is started twice or left."""

import itertools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from services.cluster import Cluster as RealCluster
from services.images import BASE_IMAGE
from services.operators import PROJECT_ROOT, UID, Background, Operators, kubeconfig_of, operators_of, wait_until

from kaapana_assets.containers.kubernetes import Cluster
from kaapana_assets.containers.protocol import Launch, Outcome
from kaapana_assets.errors import (
    ConfigurationError,
    EngineUnavailable,
    NotFound,
    OperatorFailed,
    OperatorOutOfMemory,
    OperatorTimeout,
)
from kaapana_assets.image_builds.record import BuiltImage, BuiltImages

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def operators(kubernetes_cluster: RealCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operators]:
    with operators_of(kubernetes_cluster, tmp_path_factory.mktemp("cluster") / "home") as made:
        yield made


def test_operator_sees_its_run_directory_and_the_contract(operators: Operators) -> None:
    launch = operators.launch(
        'ls -A /data; env; id -u; mkdir -p "$BATCHES_INPUT_DIR/1.2.3/$OPERATOR_OUT_DIR"; '
        'echo made > "$BATCHES_INPUT_DIR/1.2.3/$OPERATOR_OUT_DIR/file"; echo "last  words"',
        parameters={"level": "$(id) $$"},
    )
    (operators.home / "workflows" / "data" / "other-run").mkdir(exist_ok=True)
    lines: list[str] = []
    assert operators.runner().run(launch, output=lines.append) is Outcome.DONE
    said = [line for line in lines if not line.startswith("[op] ")]
    assert said[0] == "batch"
    assert "other-run" not in said
    assert {"WORKFLOW_DIR=/data", "OPERATOR_IN_DIR=initial-input", f"RUN_ID={launch.run_id}"} <= set(said)
    assert "LEVEL=$(id) $$" in said
    assert said[-2:] == [str(UID), "last  words"]
    made = launch.directory / "batch" / "1.2.3" / "op" / "file"
    assert (made.read_text(), made.stat().st_uid) == ("made\n", UID)
    operators.wait_for_nothing(launch)


def test_operator_can_change_nothing_but_its_directory(operators: Operators) -> None:
    launch = operators.launch(
        "touch /bin/x; touch /x; touch /tmp/x && echo tmp; "
        "cat /var/run/secrets/kubernetes.io/serviceaccount/token; "
        "cd /data/batch/1.2.3/initial-input; echo changed > slice.dcm; chmod u+w slice.dcm; touch new && echo new"
    )
    archived = operators.home / "archive.dcm"
    archived.write_bytes(b"as it was sent")
    archived.chmod(0o444)
    linked = launch.directory / "batch" / "1.2.3" / "initial-input" / "slice.dcm"
    linked.hardlink_to(archived)
    lines: list[str] = []
    operators.runner().run(launch, output=lines.append)
    assert [line for line in lines if line in ("tmp", "new")] == ["tmp", "new"]
    assert archived.read_bytes() == b"as it was sent"
    assert sum("Read-only file system" in line for line in lines) == 2
    assert sum("Permission denied" in line or "not permitted" in line for line in lines) == 2
    assert any("token: No such file" in line for line in lines)


def test_output_comes_while_the_operator_runs_and_whole(operators: Operators) -> None:
    came: list[tuple[float, str]] = []
    began = time.monotonic()
    # It lives on for a moment: containerd may lose what a container writes just before its end.
    launch = operators.launch("echo first; sleep 3; seq 1 20000; printf unfinished; sleep 3")
    operators.runner().run(launch, output=lambda line: came.append((time.monotonic() - began, line)))
    lines = [line for _, line in came if not line.startswith("[op] ")]
    assert lines == ["first", *(str(n) for n in range(1, 20_001)), "unfinished"]
    at = {line: when for when, line in came}
    assert at["1"] - at["first"] > 2


def test_times_that_an_operator_prints_are_its_own(operators: Operators) -> None:
    lines: list[str] = []
    script = r"""
        printf '1%%\r2999-01-01T00:00:00Z two\r'; sleep 2; printf '3\n2999-01-01T00:00:00Z four\n'; sleep 2
        head -c 100000 /dev/zero | tr '\0' x; printf '2999-01-01T00:00:00Z'; sleep 2
    """
    operators.runner().run(operators.launch(script), output=lines.append)
    said = [line for line in lines if not line.startswith("[op] ")]
    assert said[:4] == ["1%", "2999-01-01T00:00:00Z two", "3", "2999-01-01T00:00:00Z four"]
    assert "".join(said[4:]) == "x" * 100_000 + "2999-01-01T00:00:00Z"


def test_operator_that_prints_more_than_can_be_read_holds_up_nobody(operators: Operators) -> None:
    """Nine million lines: with more, kubelet begins another file, and the end of the former one cannot be read."""
    lines: list[str] = []
    script = r"head -c 9000000 /dev/zero | tr '\0' '\r'; echo; echo last words; sleep 1; exit 3"
    with pytest.raises(OperatorFailed, match=r"exit code 3\n(  .*\n)*  last words"):
        operators.runner(log_drain_s=0.5).run(operators.launch(script), output=lines.append)
    assert "[op] it printed more than can be read in time: what is missing here is left out" in lines
    assert len(lines) < 9_000_000


def test_exit_code_126_is_skipped(operators: Operators) -> None:
    launch = operators.launch("exit 126")
    assert operators.runner().run(launch, output=print) is Outcome.SKIPPED
    operators.wait_for_nothing(launch)


def test_failed_pod_is_told_with_its_last_words_and_kept_to_be_looked_at(operators: Operators) -> None:
    launch = operators.launch("echo bad header; exit 3")
    with pytest.raises(OperatorFailed, match="exit code 3") as raised:
        operators.runner().run(launch, output=print)
    assert "bad header" in str(raised.value)
    command = str(raised.value).splitlines()[-1].partition("kubectl ")[2].split()
    assert "Exit Code:    3" in operators.cluster.kubectl(*command)
    (kept,) = operators.jobs(launch)
    assert kept["spec"]["ttlSecondsAfterFinished"] == 3600


def test_kept_pods_directory_can_be_looked_into_by_a_copy_of_the_pod(operators: Operators) -> None:
    launch = operators.launch("echo half > /data/half; exit 3")
    with pytest.raises(OperatorFailed):
        operators.runner().run(launch, output=print)
    (pod,) = operators.pods(launch)
    namespace, copy = ("-n", operators.namespace), "look"
    debug = ["debug", pod["metadata"]["name"], *namespace, f"--copy-to={copy}", "--container=operator"]
    operators.cluster.kubectl(*debug, "--", "sleep", "60")
    operators.cluster.kubectl("wait", "--for=condition=Ready", f"pod/{copy}", *namespace)
    assert operators.cluster.kubectl("exec", copy, *namespace, "--", "cat", "/data/half") == "half\n"
    operators.cluster.kubectl("delete", "pod", copy, *namespace, "--grace-period=1")


def test_no_more_than_twenty_failed_pods_of_a_run_are_kept(operators: Operators) -> None:
    runner = operators.runner()
    first = operators.launch("exit 3")
    for number in range(22):
        directory = first.directory / str(number)
        directory.mkdir()
        with pytest.raises(OperatorFailed):
            runner.run(operators.launch("exit 3", run=first.run_id, directory=directory), output=print)
    assert len(operators.jobs(first)) == 20


def test_nothing_is_kept_where_the_site_wants_none(operators: Operators) -> None:
    launch = operators.launch("exit 3")
    with pytest.raises(OperatorFailed):
        operators.runner(retention_s=0.0).run(launch, output=print)
    operators.wait_for_nothing(launch)


def test_image_that_is_not_there_is_told_at_once_and_stops_all(operators: Operators) -> None:
    launch = operators.launch("true", image="localhost/none:1", image_pull_secrets=("site",))
    began = time.monotonic()
    with pytest.raises(NotFound, match="localhost/none:1") as raised:
        operators.runner().run(launch, output=print)
    assert time.monotonic() - began < 30
    assert "site" in str(raised.value)
    operators.wait_for_nothing(launch)


def test_program_that_is_not_in_the_image_is_no_failure_of_a_series(operators: Operators) -> None:
    launch = operators.launch("", command=("no-such-program",))
    with pytest.raises(ConfigurationError, match="no-such-program"):
        operators.runner().run(launch, output=print)
    operators.wait_for_nothing(launch)


def test_too_much_memory_is_told_as_that(operators: Operators) -> None:
    launch = operators.launch("exec python -c 'x = bytearray(10**9)'", memory_mb=64)
    with pytest.raises(OperatorOutOfMemory, match="64 MiB"):
        operators.runner().run(launch, output=print)


def test_deadline_ends_the_operator_and_keeps_its_words(operators: Operators) -> None:
    launch = operators.launch("echo began; exec sleep 300", timeout_s=3)
    began = time.monotonic()
    with pytest.raises(OperatorTimeout, match="limit of 3 s") as raised:
        operators.runner().run(launch, output=print)
    assert "began" in str(raised.value)
    assert time.monotonic() - began < 40


def test_no_room_is_told_within_seconds_and_waited_for(operators: Operators) -> None:
    launch = operators.launch("true", memory_mb=10**7)
    waiting = Background(operators.runner(patience_s=8.0), launch)
    waiting.wait_for_line("Insufficient memory")
    ended = waiting.ended()
    assert isinstance(ended.error, ConfigurationError)
    assert "KAAPANA_KUBERNETES_PATIENCE_S" in str(ended.error)
    assert "Insufficient memory" in str(ended.error)
    operators.wait_for_nothing(launch)


def test_cancelled_operator_leaves_nothing(operators: Operators) -> None:
    launch = operators.launch("echo began; trap 'echo ends; exit' TERM; while true; do sleep 0.2; done")
    running = Background(operators.runner(), launch)
    running.wait_for_line("began")
    running.cancelled.set()
    ended = running.ended()
    assert isinstance(ended.error, OperatorFailed)
    assert "cancelled" in str(ended.error)
    operators.wait_for_nothing(launch)


def test_pod_that_somebody_deletes_is_told_as_that(operators: Operators) -> None:
    launch = operators.launch("echo began; exec sleep 300")
    running = Background(operators.runner(), launch)
    running.wait_for_line("began")
    (pod,) = operators.pods(launch)
    operators.cluster.kubectl("delete", "pod", pod["metadata"]["name"], "-n", operators.namespace, "--wait=false")
    ended = running.ended()
    assert isinstance(ended.error, OperatorFailed)
    assert "deleted" in str(ended.error)
    operators.wait_for_nothing(launch)


def test_job_that_somebody_deletes_is_told_as_that(operators: Operators) -> None:
    launch = operators.launch("echo began; exec sleep 300")
    running = Background(operators.runner(), launch)
    running.wait_for_line("began")
    (job,) = operators.jobs(launch)
    operators.cluster.kubectl("delete", "job", job["metadata"]["name"], "-n", operators.namespace, "--wait=false")
    ended = running.ended()
    assert isinstance(ended.error, OperatorFailed)
    assert "deleted" in str(ended.error)


WORKER = """
import json, sys
from pathlib import Path
from kaapana_assets.containers.kubernetes import Cluster, ClusterTarget, KubernetesRunner
from kaapana_assets.containers.protocol import Launch
given = json.loads(sys.argv[1])
launch = given["launch"] | {"directory": Path(given["launch"]["directory"])}
for name in ("command", "image_pull_secrets"):
    launch[name] = tuple(launch[name])
place = ClusterTarget(**given["place"] | {"home": Path(given["place"]["home"])})
cluster = Cluster(Path(given["kubeconfig"]), namespace=place.namespace, patience_s=60)
runner = KubernetesRunner(cluster, place, images=Path("images"), registry="", suffix="", own_uid=0)
print(runner.run(Launch(**launch), output=lambda line: print(line, flush=True)), flush=True)
"""


def killed_worker(operators: Operators, launch: Launch, line: str) -> None:
    """A process that starts the launch and is killed once the operator said the line."""
    given = {
        "kubeconfig": str(operators.cluster.kubeconfig),
        "launch": {**vars(launch), "directory": str(launch.directory)},
        "place": {
            "namespace": operators.namespace, "claim": "kaapana-home", "claim_path": "", "home": str(operators.home),
            "uid": UID,
        },
    }  # fmt: skip
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, json.dumps(given)], stdout=subprocess.PIPE, text=True, cwd=PROJECT_ROOT
    )
    assert worker.stdout is not None
    with worker.stdout:
        heard = iter(worker.stdout.readline, "")
        assert any(line in each for each in heard)
        worker.send_signal(signal.SIGKILL)
        worker.wait()


def test_worker_that_takes_over_goes_on_with_the_pod_that_runs(operators: Operators) -> None:
    launch = operators.launch("echo began; date +%s%N > /data/started; sleep 6; echo ends")
    killed_worker(operators, launch, "began")
    runner = operators.runner()
    wait_until("the file", (launch.directory / "started").exists)
    started = (launch.directory / "started").read_text()
    assert runner.adopts(launch)
    lines: list[str] = []
    assert runner.run(launch, output=lines.append) is Outcome.DONE
    assert [line for line in lines if not line.startswith("[op] ")] == ["began", "ends"]
    assert (launch.directory / "started").read_text() == started
    assert not runner.adopts(launch)
    operators.wait_for_nothing(launch)


def test_job_of_an_earlier_version_is_adopted_and_ended_by_its_labels(operators: Operators) -> None:
    launch = operators.launch("echo began; date +%s%N >> /data/started; sleep 3; echo ends")
    killed_worker(operators, launch, "began")
    runner = operators.runner()
    with closing(Cluster(operators.cluster.kubeconfig, namespace=operators.namespace, patience_s=60)) as cluster:
        (found,) = cluster.jobs(f"kaapana-assets/run={launch.run_id}")
        labels = found["metadata"]["labels"]
        former = {"kaapana-assets/place": labels["kaapana-assets/launch-slot"], "kaapana-assets/launch-slot": None}
        cluster.change_job(found["metadata"]["name"], {"metadata": {"labels": former}})
        assert runner.adopts(launch)
        assert runner.run(launch, output=print) is Outcome.DONE
        assert len((launch.directory / "started").read_text().splitlines()) == 1
    operators.wait_for_nothing(launch)


def test_worker_that_takes_over_is_told_of_an_end_that_nobody_saw(operators: Operators) -> None:
    launch = operators.launch("echo began; sleep 1; echo half > /data/half; exit 5")
    killed_worker(operators, launch, "began")
    wait_until("the end", lambda: operators.pods(launch)[0]["status"]["phase"] == "Failed")
    runner = operators.runner()
    assert runner.adopts(launch)
    with pytest.raises(OperatorFailed, match="exit code 5") as raised:
        runner.run(launch, output=print)
    assert "began" in str(raised.value)
    # Told once: what comes now is a new start.
    assert not runner.adopts(launch)
    with pytest.raises(OperatorFailed, match="exit code 5"):
        runner.run(launch, output=print)
    assert len(operators.jobs(launch)) == 2


def test_other_launch_in_the_same_place_ends_the_one_that_was_left(operators: Operators) -> None:
    old = operators.launch("echo began; exec sleep 300")
    killed_worker(operators, old, "began")
    new = operators.launch("echo other", run=old.run_id)
    runner = operators.runner()
    assert not runner.adopts(new)
    operators.wait_for_nothing(old)
    assert runner.run(new, output=print) is Outcome.DONE


def test_no_more_pods_run_than_may(operators: Operators) -> None:
    runner = operators.runner(pods=1)
    script = "date +%s%N > /data/begin; sleep 2; date +%s%N > /data/end"
    running = [Background(runner, operators.launch(script)) for _ in range(3)]
    for each in running:
        assert each.ended().outcome is Outcome.DONE, each.error
    times = sorted(
        (int((each.launch.directory / "begin").read_text()), int((each.launch.directory / "end").read_text()))
        for each in running
    )
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(times))
    assert any("waiting" in line for each in running for line in each.lines)


def test_quota_that_is_used_up_is_told_and_waited_for(operators: Operators) -> None:
    quota = {"spec": {"hard": {"pods": "1"}}}
    operators.cluster.kubectl(
        "patch", "resourcequota", "operators", "-n", operators.namespace, "--type=merge", f"--patch={json.dumps(quota)}"
    )
    try:
        first = Background(operators.runner(), operators.launch("echo began; sleep 6"))
        first.wait_for_line("began")
        second = Background(operators.runner(), operators.launch("echo second"))
        second.wait_for_line("exceeded quota")
        assert first.ended().outcome is Outcome.DONE
        assert second.ended().outcome is Outcome.DONE, second.error
    finally:
        quota["spec"]["hard"]["pods"] = "50"
        operators.cluster.kubectl(
            "patch", "resourcequota", "operators", "-n", operators.namespace, "--type=merge",
            f"--patch={json.dumps(quota)}",
        )  # fmt: skip


def test_rights_of_the_chart_are_enough(operators: Operators, tmp_path: Path) -> None:
    """A run, a failure and a deletion with the token of the chart's service account, not an administrator's."""
    runner = operators.runner(kubeconfig=kubeconfig_of(operators.cluster, operators.release, tmp_path))
    assert runner.run(operators.launch("echo ok"), output=print) is Outcome.DONE
    with pytest.raises(OperatorFailed, match="exit code 1"):
        runner.run(operators.launch("exit 1"), output=print)
    with pytest.raises(NotFound):
        runner.run(operators.launch("", image="localhost/none:1"), output=print)


def test_digest_is_of_what_was_built_and_another_image_on_the_node_is_refused(operators: Operators) -> None:
    reference = "localhost/extract-study-id:0.1.0"
    runner = operators.runner()
    with pytest.raises(NotFound, match="images build extract-study-id"):
        runner.image_digest("extract-study-id")
    built = BuiltImage(reference=BASE_IMAGE, name="base", image_id=f"sha256:{'0' * 64}", content_digest="sha256:1")
    BuiltImages(operators.home).add(built)
    assert runner.image_digest(BASE_IMAGE) == built.image_id
    launch = operators.launch("true")
    with pytest.raises(ConfigurationError, match="another image") as raised:
        runner.run(launch, output=print)
    assert reference not in str(raised.value)
    assert not runner.adopts(launch)
    operators.wait_for_nothing(launch)
    (operators.home / "images.json").unlink()


@pytest.mark.parametrize("given", ["absent", "empty", "away"])
def test_cluster_that_cannot_be_reached_is_told_with_the_setting(given: str, tmp_path: Path, free_port: int) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    if given != "absent":
        cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{free_port}"}}
        context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
        away = {"clusters": [cluster], "contexts": [context], "users": [{"name": "u", "user": {}}]}
        kubeconfig.write_text(json.dumps({"current-context": "c"} | (away if given == "away" else {})))
    if given == "away":
        found = Cluster(kubeconfig, namespace="x", patience_s=1)
        with pytest.raises(EngineUnavailable, match="does not answer"):
            found.version()
        return
    with pytest.raises(ConfigurationError, match="KAAPANA_KUBECONFIG"):
        Cluster(kubeconfig, namespace="x", patience_s=1)
