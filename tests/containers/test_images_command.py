"""`kaapana-assets images` without a builder: what it says, lists and refuses."""

from __future__ import annotations

import configparser
import json
import os
import stat
from pathlib import Path

import pytest

from kaapana_assets.errors import ConfigurationError, NotFound
from kaapana_assets.image_builds.builders import checked_options, find_builder
from kaapana_assets.image_builds.folder import base_images, content_digest, has_build_argument, image_names, load_image
from kaapana_assets.image_builds.package_index import secret_files
from kaapana_assets.image_builds.protocol import Build
from kaapana_assets.image_builds.record import BuiltImage, BuiltImages
from kaapana_assets.image_builds.references import reference_of
from kaapana_assets.settings import PROJECT_ROOT

from .image_building import Site

IMAGES = PROJECT_ROOT / "images"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site.at(tmp_path, ["bash-template", "extract-study-id"])


def image_folder(folder: Path, dockerfile: str, name: str = "foreign") -> Path:
    (folder / name / "files").mkdir(parents=True)
    (folder / name / "Dockerfile").write_text(dockerfile)
    return folder


def test_without_a_builder_the_message_says_what_to_install(site: Site, tmp_path: Path) -> None:
    done = site.call("build", PATH=str(tmp_path))
    assert done.returncode == 2
    for text in ("docker: is not on the PATH", "podman: is not", "buildah: is not", "apt-get install buildah"):
        assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_docker_without_a_daemon_is_no_builder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A client that answers for no daemon: what most laptops have beside podman."""
    client = tmp_path / "docker"
    client.write_text("#!/bin/sh\necho 'Cannot connect to the Docker daemon' >&2\nexit 1\n")
    client.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"its daemon does not answer \(Cannot connect"):
        find_builder("docker")
    buildah = tmp_path / "buildah"
    buildah.touch(mode=0o755)
    assert find_builder().name == "buildah"


def test_docker_without_buildkit_is_no_builder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without it there are no secrets in builds; clients before version 23 had it built in."""
    client = tmp_path / "docker"
    client.write_text('#!/bin/sh\n[ "$1" = version ] && echo "$CLIENT 20.10" && exit 0\nexit 1\n')
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    monkeypatch.setenv("CLIENT", "28.2.2")
    with pytest.raises(ConfigurationError, match="buildx is not installed"):
        find_builder("docker")
    monkeypatch.setenv("CLIENT", "20.10.24")
    assert find_builder("docker").name == "docker"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build", "no-such-image"], "no-such-image is not a folder"),
        (["build", "../images"], "not a folder"),
        (["build", "--builder-option", "network"], "--builder-option takes one option with its value"),
        (["push"], "KAAPANA_IMAGE_REGISTRY is not set"),
    ],
    ids=["unknown", "path", "option", "registry"],
)
def test_mistake_ends_with_a_message_and_code_2(site: Site, arguments: list[str], message: str) -> None:
    done = site.call(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_list_shows_what_was_built_and_which_folder_has_changed_since(site: Site) -> None:
    image = load_image(site.images, "extract-study-id")
    built = BuiltImage(
        reference="localhost/extract-study-id:0.1.0",
        name="extract-study-id",
        image_id=f"sha256:{'ab' * 32}",
        content_digest=content_digest(image),
        built_at="2026-01-02T03:04:05+00:00",
    )
    BuiltImages(site.home).add(built)
    lines = [line.split() for line in site.call("list", TZ="UTC").stdout.splitlines()]
    assert lines[0] == ["NAME", "REFERENCE", "BUILT", "ID", "PUSHED", "FOLDER"]
    assert lines[1] == ["bash-template", "localhost/bash-template:0.1.0", "no", "-", "-", "-"]
    assert lines[2][:5] == ["extract-study-id", built.reference, "2026-01-02", "03:04", "abababababab"]
    assert lines[2][5:] == ["no", "as", "built"]
    BuiltImages(site.home).add_repo_digest(built.reference, f"sha256:{'cd' * 32}")
    (image.folder / "files" / "extract.py").write_text("print()\n")
    state = site.states()["extract-study-id"]
    assert (state["changed"], state["repo_digests"]) == (True, [f"sha256:{'cd' * 32}"])
    assert "changed since" in site.call("list").stdout


def test_list_names_a_folder_without_version_and_shows_the_others(site: Site) -> None:
    image_folder(site.images, "FROM scratch\n")
    done = site.call("list")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 4
    assert "needs LABEL org.opencontainers.image.version" in done.stderr
    assert site.states()["foreign"]["problem"]


@pytest.mark.parametrize(
    ("registry", "suffix", "reference"),
    [
        ("", "", "localhost/bash-template:0.1.0"),
        ("registry.example/group", "ukhd", "registry.example/group/bash-template:0.1.0-ukhd"),
        ("registry.example:5000", "", "registry.example:5000/bash-template:0.1.0"),
    ],
)
def test_registry_and_suffix_are_in_the_reference(site: Site, registry: str, suffix: str, reference: str) -> None:
    state = site.states(KAAPANA_IMAGE_REGISTRY=registry, KAAPANA_IMAGE_TAG_SUFFIX=suffix)["bash-template"]
    assert state["reference"] == reference


def test_the_version_label_of_images_of_kaapana_counts(tmp_path: Path) -> None:
    folder = image_folder(
        tmp_path, 'FROM local-only/base-python-cpu:latest\nLABEL IMAGE="foreign"\nLABEL VERSION="1.2.0"\nCMD ["x"]\n'
    )
    assert reference_of(folder, "foreign", registry="", suffix="") == "localhost/foreign:1.2.0"


@pytest.mark.parametrize(
    ("dockerfile", "arguments", "bases"),
    [
        ("ARG BASE_IMAGE=python:3\nFROM ${BASE_IMAGE}\n", {}, ("python:3",)),
        ("ARG BASE_IMAGE=python:3\nFROM ${BASE_IMAGE}\n", {"BASE_IMAGE": "own:1"}, ("own:1",)),
        ("FROM a AS build\nRUN x\nFROM --platform=linux/amd64 b\nCOPY --from=build / /\n", {}, ("a", "b")),
        ("FROM a AS one\nFROM one\nFROM a\n", {}, ("a",)),
        ("FROM scratch\n", {}, ()),
        ("from a as one\nfrom one\n", {}, ("a",)),
    ],
    ids=["default", "given", "two-stages", "named-stage", "scratch", "lower-case"],
)
def test_base_images_are_those_that_stages_begin_with(
    tmp_path: Path, dockerfile: str, arguments: dict[str, str], bases: tuple[str, ...]
) -> None:
    image = load_image(image_folder(tmp_path, dockerfile), "foreign")
    assert base_images(image, arguments) == bases
    assert has_build_argument(image, "BASE_IMAGE") is dockerfile.startswith("ARG")


@pytest.mark.parametrize("name", image_names(IMAGES))
def test_images_here_are_built_the_same_each_time_and_leave_no_configuration_of_pip(name: str) -> None:
    text = (IMAGES / name / "Dockerfile").read_text()
    assert "\nARG SOURCE_DATE_EPOCH=" in text
    assert "--mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=secret,id=ca.pem" in text
    assert has_build_argument(load_image(IMAGES, name), "BASE_IMAGE")


def pip_configuration(files: dict[str, Path]) -> dict[str, str]:
    parser = configparser.RawConfigParser()
    parser.read(files["pip.conf"])
    return dict(parser["global"])


def test_pip_in_a_build_is_told_what_pip_is_told_here(tmp_path: Path) -> None:
    """The environment over the file, addresses of this machine's folders left out, certificates as a file."""
    certificates = tmp_path / "hospital.pem"
    certificates.write_text("certificate\n")
    configuration = tmp_path / "pip.conf"
    configuration.write_text(
        "[global]\nindex-url = https://old.example/simple\nextra-index-url =\n  https://a.example\n  https://b.example\n"
        f"cert = {certificates}\n[install]\nuser = true\nfind-links = /opt/wheels https://wheels.example/\n"
    )
    environment = {
        "HOME": str(tmp_path),
        "XDG_CONFIG_DIRS": str(tmp_path),
        "PIP_CONFIG_FILE": str(configuration),
        "PIP_INDEX_URL": "https://user:100%25@index.example/simple",
        "PIP_USER": "1",
    }
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    files = secret_files(secrets, environment)
    told = pip_configuration(files)
    assert told["index-url"] == "https://user:100%25@index.example/simple"
    assert told["extra-index-url"].split() == ["https://a.example", "https://b.example"]
    assert told["find-links"] == "https://wheels.example/"
    assert told["cert"] == "/run/secrets/ca.pem"
    assert "user" not in told
    assert files["ca.pem"].read_text() == "certificate\n"
    assert stat.S_IMODE(files["pip.conf"].stat().st_mode) == 0o600


def test_pip_that_is_told_nothing_lends_an_empty_configuration(tmp_path: Path) -> None:
    files = secret_files(tmp_path, {"PIP_CONFIG_FILE": "/dev/null"})
    assert list(files) == ["pip.conf"]
    assert pip_configuration(files) == {}


def test_certificates_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"/nowhere/ca\.pem.*No such file"):
        secret_files(tmp_path, {"PIP_CONFIG_FILE": "/dev/null", "PIP_CERT": "/nowhere/ca.pem"})


