"""`kaapana-assets images` with real builders and a real registry."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from services import images
from services.plugin import service
from services.running import Running
from services.service import Missing

from kaapana_assets.image_builds.record import BuiltImages

from .image_building import Site, Store

pytestmark = pytest.mark.services

NAMES = ["bash-template", "extract-study-id"]
EXTRACT = "localhost/extract-study-id:0.1.0"


def lacking(what: str) -> None:
    if os.environ.get("REQUIRE_SERVICES") == "1":
        pytest.fail(f"needs {what}")
    pytest.skip(f"needs {what}")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store that has the base image and nothing else."""
    if shutil.which("buildah") is None:
        lacking("the program buildah (Debian package buildah)")
    try:
        base = images.base()
    except Missing as exc:
        lacking(str(exc))
    store = Store(tmp_path_factory.mktemp("store") / "store")
    store.create()
    try:
        store.buildah("pull", "--quiet", f"docker-archive:{base}")
        yield store
    finally:
        store.remove()


def site_on(store: Store, folder: Path, **variables: str) -> Site:
    site = Site.at(folder, NAMES)
    site.variables = {**store.variables, "KAAPANA_BASE_IMAGE": images.BASE_IMAGE, **variables}
    return site


@pytest.fixture(params=["buildah", "podman"])
def builder(request: pytest.FixtureRequest) -> str:
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return str(request.param)


@pytest.fixture
def site(store: Store, tmp_path: Path) -> Site:
    return site_on(store, tmp_path)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with service("registry", tmp_path_factory.mktemp("registry")) as running:
        yield running


def id_of(site: Site, name: str = "extract-study-id") -> str:
    return str(site.states()[name]["image_id"])


def test_images_are_built_once_and_keep_their_id_until_their_folder_changes(
    site: Site, store: Store, builder: str
) -> None:
    first = site.call("build", "--builder", builder)
    assert first.returncode == 0, first.stderr
    assert f"building with {builder}" in first.stdout
    before = {name: id_of(site, name) for name in NAMES}
    assert store.configuration(EXTRACT)["id"] == before["extract-study-id"]
    again = site.call("build", "--builder", builder)
    assert [line.endswith("has not changed") for line in again.stdout.splitlines()[1:]] == [True, True]
    assert {name: id_of(site, name) for name in NAMES} == before
    script = site.images / "extract-study-id" / "files" / "extract.py"
    script.write_text(f"{script.read_text()}\n# {builder}\n")
    assert site.states()["extract-study-id"]["changed"]
    assert site.call("build", "--builder", builder).returncode == 0
    after = {name: id_of(site, name) for name in NAMES}
    assert after["bash-template"] == before["bash-template"]
    assert after["extract-study-id"] != before["extract-study-id"]
    assert not site.states()["extract-study-id"]["changed"]


def test_the_same_content_makes_the_same_image_also_when_built_from_nothing(site: Site, builder: str) -> None:
    """A lost store, or a second machine, must not make all results out of date."""
    assert site.call("build", "extract-study-id", "--builder", "buildah").returncode == 0
    before = id_of(site)
    (site.images / "extract-study-id" / "files" / "__pycache__").mkdir()
    (site.images / "extract-study-id" / "files" / "__pycache__" / "left.pyc").touch()
    (site.images / "extract-study-id" / "files" / "extract.py").touch()
    shutil.rmtree(site.home)
    built = site.call("build", "extract-study-id", "--builder", builder, "--force")
    assert "built in" in built.stdout, built.stderr
    assert id_of(site) == before


