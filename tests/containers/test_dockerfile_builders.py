"""What is read of a Dockerfile is what a real builder makes of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from kaapana_assets.image_builds.folder import load_image

from .image_building import Store

pytestmark = pytest.mark.services

FILES = ("a.py", "b.txt", ".hidden", "sub/c.py", "sub/deep/d.txt", "x y/e.txt")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    if shutil.which("buildah") is None:
        if os.environ.get("REQUIRE_SERVICES") == "1":
            pytest.fail("needs the program buildah (Debian package buildah)")
        pytest.skip("needs the program buildah (Debian package buildah)")
    store = Store(tmp_path_factory.mktemp("store") / "store")
    store.create()
    try:
        yield store
    finally:
        store.remove()


@pytest.mark.parametrize(
    "dockerfile",
    [
        pytest.param(
            "FROM scratch\nCOPY files/ /one/\nCOPY files /two\nCOPY files/* /three/\nCOPY files/*.py files/b.txt /4/\n"
            "COPY files/a.py /five\nCOPY files/a.py /six/\nCOPY files/[^a].txt /seven/\nCOPY files/s?b /eight/\n",
            id="copies",
        ),
        pytest.param("FROM scratch\nCOPY files/ /\nCOPY files/b.txt /a.py\nCOPY files/sub/* /\n", id="to the root"),
        pytest.param(
            "FROM scratch\nWORKDIR /a\nWORKDIR b/../c\nCOPY files/a.py .\nCOPY files/b.txt ./d/\nCOPY files/sub e\n"
            "WORKDIR /x\nCOPY files/a.py /a\nCOPY ../files/b.txt ..\n",
            id="workdirs",
        ),
        pytest.param(
            'FROM scratch\nCOPY ["files/x y/e.txt", "/p q/"]\nCOPY --chown=0:0 files/a.py "/r/s"\n', id="blanks"
        ),
        pytest.param(
            "ARG G=g\nARG H=${G}h\nFROM scratch AS one\nARG G\nARG H=i\nARG J\nENV A=$G B=$H C=${J:-k} D=${J:+l}\n"
            "ENV E=\"$A $B\" F='$A' G=a\\ b\nENV OLD the old form\nENV A=2 K=$A\nENV L=${A:+${K}} M=$NONE N=\\$A\n"
            'LABEL IMAGE="x" VERSION=$A\nLABEL w="a b"\n',
            id="variables",
        ),
        pytest.param(
            "# escape=`\nFROM scratch\nENV A=1 `\n# comment\n\n  B=c `\n    C=3\nENV D=4\n", id="another escape"
        ),
        pytest.param('FROM scratch\nCMD ["b"]\nENTRYPOINT ["a"]\n', id="entry point after the command"),
        pytest.param('FROM scratch AS s\nCMD ["b"]\nFROM s\nENTRYPOINT ["a"]\n', id="entry point of a later stage"),
        pytest.param("FROM scratch\nENTRYPOINT python x.py $A\nCMD y z\n", id="shell forms"),
        pytest.param('FROM scratch\nENTRYPOINT ["a"]\nENTRYPOINT []\nCMD [a]\n', id="taken back, and no list"),
        pytest.param(
            "FROM scratch AS one\nENV A=1\nWORKDIR /w\nCOPY files .\nFROM scratch AS two\nENV B=1\nCOPY files/b.txt /\n"
            "FROM one\nCOPY --from=two b.txt /from/\nCOPY --from=one /w/sub/ /again/\nCOPY --from=0 /w/*.py /star/\n",
            id="stages",
        ),
    ],
)
def test_files_and_configuration_are_those_that_a_builder_makes(store: Store, tmp_path: Path, dockerfile: str) -> None:
    folder = tmp_path / "made"
    for name in FILES:
        (folder / "files" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "files" / name).write_text(name)
    (folder / "Dockerfile").write_text(dockerfile)
    (folder / ".dockerignore").write_text("**/deep\n!files/sub/deep/d.txt\n")
    store.buildah("bud", "--tag", "made", folder)
    stage = load_image(tmp_path, "made").stage
    config = store.configuration("made")["config"]
    assert isinstance(config, dict)
    labels = {name: value for name, value in config.get("Labels", {}).items() if name != "io.buildah.version"}
    environment = dict(each.split("=", 1) for each in config["Env"])
    assert {"PATH": environment["PATH"], **stage.environment} == environment
    assert (list(stage.entrypoint), list(stage.cmd)) == (config.get("Entrypoint") or [], config.get("Cmd") or [])
    assert (stage.workdir, stage.labels) == (config.get("WorkingDir") or "/", labels)
    assert {path: content.read_text() for path, content in stage.tree.files.items()} == files_of(store, "made")


def files_of(store: Store, reference: str) -> dict[str, str]:
    container = store.buildah("from", reference)
    root = Path(store.buildah("mount", container))
    try:
        return {f"/{path.relative_to(root)}": path.read_text() for path in root.rglob("*") if path.is_file()}
    finally:
        store.buildah("rm", container)
