"""What the Docker runner promises, on real engines: Docker and Podman."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path

import pytest
from containers.runner_contract import PYTHON, RunnerContract, until
from containers.runner_contract import Place as ContractPlace
from services.container_engine import ENGINES, REGISTRY, ContainerEngine
from services.images import BASE_IMAGE
from services.plugin import engine

from kaapana_assets.containers.docker.runner import DockerRunner
from kaapana_assets.containers.protocol import Launch, Outcome
from kaapana_assets.errors import ConfigurationError, EngineUnavailable, NotFound, OperatorFailed, OperatorTimeout
from kaapana_assets.image_builds.references import reference_of
from kaapana_assets.settings.user_ids import OPERATOR_UID
from kaapana_assets.workflows.loader import load_workflow_files

pytestmark = pytest.mark.services

UID = OPERATOR_UID


class Place(ContractPlace):
    """A folder of images that are built at an engine, and a run directory."""

    workflow_dir = "/data"

    def __init__(self, folder: Path, engine: ContainerEngine, **given: object) -> None:
        super().__init__(folder)
        self.engine = engine
        self.variables = frozenset({"HOME", "HOSTNAME", "PATH", "PYTHONUNBUFFERED", "TMPDIR"})
        if engine.name == "podman":
            self.variables |= {"TERM", "container"}
        chosen = {"uid": UID, "own_uid": 0, "grace_s": 1.0, "patience_s": 2.0, **given}
        self.runner = DockerRunner(self.images, url=engine.url, **chosen)
        self._version = uuid.uuid4().hex

    def image(self, script: str, *, entrypoint: str = PYTHON, end: str = "") -> None:
        dockerfile = (
            f"FROM {BASE_IMAGE}\nLABEL org.opencontainers.image.version={self._version}\n"
            f"WORKDIR /app\nCOPY files/ /app/\nENTRYPOINT {entrypoint}\n{end}"
        )
        self.write_image(script, dockerfile=dockerfile)
        self.engine.build(self.images / "made", self.reference)

    @property
    def reference(self) -> str:
        return reference_of(self.images, "made", registry="", suffix="")

    def containers(self) -> list[str]:
        """The containers of operators that the engine knows."""
        with self.engine.client() as client:
            return [each["Id"] for each in client.containers(all=True, filters={"label": "kaapana.launch"})]

    def has_ended(self, name: str) -> bool:
        return not self.containers()


@pytest.fixture
def place(tmp_path: Path, container_engine: ContainerEngine) -> Place:
    return Place(tmp_path, container_engine)


class TestContract(RunnerContract):
    pass


def test_an_operator_has_no_rights_and_sees_nothing_but_its_directory(place: Place) -> None:
    other = place.directory.parent / "other"
    other.mkdir()
    (other / "secret").touch()
    place.image(
        "import json, os\n"
        "status = dict(l.split(':\\t', 1) for l in open('/proc/self/status').read().splitlines() if ':\\t' in l)\n"
        "def can(path):\n    try:\n        open(path, 'w').close()\n        return True\n    except OSError:\n"
        "        return False\n"
        "places = {l.split()[1] for l in open('/proc/mounts') if l.split()[2] not in\n"
        "          ('proc', 'sysfs', 'devpts', 'mqueue', 'cgroup', 'cgroup2')}\n"
        "print(json.dumps({'ids': [os.getuid(), os.getgid()], 'caps': status['CapBnd'], 'nnp': status['NoNewPrivs'],\n"
        "  'writable': [p for p in ('/x', '/app/x', '/etc/x', '/usr/x', '/var/tmp/x', '/data/x') if can(p)],\n"
        "  'data': sorted(os.listdir('/data')),\n"
        f"  'other': os.path.exists({str(other)!r}), 'places': sorted(places)}}))"
    )
    place.run()
    seen = json.loads(place.lines[-1])
    assert seen["ids"] == [UID, UID]
    assert int(seen["caps"], 16) == 0
    assert seen["nnp"] == "1"
    # Podman makes /var/tmp a temporary folder of the container, too.
    assert set(seen["writable"]) - {"/var/tmp/x"} == {"/data/x"}
    assert seen["data"] == ["x"]
    assert not seen["other"]
    assert {"/", "/data", "/tmp", "/home/operator"} <= set(seen["places"])
    assert not any(folder.startswith(("/work", "/run/docker", "/var/run")) for folder in seen["places"])


def test_output_that_takes_too_long_to_read_is_left_out_but_for_its_end(
    tmp_path: Path, container_engine: ContainerEngine
) -> None:
    place = Place(tmp_path, container_engine, log_drain_s=0.0)
    place.image("for number in range(2000):\n    print('line', number)\nraise SystemExit(5)")
    with pytest.raises(OperatorFailed, match="line 1999") as raised:
        place.run()
    assert "more than can be read in time" in "".join(place.lines)
    assert place.lines[-30:] == [f"line {number}" for number in range(1970, 2000)]
    assert "exit code 5" in str(raised.value)


def test_launches_at_once_do_not_see_each_other(place: Place) -> None:
    place.image(
        "import os, time\nopen('/data/mine-' + os.environ['NUMBER'], 'w').close()\nprint('up', flush=True)\n"
        "while not os.path.exists('/data/go-on'): time.sleep(0.02)\n"
        "print(sorted(os.listdir('/data')), [p for p in os.listdir('/proc') if p.isdigit()])"
    )
    both_are_up = threading.Barrier(2, timeout=120)

    def one(number: int) -> list[str]:
        directory = place.directory / str(number)
        directory.mkdir()
        lines: list[str] = []

        def heard(line: str) -> None:
            lines.append(line)
            if line == "up":
                both_are_up.wait()
                (directory / "go-on").touch()

        place.runner.run(place.launch(directory=directory, parameters={"number": str(number)}), output=heard)
        return lines

    with ThreadPoolExecutor(2) as pool:
        expected = [["up", f"['go-on', 'mine-{number}'] ['1']"] for number in range(2)]
        assert list(pool.map(one, range(2))) == expected


@pytest.mark.parametrize("network", [False, True], ids=["none", "asked for"])
def test_there_is_a_network_only_if_the_operator_asks(place: Place, network: bool) -> None:
    place.image(
        "import socket\nroutes = [l.split() for l in open('/proc/net/route').read().splitlines()[1:]]\n"
        "print(sorted({r[0] for r in routes}))\n"
        "gateway = next((r[2] for r in routes if r[1] == '00000000'), None)\n"
        "if gateway:\n"
        "    host = socket.inet_ntoa(bytes.fromhex(gateway)[::-1])\n"
        "    with socket.create_connection((host, 5000), timeout=10) as registry:\n"
        "        registry.sendall(b'GET /v2/ HTTP/1.0\\r\\n\\r\\n')\n        print(registry.recv(100).split(b'\\r')[0])"
    )
    place.run(network=network, timeout_s=30)
    assert place.lines == (["['eth0']", "b'HTTP/1.0 401 Unauthorized'"] if network else ["[]"])


def test_a_file_of_the_archive_cannot_be_altered(place: Place, tmp_path: Path) -> None:
    archived = tmp_path / "archive" / "1.dcm"
    archived.parent.mkdir()
    archived.write_bytes(b"from the scanner")
    archived.chmod(0o444)
    series = place.directory / "batch" / "1.2" / "initial-input"
    series.mkdir(parents=True)
    (series / "1.dcm").hardlink_to(archived)
    place.image(
        "import os\nfile = '/data/batch/1.2/initial-input/1.dcm'\nprint(open(file).read())\n"
        "for call in (lambda: open(file, 'a'), lambda: os.chmod(file, 0o666), lambda: os.truncate(file, 0),\n"
        "             lambda: os.utime(file), lambda: os.chown(file, 1000, 1000)):\n"
        "    try:\n        call()\n        print('done')\n    except PermissionError:\n        print('refused')\n"
        "os.unlink(file)\nopen(file, 'w').write('forged')"
    )
    assert place.runner.isolates
    before = archived.stat()
    place.run()
    assert place.lines == ["from the scanner", *["refused"] * 5]
    assert archived.read_bytes() == b"from the scanner"
    after = archived.stat()
    assert (after.st_mode, after.st_uid, after.st_mtime_ns) == (before.st_mode, before.st_uid, before.st_mtime_ns)


def test_limits_are_those_of_the_launch(place: Place) -> None:
    place.image(_IN_STEPS)
    seen: list[dict[str, object]] = []

    def heard(line: str) -> None:
        if line == "one":
            with place.engine.client() as client:
                seen.append(client.inspect_container(place.containers()[0])["HostConfig"])
            go_on(place, code=0)

    place.runner.run(place.launch(memory_mb=100, cpu=1.5), output=heard)
    assert seen[0]["Memory"] == seen[0]["MemorySwap"] == 100 * 2**20
    assert seen[0]["NanoCpus"] == 1_500_000_000
    assert seen[0]["PidsLimit"] == 4096


def test_gpus_that_the_engine_does_not_have_are_a_configuration_error(place: Place) -> None:
    place.image("print('x')")
    with pytest.raises(ConfigurationError, match=r"GPU|device driver"):
        place.run(gpus=1)
    assert place.containers() == []


def test_an_image_that_starts_nothing_is_a_configuration_error(place: Place) -> None:
    place.image("", entrypoint="[]", end="CMD []\n")
    with pytest.raises(ConfigurationError, match="no ENTRYPOINT and no CMD"):
        place.run()


def test_the_image_digest_is_the_image_id(place: Place) -> None:
    place.image("print(1)")
    first = place.runner.image_digest("made")
    assert first.startswith("sha256:")
    assert place.runner.image_digest(place.reference) == first
    place.image("print(2)")
    assert place.runner.image_digest("made") != first


def test_an_image_that_was_not_built_is_said_with_what_to_do(place: Place) -> None:
    place.write_image("", dockerfile="FROM x\nLABEL org.opencontainers.image.version=1\n")
    for call in (place.run, lambda: place.runner.image_digest("made")):
        with pytest.raises(NotFound, match="kaapana-assets images build made"):
            call()


class Worker:
    """A process that runs a launch, and can be killed."""

    _SCRIPT = """
