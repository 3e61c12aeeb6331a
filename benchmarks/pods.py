"""What a pod costs around an operator, beside bare Jobs and dagster-k8s, on a cluster of its own.

    PYTHONPATH=tests python benchmarks/pods.py [--chunks 50] [--series 200] [--repeats 5]

Needs what ``make cluster`` needs. Prints Markdown: seconds from the start of a step to the start of its
container and to its end, for a container that only notes the time; pods a minute with many chunks; a
batch as one pod against one pod a series. All ways start the same image in the same namespace in turn.
"A bare Job" is made with the Kubernetes client and asked every 0.1 s, which is the bound for all who use
Jobs. The container notes the machine's own clock, which is the same for both.
"""

# Without postponed annotations: Dagster reads those of an op.
import argparse
import shutil
import statistics
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_k8s import PipesK8sClient, execute_k8s_job
from kubernetes import client, config
from services.cluster import shared
from services.images import BASE_IMAGE
from services.operators import Operators, operators_of
from tqdm import tqdm

from kaapana_assets.containers.kubernetes import KubernetesRunner

NOTE = "date +%s.%N > /data/started"
COUNT = "for s in $BATCHES_INPUT_DIR/*; do o=$s/$OPERATOR_OUT_DIR; mkdir -p $o; ls $s/$OPERATOR_IN_DIR > $o/names; done"


def main() -> None:
    # What Dagster thinks of its own functions is known: they stand here to be compared with.
    warnings.filterwarnings("ignore", category=dg.SupersessionWarning)
    warnings.filterwarnings("ignore", category=dg.PreviewWarning)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=50)
    parser.add_argument("--series", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    with place() as operators:
        latency(operators, given.repeats)
        chunks(operators, given.chunks)
        batch(operators, given.series)


@contextmanager
def place() -> Iterator[Operators]:
    folder = Path(tempfile.mkdtemp(prefix="pods-"))
    try:
        with shared(folder / "c") as cluster, operators_of(cluster, folder / "home") as operators:
            yield operators
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def latency(operators: Operators, repeats: int) -> None:
    """From the start of a step to the container's start, and to its end, of one pod that does nothing."""
    runner = operators.runner()
    ways: dict[str, Callable[[], Path]] = {
        "this runner": lambda: with_runner(operators, runner),
        "a bare Job": lambda: bare_job(operators),
        "execute_k8s_job": lambda: in_dagster(operators, executed_job),
        "PipesK8sClient": lambda: in_dagster(operators, piped),
        "PipesK8sClient, poll_interval=1": lambda: in_dagster(operators, lambda o, c: piped(o, c, poll_s=1.0)),
    }
    found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in ways}
    for repeat in tqdm(range(repeats + 1), desc="one pod", unit="round"):
        for name, way in ways.items():
            CLOCK.clear()
            noted = way()
            began, ended = CLOCK["began"], time.time()
            if repeat:  # the first one warms up
                found[name][0].append(float(noted.read_text()) - began)
                found[name][1].append(ended - began)
    bare = statistics.median(found["a bare Job"][1])
    print(f"\nSeconds from the step's start, median (least to most) of {repeats}\n")
    print("| way | to the container's start | to the step's end | end, against a bare Job |")
    print("|---|---|---|---|")
    for name, (starts, ends) in found.items():
        print(f"| {name} | {spread(starts)} | {spread(ends)} | {statistics.median(ends) / bare:.2f} |")


CLOCK: dict[str, float] = {}


def begin() -> None:
    CLOCK["began"] = time.time()


def with_runner(operators: Operators, runner: KubernetesRunner) -> Path:
    launch = operators.launch(NOTE)
    begin()
    runner.run(launch, output=ignore)
    return launch.directory / "started"


def bare_job(operators: Operators) -> Path:
    launch = operators.launch(NOTE)
    api = client.BatchV1Api(config.new_client_from_config(str(operators.cluster.kubeconfig)))
    name = f"bare-{uuid.uuid4().hex[:8]}"
    given = {"name": "operator", "image": BASE_IMAGE, "command": ["bash", "-c", NOTE]}
    spec = {**pod_spec(), "restartPolicy": "Never", "containers": [given | container(operators, launch.directory)]}
    manifest = {"metadata": {"name": name}, "spec": {"backoffLimit": 0, "template": {"spec": spec}}}
    begin()
    api.create_namespaced_job(operators.namespace, manifest)
    while not api.read_namespaced_job(name, operators.namespace).status.succeeded:
        time.sleep(0.1)
    return launch.directory / "started"