def test_a_builder_option_without_dash_is_refused() -> None:
    """It would be taken for the folder to build."""
    assert checked_options(["--network=host", "-q"]) == ("--network=host", "-q")
    with pytest.raises(ConfigurationError):
        checked_options(["/"])


def test_no_secret_is_on_a_command_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Other users see arguments; docker takes the values of proxies from the environment."""
    said = tmp_path / "said"
    client = tmp_path / "docker"
    client.write_text(
        '#!/bin/sh\n[ "$1" = version ] && echo "20.10 20.10" && exit 0\n'
        f'printf "%s\\n" "$@" "in the environment: $https_proxy" "$DOCKER_BUILDKIT" > {said}\n'
    )
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("https_proxy", "http://user:secret@proxy.example:3128")
    build = Build(reference="localhost/x:1", context=tmp_path, secrets={"pip.conf": tmp_path / "pip.conf"})
    find_builder("docker").build(build, output=print)
    arguments, environment = said.read_text().split("in the environment: ")
    assert "--build-arg=https_proxy\n" in arguments
    assert f"--secret=id=pip.conf,src={tmp_path / 'pip.conf'}\n" in arguments
    assert "secret@" not in arguments
    assert environment == "http://user:secret@proxy.example:3128\n1\n"


def test_names_are_those_of_folders_with_a_dockerfile(tmp_path: Path) -> None:
    image_folder(tmp_path, "FROM scratch\n")
    (tmp_path / "notes").mkdir()
    assert image_names(tmp_path) == ("foreign",)
    with pytest.raises(NotFound, match="KAAPANA_IMAGES"):
        image_names(tmp_path / "nowhere")


def test_a_damaged_record_is_named(site: Site) -> None:
    (site.home / "images.json").write_text(json.dumps([{"name": "x"}]))
    done = site.call("list")
    assert done.returncode == 2
    assert "images.json is damaged" in done.stderr


CHECKED = """FROM local-only/base-python-cpu:latest
LABEL IMAGE="foreign"
RUN apt-get update && apt-get install -y dcmtk
USER 1000
COPY files/ /kaapana/app/
CMD ["python3", "-u", "/kaapana/app/main.py"]
"""


def test_check_names_each_instruction_that_is_not_applied_and_whether_it_matters(tmp_path: Path) -> None:
    site = Site.at(tmp_path, ["extract-study-id"])
    folder = image_folder(site.images, CHECKED) / "foreign" / "files"
    (folder / "main.py").write_text("open('/kaapana/app/model.txt')\nopen('/data/x')\n")
    (folder / "model.txt").touch()
    done = site.call("check")
    assert (done.returncode, done.stderr) == (0, "")
    first, *rest = done.stdout.split("foreign: ")[0].splitlines()
    assert first == "extract-study-id: runs as it is"
    assert all(line.startswith("  harmless  line ") for line in rest)
    verdict, *lines = done.stdout.split("foreign: ")[1].splitlines()
    assert verdict == "3 of its instructions may be missed on this machine"
    assert [line.split(": ")[0:2] for line in lines] == [
        ["  matters   line 1", "FROM local-only/base-python-cpu:latest"],
        ["  harmless  line 3", "RUN apt-get update"],
        ["  matters   line 3", "RUN apt-get install -y dcmtk"],
        ["  harmless  line 4", "USER 1000"],
        ["  matters   /kaapana/app/main.py", "has /kaapana/app/model.txt in its text, which is not mapped"],
    ]


@pytest.mark.parametrize(
    ("start", "missing"),
    [
        (
            'CMD ["nothing-of-this-name", "x"]',
            "nothing-of-this-name is neither in the image folder nor on this machine",
        ),
        ("CMD nothing-of-this-name /x && true", "nothing-of-this-name is neither in the image folder"),
        ("CMD cd /app && python3 main.py", None),
        ("CMD /app/main.sh", None),
        ('ENV PATH="/app:$PATH"\nCMD ["main.sh"]', None),
        ('CMD ["/usr/local/bin/python3.9", "main.py"]', None),
        ("USER 1", "no ENTRYPOINT and no CMD: give its operators a command"),
    ],
)
def test_check_says_whether_what_is_started_is_there(tmp_path: Path, start: str, missing: str | None) -> None:
    site = Site.at(tmp_path, [])
    folder = image_folder(site.images, f"FROM debian\nCOPY files/ /app/\n{start}\n") / "foreign" / "files"
    (folder / "main.sh").write_text("#!/bin/sh\n")
    done = site.call("check")
    assert done.returncode == 0
    assert (missing or "foreign: runs as it is") in done.stdout


def test_check_knows_the_packages_of_base_images_and_gives_json(tmp_path: Path) -> None:
    site = Site.at(tmp_path, [])
    image_folder(site.images, CHECKED.replace("main.py", "main.sh"))
    told = site.call("check", "foreign", "--json", KAAPANA_BASE_REQUIREMENTS='{"local-only/*": ["six"]}')
    (row,) = json.loads(told.stdout)
    first = row["findings"][0]
    assert (row["name"], first["line"], first["weight"]) == ("foreign", 1, "harmless")
    assert first["reason"].startswith("its packages are those of KAAPANA_BASE_REQUIREMENTS")


@pytest.mark.parametrize(
    ("dockerfile", "said"),
    [
        pytest.param("FROM x\nCOPY absent /\n", "its Dockerfile cannot be built", id="nothing to copy"),
        pytest.param("FROM x\nENV A='\n", "line 2: ", id="unreadable"),
    ],
)
def test_check_ends_with_code_1_for_what_docker_cannot_build(tmp_path: Path, dockerfile: str, said: str) -> None:
    site = Site.at(tmp_path, [])
    image_folder(site.images, dockerfile)
    done = site.call("check")
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
