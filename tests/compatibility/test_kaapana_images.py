"""Images in the manner of Kaapana's, of its first and of its present generation, run unmodified.

Each twice: fresh, then with its input taken from the shelf. The Dockerfiles and scripts in ``images/``
are our own; what they do is what those of Kaapana do.
"""

from __future__ import annotations

import pytest
from compatibility.conftest import IMAGES, Platform
from services.container_engine import ContainerEngine
from services.images import BASE_IMAGE

from kaapana_assets.image_builds.base_requirements import BaseRequirements
from kaapana_assets.image_builds.dockerfile_check import relevant_findings
from kaapana_assets.image_builds.folder import image_names, load_image
from kaapana_assets.image_builds.references import reference_of

BASES = BaseRequirements(IMAGES, {"local-only/base-python-cpu": []})
CHAIN = """
from kaapana_assets.workflows import ContainerOperator, Parameter, Workflow

extract = ContainerOperator(name="extract", image="{extract}", output_patterns=("*.json",), parameters=())
count = ContainerOperator(name="count", image="{count}", input_operator=extract, parameters=("again",))
pool = ContainerOperator(name="pool", image="early-pool", input_operator=count, level="cohort", parameters=())
flow = Workflow(name="flow", operators=(extract, count, pool), parameters=(Parameter("again", 1),))
"""
NOTIFY = """
from kaapana_assets.workflows import ContainerOperator, Parameter, Workflow

extract = ContainerOperator(name="extract", image="{extract}", parameters=())
notify = ContainerOperator(name="notify", image="today-notify", input_operator=extract, outputs=None)
last = ContainerOperator(
    name="last", image="today-notify", input_operator=notify, operator_in_dir="extract", level="cohort", outputs=None
)
flow = Workflow(name="flow", operators=(extract, notify, last))
"""
ONE = """
from kaapana_assets.workflows import ContainerOperator, Parameter, Workflow

operator = ContainerOperator(name="read", image="today-packages")
flow = Workflow(name="flow", operators=(operator,), parameters=(Parameter("again", 1),))
"""
PAIRS = [
    pytest.param("early-extract", "early-count", id="early"),
    pytest.param("today-extract", "today-count", id="today"),
]


def check_chain(platform: Platform, mode: str) -> None:
    series = list(platform.series)
    rows = platform.run(mode=mode)
    assert [rows[name]["reused"] for name in ("extract", "count", "pool")] == [[], [], []]
    assert platform.output("pool", "all", "pooled.txt") == "1.2.3.1: 2 files in run 1\n1.2.3.2: 3 files in run 1\n"
    rows = platform.run(mode=mode, parameters={"again": 2})
    assert [rows[name]["reused"] for name in ("extract", "count", "pool")] == [series, [], []]
    assert platform.output("pool", "all", "pooled.txt") == "1.2.3.1: 2 files in run 2\n1.2.3.2: 3 files in run 2\n"
    rows = platform.run(mode=mode, parameters={"again": 2})
    assert [rows[name]["reused"] for name in ("extract", "count", "pool")] == [series, series, ["all"]]


def check_notify(platform: Platform, capfd: pytest.CaptureFixture[str]) -> None:
    for reused in ([], list(platform.series)):
        capfd.readouterr()
        rows = platform.run()
        assert rows["extract"]["reused"] == reused
        said = [line for line in capfd.readouterr().out.splitlines() if line.startswith("to system of admin")]
        each = [f"to system of admin: 1 files of {uid}" for uid in platform.series]
        assert sorted(said) == sorted(each * 2)
        assert (rows["notify"]["done"], rows["notify"]["outputs"], rows["notify"]["files"]) == (
            list(platform.series),
            None,
            0,
        )
        assert rows["last"]["done"] == ["all"]


@pytest.mark.parametrize("mode", ["batch", "single"])
@pytest.mark.parametrize(("extract", "count"), PAIRS)
def test_a_chain_runs_fresh_and_with_reused_inputs(platform: Platform, extract: str, count: str, mode: str) -> None:
    platform.workflow(CHAIN.format(extract=extract, count=count))
    check_chain(platform, mode)


def test_an_operator_that_only_notifies_does_so_in_each_run(
    platform: Platform, capfd: pytest.CaptureFixture[str]
) -> None:
    platform.workflow(NOTIFY.format(extract="today-extract"))
    check_notify(platform, capfd)


def test_the_packages_of_the_dockerfile_are_there(platform: Platform) -> None:
    platform.workflow(ONE)
    for again in (1, 2):
        platform.run(parameters={"again": again})
        for uid in platform.series:
            assert platform.output("read", uid, "found.txt") == f"{uid} 3.0.1 1.16.0"


@pytest.mark.parametrize("name", image_names(IMAGES))
def test_all_that_matters_of_an_image_is_obeyed(name: str) -> None:
    assert relevant_findings(load_image(IMAGES, name), BASES) == ()


@pytest.fixture
def contained(platform: Platform, container_engine: ContainerEngine, monkeypatch: pytest.MonkeyPatch) -> Platform:
    """The platform with its operators in containers; the base images are there under their names."""
    monkeypatch.setenv("KAAPANA_RUNNER", "docker")
    monkeypatch.setenv("KAAPANA_DOCKER_URL", container_engine.url)
    with container_engine.client() as client:
        for repository, tag in (("local-only/base-python-cpu", "latest"), ("python", "3.7-slim")):
            client.tag(BASE_IMAGE, repository, tag)
            client.tag(BASE_IMAGE, f"docker.io/library/{repository}", tag)
    for name in image_names(platform.images):
        if name != "today-packages":  # a build in the engine's own network reaches no package index
            reference = reference_of(platform.images, name, registry="", suffix="")
            container_engine.build(platform.images / name, reference)
    return platform


@pytest.mark.services
@pytest.mark.parametrize(("extract", "count"), PAIRS)
def test_a_chain_runs_in_containers(contained: Platform, extract: str, count: str) -> None:
    contained.workflow(CHAIN.format(extract=extract, count=count))
    check_chain(contained, "batch")


@pytest.mark.services
def test_an_operator_that_only_notifies_does_so_in_containers(
    contained: Platform, capfd: pytest.CaptureFixture[str]
) -> None:
    contained.workflow(NOTIFY.format(extract="today-extract"))
    check_notify(contained, capfd)