def test_an_image_runs_as_nobody_in_particular_on_a_file_system_it_cannot_write(
    site: Site, store: Store, tmp_path: Path
) -> None:
    assert site.call("build").returncode == 0
    for name, entrypoint in {
        "bash-template": ["bash", "main.sh"],
        "extract-study-id": ["python", "extract.py"],
    }.items():
        found = store.configuration(f"localhost/{name}:0.1.0")
        config = found["config"]
        assert (config["User"], config["WorkingDir"], config["Entrypoint"]) == ("1000", "/app", entrypoint)
        assert config["Labels"]["org.opencontainers.image.title"] == name
        assert config["Labels"]["org.opencontainers.image.version"] == "0.1.0"
        assert config["Labels"]["kaapana-assets.content-digest"].startswith("sha256:")
        assert found["created"] == "1980-01-01T00:00:00Z"
    container = store.buildah("from", EXTRACT)
    try:
        root = Path(store.buildah("mount", container))
        for compiled in (root / "app", next(root.glob("usr/**/pydicom"))):
            caches = list(compiled.glob("__pycache__/*.pyc"))
            # PEP 552: checked by the hash of the source, whose time the image does not keep.
            assert caches
            assert {cache.read_bytes()[4] for cache in caches} == {0b11}
        before = {path: path.lstat().st_mtime_ns for path in root.rglob("*")}
        work = tmp_path / "data"
        (work / "batch" / "1.2.3" / "initial-input").mkdir(parents=True)
        for path in (work, *work.rglob("*")):
            path.chmod(0o777)
        variables = {
            "WORKFLOW_DIR": "/data", "BATCH_NAME": "batch", "OPERATOR_IN_DIR": "initial-input",
            "OPERATOR_OUT_DIR": "out", "BATCHES_INPUT_DIR": "/data/batch",
        }  # fmt: skip
        environment = [f"--env={name}={value}" for name, value in variables.items()]
        start = ["python", "/app/extract.py"]
        said = store.output(
            "sh", "-c", '"$@" 2>&1; echo "ended with $?"', "sh",
            "buildah", "run", "--user=1234", f"--volume={work}:/data", *environment, container, "--", *start,
        )  # fmt: skip
        assert "1.2.3" in said
        assert "Permission denied" not in said
        own = {root / name for name in ("data", "etc", "run", "proc", "sys", "dev", "tmp")}
        changed = [
            path for path in root.rglob("*") if before.get(path) != path.lstat().st_mtime_ns
            and not own.intersection([path, *path.parents])
        ]  # fmt: skip
        assert changed == []
    finally:
        store.buildah("rm", container)


def test_what_pip_is_told_is_used_and_not_kept(site: Site, store: Store, tmp_path: Path) -> None:
    """Also with a password in it: neither in a layer nor in the history."""
    configuration = tmp_path / "pip.conf"
    configuration.write_text("[global]\ntrusted-host = told-by-the-site.example\n")
    folder = site.images / "bash-template"
    dockerfile = folder / "Dockerfile"
    dockerfile.write_text(
        dockerfile.read_text().replace("pip install", "pip config list | grep told-by && pip install")
    )
    assert site.call("build", "bash-template", PIP_CONFIG_FILE=str(configuration)).returncode == 0
    saved = tmp_path / "image.tar"
    store.buildah("push", "--quiet", "localhost/bash-template:0.1.0", f"docker-archive:{saved}")
    with tarfile.open(saved) as archive:
        manifest = json.load(archive.extractfile("manifest.json"))
        (described,) = manifest
        assert b"told-by-the-site" not in archive.extractfile(described["Config"]).read()
        for layer in described["Layers"][1:]:
            with tarfile.open(fileobj=archive.extractfile(layer)) as files:
                named = [member.name for member in files]
                assert not {"etc/pip.conf", "run/secrets/ca.pem", "run/secrets/pip.conf"} & set(named)


def test_a_build_that_fails_says_where_and_the_others_are_built(site: Site) -> None:
    dockerfile = site.images / "bash-template" / "Dockerfile"
    dockerfile.write_text(
        dockerfile.read_text().replace("COPY files/", "RUN echo the disk is full; exit 7\nCOPY files/")
    )
    done = site.call("build")
    assert done.returncode == 1
    assert done.stderr.startswith("bash-template: ")
    for said in ("the disk is full", "exit status 7", "logs/images/bash-template.log", "failed: bash-template"):
        assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert EXTRACT in done.stdout
    assert site.states()["bash-template"]["image_id"] is None
    assert "the disk is full" in (site.home / "logs" / "images" / "bash-template.log").read_text()


def test_another_base_image_makes_another_image(site: Site, store: Store) -> None:
    assert site.call("build", "bash-template").returncode == 0
    before = id_of(site, "bash-template")
    container = store.buildah("from", images.BASE_IMAGE)
    store.buildah("config", "--env=OTHER=1", container)
    store.buildah("commit", "--quiet", "--rm", container, "localhost/other-base:1")
    assert "built in" in site.call("build", "bash-template", "--base-image", "localhost/other-base:1").stdout
    assert id_of(site, "bash-template") != before
    refused = site.call("build", "bash-template", "--base-image", "127.0.0.1:9/nothing:1")
    assert refused.returncode == 1
    assert "cannot pull the image 127.0.0.1:9/nothing:1" in refused.stderr