def executed_job(operators: Operators, context: dg.OpExecutionContext) -> Path:
    launch = operators.launch(NOTE)
    begin()
    execute_k8s_job(
        context,
        image=BASE_IMAGE,
        command=["bash", "-c", NOTE],
        namespace=operators.namespace,
        image_pull_policy="IfNotPresent",
        load_incluster_config=False,
        kubeconfig_file=str(operators.cluster.kubeconfig),
        container_config=container(operators, launch.directory),
        pod_spec_config=pod_spec(),
    )
    return launch.directory / "started"


def piped(operators: Operators, context: dg.OpExecutionContext, poll_s: float = 10.0) -> Path:
    launch = operators.launch(NOTE)
    pipes = PipesK8sClient(
        load_incluster_config=False, kubeconfig_file=str(operators.cluster.kubeconfig), poll_interval=poll_s
    )
    spec = {**pod_spec(), "containers": [{"name": "operator", **container(operators, launch.directory)}]}
    begin()
    pipes.run(
        context=context,
        image=BASE_IMAGE,
        command=["bash", "-c", NOTE],
        namespace=operators.namespace,
        base_pod_spec=spec,
    )
    return launch.directory / "started"


def in_dagster(operators: Operators, way: Callable[[Operators, dg.OpExecutionContext], Path]) -> Path:
    noted: list[Path] = []

    @dg.op
    def step(context: dg.OpExecutionContext) -> None:
        noted.append(way(operators, context))

    @dg.job(executor_def=dg.in_process_executor, logger_defs={"console": dg.colored_console_logger})
    def job() -> None:
        step()

    job.execute_in_process(run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}})
    return noted[0]


def pod_spec() -> dict[str, Any]:
    return {
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "kaapana-home"}}],
    }


def container(operators: Operators, directory: Path) -> dict[str, Any]:
    directory.chmod(0o777)  # a directory of the benchmark's own
    return {
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [
            {"name": "data", "mountPath": "/data", "subPath": directory.relative_to(operators.home).as_posix()}
        ],
    }


def chunks(operators: Operators, count: int) -> None:
    """Pods a minute, when a cohort is cut in many chunks."""
    print(f"\nPods a minute, {count} chunks that do nothing\n")
    print("| pods at once | this runner | bare Jobs, asked every 0.1 s | ratio |")
    print("|---|---|---|---|")
    for at_once in (1, 4, 10):
        runner = operators.runner(pods=at_once)
        ours = per_minute(count, at_once, partial(with_runner, operators, runner))
        bare = per_minute(count, at_once, lambda: bare_job(operators))
        print(f"| {at_once} | {ours:.0f} | {bare:.0f} | {ours / bare:.2f} |", flush=True)


def per_minute(count: int, at_once: int, one: Callable[[], Any]) -> float:
    began = time.monotonic()
    with ThreadPoolExecutor(at_once) as pool:
        for _ in tqdm(pool.map(lambda _: one(), range(count)), total=count, desc=f"{at_once} at once", unit="pod"):
            pass
    return 60 * count / (time.monotonic() - began)


def batch(operators: Operators, count: int) -> None:
    """One pod for all series against one pod a series."""
    runner = operators.runner(pods=10)
    whole = operators.launch(COUNT)
    fill(whole.directory, [f"1.2.{number}" for number in range(count)])
    began = time.monotonic()
    runner.run(whole, output=ignore)
    as_one = time.monotonic() - began
    print(f"\n{count} series\n\n| way | seconds | ms for each series |\n|---|---|---|")
    print(f"| one pod | {as_one:.1f} | {1000 * as_one / count:.0f} |", flush=True)
    for at_once in (1, 4):
        began = time.monotonic()
        with ThreadPoolExecutor(at_once) as pool:

            def single(number: int) -> None:
                launch = operators.launch(COUNT)
                fill(launch.directory, [f"1.2.{number}"])
                runner.run(launch, output=ignore)

            for _ in tqdm(pool.map(single, range(count)), total=count, desc="a pod a series", unit="pod"):
                pass
        each = time.monotonic() - began
        print(f"| one pod a series, {at_once} at once | {each:.1f} | {1000 * each / count:.0f} |", flush=True)


def fill(directory: Path, series: Sequence[str]) -> None:
    shutil.rmtree(directory / "batch")
    for uid in series:
        folder = directory / "batch" / uid / "initial-input"
        folder.mkdir(parents=True)
        (folder / "1.dcm").write_bytes(b"x")


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def ignore(_line: str) -> None:
    pass


if __name__ == "__main__":
    main()
