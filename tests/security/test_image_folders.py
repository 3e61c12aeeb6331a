"""Nothing from outside of an image folder gets into a build, a digest or an environment of packages."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kaapana_assets.containers.process.runner import ProcessRunner
from kaapana_assets.errors import ConfigurationError
from kaapana_assets.image_builds.build import BuildOptions, ImageFolders, build_image
from kaapana_assets.image_builds.files import ImageFile, image_files
from kaapana_assets.image_builds.folder import content_digest, load_image
from kaapana_assets.image_builds.protocol import Build, StoredImage
from kaapana_assets.image_builds.record import BuiltImages

SECRET = "root-only-secret"
DOCKERFILE = 'FROM scratch\nLABEL VERSION=1\nCOPY files/ /app/\nENTRYPOINT ["python", "/app/main.py"]\n'


class RecordingBuilder:
    """A builder that keeps what it was given, as a store of images does."""

    name = "recording"

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.labels: dict[str, str] | None = None

    def find(self, reference: str) -> StoredImage | None:
        return None if self.labels is None else StoredImage(image_id="sha256:1", labels=self.labels)

    def pull(self, reference: str) -> None:
        raise AssertionError(reference)

    def build(self, build: Build, *, output: Callable[[str], None]) -> None:
        for path in build.context.rglob("*"):
            assert not path.is_symlink()
            if path.is_file():
                self.files[path.relative_to(build.context).as_posix()] = path.read_bytes()
        self.labels = dict(build.labels)

    def push(self, reference: str, *, insecure: bool) -> str:
        raise AssertionError(reference)

    def save(self, reference: str, file: Path) -> None:
        raise AssertionError(reference)


class Site:
    def __init__(self, folder: Path) -> None:
        self.folder, self.images, self.image = folder, folder / "images", folder / "images" / "made"
        self.outside = folder / "outside"
        self.outside.mkdir()
        (self.outside / "secret.txt").write_text(SECRET)
        self.write("Dockerfile", DOCKERFILE)
        self.write("files/main.py", "print('ran')")
        self.builder = RecordingBuilder()

    def write(self, name: str, text: str) -> None:
        path = self.image / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def build(self) -> None:
        build_image(
            "made",
            folders=ImageFolders(images=self.images),
            builder=self.builder,
            record=BuiltImages(self.folder / "home"),
            options=BuildOptions(),
            output=[].append,
        )

    def digest(self) -> str:
        return content_digest(load_image(self.images, "made"))

    def runner(self) -> ProcessRunner:
        return ProcessRunner(self.images, self.folder / "environments")

    def fingerprint(self) -> str:
        return self.runner().image_digest("made")

    def prepare(self) -> None:
        self.runner().prepare("made", output=[].append)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    (tmp_path / "home").mkdir()
    return Site(tmp_path)


def _two_loops(site: Site) -> str:
    (site.image / "files" / "a").symlink_to(".")
    (site.image / "files" / "b").symlink_to(".")
    return "is a link"


def _link(name: str, target: str) -> Callable[[Site], str]:
    def attack(site: Site) -> str:
        (site.image / name).unlink(missing_ok=True)
        (site.image / name).symlink_to(site.folder / target)
        return f"{name} is a link"

    return attack


def _pipe(site: Site) -> str:
    os.mkfifo(site.image / "files" / "pipe")
    return "files/pipe is a pipe"


def _socket(site: Site) -> str:
    with socket.socket(socket.AF_UNIX) as listening:
        before = Path.cwd()
        os.chdir(site.image / "files")  # names of sockets are short
        try:
            listening.bind("s")
        finally:
            os.chdir(before)
    return "files/s is a socket"


def _deep(site: Site) -> str:
    folder = site.image / "files"
    held = os.open(folder, os.O_RDONLY)
    for _ in range(100):
        os.mkdir("d", dir_fd=held)
        inner = os.open("d", os.O_RDONLY, dir_fd=held)
        os.close(held)
        held = inner
    os.close(held)
    return "more than 64 folders deep"


ATTACKS = {
    "link to a file": _link("files/notes.txt", "outside/secret.txt"),
    "link to a folder": _link("files/more", "outside"),
    "link to a file of the image": _link("files/again.py", "images/made/files/main.py"),
    "dangling link": _link("files/gone", "outside/nothing"),
    "two links to here": _two_loops,
    "pipe": _pipe,
    "socket": _socket,
    "100 folders": _deep,
    "the Dockerfile": _link("Dockerfile", "outside/secret.txt"),
    "requirements": _link("requirements.txt", "outside/secret.txt"),
    ".dockerignore": _link(".dockerignore", "outside/secret.txt"),
}


@pytest.mark.parametrize("door", ["build", "digest", "fingerprint", "prepare"])
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_what_is_no_regular_file_is_refused_by_name(site: Site, attack: Callable[[Site], str], door: str) -> None:
    said = attack(site)
    with pytest.raises(ConfigurationError, match=said) as refused:
        getattr(site, door)()
    assert SECRET not in str(refused.value)
    assert not site.builder.files


def test_an_image_folder_that_is_a_link_is_refused(site: Site) -> None:
    site.image.rename(site.folder / "elsewhere")
    site.image.symlink_to(site.folder / "elsewhere")
    with pytest.raises(ConfigurationError, match="made is a link"):
        site.build()


def _swap_file(site: Site) -> None:
    (site.image / "files" / "main.py").unlink()
    (site.image / "files" / "main.py").symlink_to(site.outside / "secret.txt")


def _swap_folder(site: Site) -> None:
    (site.outside / "main.py").write_text(SECRET)
    (site.image / "files").rename(site.folder / "files")
    (site.image / "files").symlink_to(site.outside)


def _swap_image(site: Site) -> None:
    site.image.rename(site.folder / "elsewhere")
    (site.outside / "files").mkdir()
    (site.outside / "files" / "main.py").write_text(SECRET)
    site.image.symlink_to(site.outside)


def _swap_pipe(site: Site) -> None:
    (site.image / "files" / "main.py").unlink()
    os.mkfifo(site.image / "files" / "main.py")


@pytest.mark.parametrize("swap", [_swap_file, _swap_folder, _swap_image, _swap_pipe])
def test_what_is_swapped_in_after_the_list_was_made_is_not_read(site: Site, swap: Callable[[Site], None]) -> None:
    file: ImageFile = next(each for each in image_files(site.image) if each.name == "files/main.py")
    swap(site)
    with pytest.raises(ConfigurationError, match=r"main\.py is a (link|pipe)"):
        file.open()


def test_a_link_swapped_while_builds_go_on_never_gets_into_one(site: Site) -> None:
    """Another process sets and removes links as fast as it can; builds either fail or hold no secret."""
    other = site.image / "files" / "main.py"
    program = (
        "import os, sys\nname, secret = sys.argv[1:]\nwhile True:\n"
        "    os.symlink(secret, name + '.new'); os.rename(name + '.new', name)\n"
        "    open(name + '.new', 'w').write('print(1)'); os.rename(name + '.new', name)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(other), str(site.outside / "secret.txt")]) as swapping:
        try:
            for _ in range(150):
                site.builder.labels = None
                try:
                    site.build()
                except ConfigurationError as exc:
                    assert SECRET not in str(exc)
                assert SECRET.encode() not in b"".join(site.builder.files.values())
        finally:
            swapping.kill()


def test_what_dockerignore_names_may_be_a_link_and_is_not_read(site: Site) -> None:
    site.write(".dockerignore", ".venv\n")
    (site.image / ".venv").mkdir()
    (site.image / ".venv" / "python").symlink_to(site.outside / "secret.txt")
    site.build()
    assert set(site.builder.files) == {".dockerignore", "Dockerfile", "files/main.py"}


@pytest.mark.parametrize(
    "line",
    [
        "-r {}",
        "-c {}",
        "-r{}",
        "--requirement={}",
        "-r {} -r {}",
        "made @ file://{}",
        "made @ {}",
        "made @ \\\n {}",
        "{}",
        "-e {}",
        "--find-links={}",
        "git+file://{}",
        "made @ ../../outside/secret.txt",
        "-r ${{HOME}}/x",
        "made @ ${{HOME}}/x",
    ],
)
@pytest.mark.parametrize("door", ["beside the Dockerfile", "in the Dockerfile"])
def test_requirements_lead_to_no_file_outside(site: Site, line: str, door: str) -> None:
    site.write("requirements.txt", line.format(*[site.outside / "secret.txt"] * 2) + "\n")
    if door == "in the Dockerfile":
        site.write("Dockerfile", DOCKERFILE + "COPY requirements.txt /r.txt\nRUN pip install -r /r.txt\n")
    said: list[str] = []
    try:
        site.runner().prepare("made", output=said.append)
    except ConfigurationError as exc:
        said.append(str(exc))
    else:  # read within the image, where no such file is
        assert load_image(site.images, "made").stage.findings
    assert SECRET not in json.dumps(said)


@pytest.mark.parametrize(
    "line",
    [
        "-f{}",
        "-e{}",
        "--find-links '{}'",
        '-f "{}"',
        "made @ fi\\\nle://{}",
        "made @ fi\\\r\nle://{}",
        "made @ sub/../../outside/secret.txt",
        "-e sub/../../outside",
        "sub/../..",
        "--pre -fsub/../../outside",
    ],
)
def test_requirements_that_hide_where_they_lead_are_refused(site: Site, line: str) -> None:
    site.write("requirements.txt", line.format(site.outside / "secret.txt") + "\n")
    with pytest.raises(ConfigurationError, match="leads out of the image folder"):
        site.runner().prepare("made", output=lambda _: None)