def test_a_base_image_for_a_dockerfile_that_takes_none_is_refused(site: Site) -> None:
    dockerfile = site.images / "bash-template" / "Dockerfile"
    dockerfile.write_text(dockerfile.read_text().replace("ARG BASE_IMAGE", "ARG OTHER").replace("${BASE_", "${OTHER_"))
    done = site.call("build", "bash-template")
    assert done.returncode == 1
    assert "has no ARG BASE_IMAGE" in done.stderr


def test_an_image_written_for_kaapana_is_built_unmodified(site: Site, store: Store) -> None:
    """Its base by the name that it has there, the version in the label VERSION, CMD instead of ENTRYPOINT."""
    folder = site.images / "otsu"
    (folder / "files").mkdir(parents=True)
    (folder / "files" / "otsu.py").write_text("print('otsu')\n")
    (folder / "Dockerfile").write_text(
        "FROM local-only/base-python-cpu:latest\nLABEL IMAGE=otsu\nLABEL VERSION=1.0.0\nLABEL BUILD_IGNORE=False\n"
        'WORKDIR /kaapana/app\nCOPY files/otsu.py /kaapana/app/\nCMD ["python3", "-u", "/kaapana/app/otsu.py"]\n'
    )
    store.buildah("tag", images.BASE_IMAGE, "localhost/local-only/base-python-cpu:latest")
    done = site.call("build", "otsu", KAAPANA_BASE_IMAGE="")
    assert done.returncode == 0, done.stderr
    assert site.states()["otsu"]["reference"] == "localhost/otsu:1.0.0"
    assert store.configuration("localhost/otsu:1.0.0")["config"]["Cmd"][0] == "python3"


def test_a_saved_image_is_the_image(site: Site, store: Store, builder: str, tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    done = site.call("build", "bash-template", "--builder", builder, "--save", str(saved))
    assert done.returncode == 0, done.stderr
    assert [file.name for file in saved.iterdir()] == ["bash-template-0.1.0.tar"]
    with tarfile.open(saved / "bash-template-0.1.0.tar") as archive:
        (described,) = json.load(archive.extractfile("manifest.json"))
    assert described["RepoTags"] == ["localhost/bash-template:0.1.0"]
    assert f"sha256:{described['Config'].removesuffix('.json')}" == id_of(site, "bash-template")
    assert (saved / "bash-template-0.1.0.tar").stat().st_mode & 0o444 == 0o444


def test_a_pushed_image_is_recorded_with_the_digest_that_pulls_it(
    store: Store, registry: Running, builder: str, tmp_path: Path
) -> None:
    site = site_on(store, tmp_path, KAAPANA_IMAGE_TAG_SUFFIX=f"ward.{builder}", **registry.settings)
    reference = f"{registry.settings['KAAPANA_IMAGE_REGISTRY']}/extract-study-id:0.1.0-ward.{builder}"
    early = site.call("push", "extract-study-id", "--insecure", "--builder", builder)
    assert early.returncode == 1
    assert "was not built: kaapana-assets images build extract-study-id" in early.stderr
    assert site.call("build", "extract-study-id", "--builder", builder).returncode == 0
    done = site.call("push", "extract-study-id", "--insecure", "--builder", builder)
    assert done.returncode == 0, done.stderr
    built = BuiltImages(site.home).find(reference)
    assert built is not None
    (digest,) = built.repo_digests
    assert done.stdout == f"extract-study-id: {reference} is {digest}\n"
    assert built.is_run_as(f"{reference.rpartition(':')[0]}@{digest}")
    assert "yes" in site.call("list").stdout.split()
    store.buildah("rmi", reference)
    pulled = store.buildah("pull", "--quiet", "--tls-verify=false", f"{reference.rpartition(':')[0]}@{digest}")
    assert f"sha256:{pulled}" == built.image_id


def test_a_registry_that_does_not_answer_or_has_no_tls_is_named(
    store: Store, registry: Running, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        silent = f"127.0.0.1:{taken.getsockname()[1]}"
    site = site_on(store, tmp_path, KAAPANA_IMAGE_REGISTRY=silent)
    assert site.call("build", "bash-template").returncode == 0
    done = site.call("push", "bash-template")
    assert done.returncode == 1
    assert f"{silent}/bash-template:0.1.0 cannot be pushed" in done.stderr
    assert "refused" in done.stderr
    assert site.call("build", "bash-template", **registry.settings).returncode == 0
    plain = site.call("push", "bash-template", **registry.settings)
    assert plain.returncode == 1
    assert "HTTP" in plain.stderr
    assert "Traceback" not in plain.stderr