import sys
from pathlib import Path
from kaapana_assets.settings.user_ids import OPERATOR_UID
from kaapana_assets.containers.docker.runner import DockerRunner
from kaapana_assets.containers.protocol import Launch
images, url, directory, timeout = sys.argv[1:]
DockerRunner(Path(images), url=url, uid=1000, own_uid=0).run(
    Launch(run_id="flow-261123", workflow="flow", operator="made", image="made", directory=Path(directory),
           operator_in_dir="initial-input", operator_out_dir="made-out", timeout_s=float(timeout) or None),
    output=lambda line: print(line, flush=True))
"""

    def __init__(self, place: Place, *, timeout_s: float = 0) -> None:
        given = (place.images, place.engine.url, place.directory, timeout_s)
        arguments = [sys.executable, "-c", self._SCRIPT, *map(str, given)]
        self._process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)

    def killed_after(self, line: str) -> None:
        """End it by SIGKILL when the operator has said this."""
        assert self._process.stdout is not None
        with self._process.stdout:
            for said in self._process.stdout:
                if said.strip() == line:
                    break
            self._process.kill()
            self._process.wait()


_IN_STEPS = (
    "import os, time\nprint('one', flush=True)\nwhile not os.path.exists('/data/go-on'): time.sleep(0.02)\n"
    "print('two')\nraise SystemExit(int(open('/data/go-on').read()))"
)


def go_on(place: Place, *, code: int) -> None:
    staged = place.directory / "staged"
    staged.write_text(str(code))
    staged.rename(place.directory / "go-on")


def has_exited(place: Place) -> bool:
    with place.engine.client() as client:
        return [client.inspect_container(each)["State"]["Status"] for each in place.containers()] == ["exited"]


def runs_for_s(place: Place) -> float:
    """Seconds since the one container started, by the engine's record."""
    with place.engine.client() as client:
        started = client.inspect_container(place.containers()[0])["State"]["StartedAt"]
    moment = datetime.strptime(started[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)
    return (datetime.now(timezone.utc) - moment).total_seconds()


def test_who_takes_over_from_a_killed_worker_goes_on_with_its_container(place: Place) -> None:
    place.image(_IN_STEPS)
    Worker(place).killed_after("one")
    started = place.containers()
    assert len(started) == 1
    assert place.runner.adopts(place.launch())

    def heard(line: str) -> None:
        place.lines.append(line)
        if line == "one":
            assert place.containers() == started
            go_on(place, code=0)

    assert place.runner.run(place.launch(), output=heard) is Outcome.DONE
    assert place.lines == ["one", "two"]
    assert place.containers() == []


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        pytest.param(0, Outcome.DONE, id="done"),
        pytest.param(126, Outcome.SKIPPED, id="skipped"),
        pytest.param(3, None, id="failed"),
    ],
)
def test_a_container_that_ended_unobserved_is_told_unless_it_failed(
    place: Place, code: int, outcome: Outcome | None
) -> None:
    place.image(_IN_STEPS)
    Worker(place).killed_after("one")
    go_on(place, code=code)
    assert until(lambda: has_exited(place))
    assert place.runner.adopts(place.launch()) is (outcome is not None)
    if outcome is None:  # it is done again, from the beginning
        assert place.containers() == []
        go_on(place, code=0)
    assert place.run() is (outcome or Outcome.DONE)
    assert place.lines == ["one", "two"]
    assert place.containers() == []


def test_what_a_killed_worker_left_is_ended_with_its_run(place: Place) -> None:
    place.image(_IN_STEPS)
    Worker(place).killed_after("one")
    place.runner.end_left("flow-261124")  # another run
    assert len(place.containers()) == 1
    place.runner.end_left("flow-261123")
    assert place.containers() == []


def test_the_original_of_a_copied_home_keeps_its_containers(place: Place, tmp_path: Path) -> None:
    place.image(_IN_STEPS)
    Worker(place).killed_after("one")
    copy = DockerRunner(place.images, url=place.engine.url, uid=UID, own_uid=0, home=tmp_path / "copy")
    copy.end_left("flow-261123")
    assert len(place.containers()) == 1
    place.runner.end_left("flow-261123")
    assert place.containers() == []


def test_the_check_names_the_engine(place: Place) -> None:
    product, version = place.runner.check().split()
    assert product.lower() == place.engine.name
    assert version[0].isdigit()


def test_the_container_of_another_launch_in_the_same_place_is_ended(place: Place) -> None:
    place.image(_IN_STEPS)
    Worker(place).killed_after("one")
    assert not place.runner.adopts(place.launch(parameters={"other": "1"}))
    assert place.containers() == []


def test_the_container_of_an_image_that_was_built_anew_is_ended(place: Place) -> None:
    place.image(_IN_STEPS)
    Worker(place).killed_after("one")
    place.image("print('new')")
    assert not place.runner.adopts(place.launch())
    assert place.run() is Outcome.DONE
    assert place.lines == ["new"]


def test_time_before_a_worker_was_killed_counts(place: Place) -> None:
    place.image(_IN_STEPS)
    Worker(place, timeout_s=12).killed_after("one")
    assert until(lambda: runs_for_s(place) > 4)
    began = time.monotonic()
    with pytest.raises(OperatorTimeout, match="12 s\n  one"):
        place.run(timeout_s=12.0)
    assert time.monotonic() - began < 12


def test_an_engine_that_is_not_there_is_named_with_its_setting(tmp_path: Path) -> None:
    runner = DockerRunner(tmp_path, url=f"unix://{tmp_path}/none.sock", uid=UID, own_uid=0, patience_s=0.2)
    launch = Launch(
        run_id="r", workflow="w", operator="o", image="registry.example/a:1", directory=tmp_path,
        operator_in_dir="i", operator_out_dir="o",
    )  # fmt: skip
    for call in (
        runner.check,
        lambda: runner.end_left("r"),
        lambda: runner.image_digest(launch.image),
        lambda: runner.adopts(launch),
        lambda: runner.run(launch, output=print),
    ):
        with pytest.raises(EngineUnavailable, match=r"KAAPANA_DOCKER_URL=unix:///.*none.sock"):
            call()


@pytest.fixture(params=sorted(ENGINES))
def own_place(
    request: pytest.FixtureRequest, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    """With an engine that may be ended."""
    with engine(request.param, tmp_path_factory.mktemp("own")) as own:
        yield Place(tmp_path, own, patience_s=2.0)


def test_an_engine_that_is_away_for_a_while_is_waited_for(own_place: Place) -> None:
    own_place.image(_IN_STEPS)
    own_place.runner = DockerRunner(own_place.images, url=own_place.engine.url, uid=UID, own_uid=0)

    def heard(line: str) -> None:
        own_place.lines.append(line)
        if line == "one":
            own_place.engine.stop()
            threading.Timer(1.0, own_place.engine.start).start()
            threading.Timer(3.0, go_on, [own_place], {"code": 0}).start()

    assert own_place.runner.run(own_place.launch(timeout_s=60), output=heard) is Outcome.DONE
    assert own_place.lines == ["one", "two"]
    assert own_place.containers() == []


def test_an_engine_that_stays_away_leaves_the_container_to_the_next_run(own_place: Place) -> None:
    own_place.image(_IN_STEPS)

    def heard(line: str) -> None:
        if line == "one":
            own_place.engine.stop()

    with pytest.raises(EngineUnavailable, match="KAAPANA_DOCKER_URL"):
        own_place.runner.run(own_place.launch(), output=heard)
    own_place.engine.start()
    assert own_place.runner.adopts(own_place.launch())
    go_on(own_place, code=0)
    assert own_place.run() is Outcome.DONE
    assert own_place.lines == ["one", "two"]


DAG = """
from kaapana_assets.workflows import ContainerOperator, Workflow

study = Workflow(name="study", operators=(ContainerOperator(name="made", image="made"),))
"""


@pytest.mark.parametrize("engine_name", sorted(ENGINES))
def test_an_engine_that_blinks_makes_no_workflow_an_error(
    engine_name: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A run's process that loads its workflows at that moment would refuse its run."""
    with engine(engine_name, tmp_path_factory.mktemp("blinks")) as own:
        place = Place(tmp_path, own, patience_s=60.0)
        place.image("print('made')")
        home = tmp_path / "home"
        dags = home / "workflows" / "dags"
        dags.mkdir(parents=True)
        (dags / "study.py").write_text(DAG)
        before = load_workflow_files(home, place.runner)
        assert "study" in before.workflows
        own.stop()
        back = threading.Timer(1.0, own.start)
        back.start()
        during = load_workflow_files(home, place.runner)
        back.join()
        assert "study" in during.workflows
        assert during.plan.digest == before.plan.digest


def test_images_are_pulled_by_nobody_but_who_is_asked(tmp_path: Path, container_engine: ContainerEngine) -> None:
    place = Place(tmp_path, container_engine, registry=f"{REGISTRY}/group")
    place.write_image("", dockerfile="FROM x\nLABEL org.opencontainers.image.version=1\n")
    for call in (place.run, lambda: place.runner.image_digest("made")):
        with pytest.raises(NotFound, match=f"docker pull {REGISTRY}/group/"):
            call()
