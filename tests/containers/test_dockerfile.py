"""Dockerfiles are read as Docker reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from kaapana_assets.errors import ConfigurationError
from kaapana_assets.image_builds.dockerfile.findings import Severity
from kaapana_assets.image_builds.folder import Image, load_image


def image_of(folder: Path, dockerfile: str, **files: str) -> Image:
    """An image folder with the files ``files/{a.py,b.txt,.hidden,sub/c.py}`` and those given."""
    own = folder / "made"
    for name in ("files/a.py", "files/b.txt", "files/.hidden", "files/sub/c.py", *files):
        path = own / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files.get(name, name))
    (own / "Dockerfile").write_text(dockerfile)
    return load_image(folder, "made")


ALL = {"/.hidden", "/a.py", "/b.txt", "/sub/c.py"}


@pytest.mark.parametrize(
    ("copies", "expected"),
    [
        pytest.param("COPY files/a.py /", {"/a.py"}, id="file to the root"),
        pytest.param("COPY files/ /", ALL, id="folder to the root"),
        pytest.param("COPY files /", ALL, id="folder without slash to the root"),
        pytest.param("COPY files/ /app/", {f"/app{each}" for each in ALL}, id="folder"),
        pytest.param("COPY files/* /app/", {"/app/.hidden", "/app/a.py", "/app/b.txt", "/app/c.py"}, id="all in it"),
        pytest.param("COPY files/*.py files/b.txt /app/", {"/app/a.py", "/app/b.txt"}, id="several sources"),
        pytest.param("COPY files/?.py /app/", {"/app/a.py"}, id="question mark"),
        pytest.param("COPY files/[^a].txt /x/", {"/x/b.txt"}, id="not in a class"),
        pytest.param("COPY files/a.py /app", {"/app"}, id="file renamed"),
        pytest.param("WORKDIR /app\nCOPY files/a.py /app", {"/app/a.py"}, id="file into a folder that is there"),
        pytest.param("WORKDIR /app\nCOPY files/a.py .", {"/app/a.py"}, id="to here"),
        pytest.param("WORKDIR /app\nCOPY files/a.py ./", {"/app/a.py"}, id="to here with a slash"),
        pytest.param("WORKDIR /app\nWORKDIR src\nCOPY files/a.py x.py", {"/app/src/x.py"}, id="relative workdirs"),
        pytest.param("WORKDIR /a\nWORKDIR ../b\nCOPY files/a.py .", {"/b/a.py"}, id="a workdir upwards"),
        pytest.param('WORKDIR "/a b"\nCOPY files/a.py .', {"/a b/a.py"}, id="a workdir in quotes"),
        pytest.param('COPY ["files/a.py", "/a b/"]', {"/a b/a.py"}, id="as a list"),
        pytest.param("COPY --chown=1:1 --chmod=755 files/a.py /app/", {"/app/a.py"}, id="options"),
        pytest.param("COPY ../../files/a.py /x", {"/x"}, id="nothing is above the context"),
        pytest.param("ADD files/a.py /app/", {"/app/a.py"}, id="add"),
        pytest.param("COPY files/ /app/\nCOPY files/b.txt /app/a.py", {f"/app{each}" for each in ALL}, id="over"),
        pytest.param("COPY <<EOF /app/made.txt\nhello\nEOF", {"/app/made.txt"}, id="here-document"),
        pytest.param("COPY <<one <<two /app/\n1\none\n2\ntwo", {"/app/one", "/app/two"}, id="two here-documents"),
        pytest.param("COPY files/ /app/\nRUN rm -rf /app/sub", {"/app/.hidden", "/app/a.py", "/app/b.txt"}, id="rm"),
    ],
)
def test_files_are_copied_where_docker_copies_them(tmp_path: Path, copies: str, expected: set[str]) -> None:
    assert set(image_of(tmp_path, f"FROM x\n{copies}\n").stage.tree.files) == expected


@pytest.mark.parametrize(
    ("ignored", "left"),
    [
        pytest.param("files/*.txt\n", {"/.hidden", "/a.py", "/sub/c.py"}, id="glob"),
        pytest.param("**/*.py\n!files/a.py\n", {"/.hidden", "/a.py", "/b.txt"}, id="exception"),
        pytest.param("# all\nfiles/sub\n", {"/.hidden", "/a.py", "/b.txt"}, id="folder and comment"),
        pytest.param("*.py\n", ALL, id="only at the top"),
    ],
)
def test_what_dockerignore_names_is_not_copied(tmp_path: Path, ignored: str, left: set[str]) -> None:
    image = image_of(tmp_path, "FROM x\nCOPY files/ /\n", **{".dockerignore": ignored})
    assert set(image.stage.tree.files) == left


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param("ENV A=1 B=two C='three words' D=\"$HOME_OF\"", "1|two|three words|", id="several"),
        pytest.param("ENV A old form", "old form|||", id="old form"),
        pytest.param("ENV A=1\nENV A=2 B=$A C=${A}x D=\\$A", "2|1|1x|$A", id="of the line before"),
        pytest.param("ENV A=${N:-d} B=${N:+s} C=${N-d}", "d||d|", id="not set"),
        pytest.param("ENV N=x A=\nENV A=${N:-d} B=${N:+s} C=${A:-${N}y}", "x|s|xy|", id="set"),
        pytest.param("ENV A=/a\\\n# between\n\n/b B=1", "/a/b|1||", id="continued over a comment"),
        pytest.param("ARG N=1\nARG M\nENV A=$N B=$M C=$G", "1|||", id="arguments"),
        pytest.param("ARG G\nENV A=$G B=${G:-x}", "global|global||", id="global argument"),
        pytest.param("ARG A=1\nENV A=2\nENV B=$A", "2|2||", id="variables go over arguments"),
        pytest.param("ENV A='$N' B=\"a b\" C=a\\ b", "$N|a b|a b|", id="quotes"),
        pytest.param("env A=1\nEnv B=2", "1|2||", id="keywords in any case"),
    ],
)
def test_variables_are_replaced_as_docker_does(tmp_path: Path, lines: str, expected: str) -> None:
    environment = image_of(tmp_path, f"ARG G=global\nFROM x\n{lines}\n").stage.environment
    assert "|".join(environment.get(name, "") for name in "ABCD") == expected


def test_another_character_may_escape(tmp_path: Path) -> None:
    image = image_of(tmp_path, "# syntax=x\n# escape=`\nFROM x\nENV A=a`\nb B=c:\\d C=`$A\n")
    assert image.stage.environment == {"A": "ab", "B": "c:\\d", "C": "$A"}


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param('CMD ["python3", "-u", "/app/x.py"]', ("python3", "-u", "/app/x.py"), id="list"),
        pytest.param("CMD python3 -u $X", ("/bin/sh", "-c", "python3 -u $X"), id="shell"),
        pytest.param("CMD [python3]", ("/bin/sh", "-c", "[python3]"), id="no list"),
        pytest.param('ENTRYPOINT ["a"]\nCMD ["b"]', ("a", "b"), id="arguments of the entry point"),
        pytest.param('CMD ["b"]\nENTRYPOINT ["a"]', ("a", "b"), id="in the other order"),
        pytest.param('ENTRYPOINT ["a"]\nCMD b c', ("a", "/bin/sh", "-c", "b c"), id="shell after a list"),
        pytest.param("ENTRYPOINT a b", ("/bin/sh", "-c", "a b"), id="shell entry point"),
        pytest.param('SHELL ["/bin/bash", "-e", "-c"]\nCMD a', ("/bin/bash", "-e", "-c", "a"), id="another shell"),
        pytest.param('ENTRYPOINT ["a"]\nENTRYPOINT []\nCMD ["b"]', ("b",), id="taken back"),
        pytest.param('CMD ["a"]\nCMD ["b"]', ("b",), id="the last counts"),
    ],
)
def test_an_image_starts_as_docker_starts_it(tmp_path: Path, lines: str, expected: tuple[str, ...]) -> None:
    assert image_of(tmp_path, f"FROM x\n{lines}\n").start_arguments(None) == expected


def test_an_entry_point_clears_the_command_of_the_stage_before_it(tmp_path: Path) -> None:
    image = image_of(tmp_path, 'FROM x AS one\nCMD ["b"]\nFROM one\nENTRYPOINT ["a"]\n')
    assert image.start_arguments(None) == ("a",)


def test_a_stage_may_begin_with_another_and_copy_from_one(tmp_path: Path) -> None:
    image = image_of(
        tmp_path,
        "FROM x AS One\nWORKDIR /build\nCOPY files/ .\nENV A=1\nFROM y AS two\nENV A=2\nFROM one\n"
        "COPY --from=one /build/sub/ /app/\nCOPY --from=1 build /none/\nCOPY --from=0 /build/*.py /py/\n",
    )
    assert image.stage.environment == {"A": "1"}
    assert {"/app/c.py", "/py/a.py", "/build/b.txt"} <= set(image.stage.tree.files)
    assert image.stage.base == "x"
    (finding,) = image.stage.findings
    assert (finding.line, finding.severity) == (9, Severity.MATTERS)


R = {"files/requirements.txt": "six==1.16.0\n-r more.txt\n-c limits.txt\n", "files/more.txt": "# no\nidna\n"}
R |= {"files/limits.txt": "idna<4\n", "p/setup.py": "", "p/x/pyproject.toml": ""}


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param("RUN pip install a==1 b", [("a==1", "b")], id="names"),
        pytest.param("RUN python3 -m pip install --no-cache-dir -q 'a>=1'", [("a>=1",)], id="module"),
        pytest.param("RUN uv pip install --system a", [("a",)], id="uv"),
        pytest.param("RUN python -m uv pip install a", [("a",)], id="uv as a module"),
        pytest.param("RUN /opt/venv/bin/pip3 install a", [("a",)], id="pip of a path"),
        pytest.param('RUN ["pip", "install", "a"]', [("a",)], id="list"),
        pytest.param(
            "RUN pip install --upgrade pip && pip install a \\\n  && pip install b", [("a",), ("b",)], id="chain"
        ),
        pytest.param("RUN apt-get update; pip install a", [("a",)], id="among others"),
        pytest.param("RUN pip install a > /log 2>&1 || true", [("a",)], id="redirected"),
        pytest.param("RUN <<EOF\npip install a \\\n  b\npip install c\nEOF", [("a", "b"), ("c",)], id="here-document"),
        pytest.param("ARG V=2\nRUN pip install a==$V b==${V}", [("a==2", "b==2")], id="argument"),
        pytest.param("RUN --mount=type=cache,target=/x pip install a", [("a",)], id="mount"),
        pytest.param("RUN pip install pip wheel", [("wheel",)], id="pip itself is left out"),
        pytest.param("COPY files/ /tmp/\nRUN pip install -r /tmp/more.txt", [("# no", "idna")], id="file"),
        pytest.param("WORKDIR /x\nCOPY files/ .\nRUN pip install -rmore.txt", [("# no", "idna")], id="relative file"),
        pytest.param(
            "COPY files/ /t/\nRUN cd /t && pip install --requirement=requirements.txt",
            [("six==1.16.0", "# no", "idna")],
            id="file that names others",
        ),
        pytest.param("COPY files/ /t/\nRUN pip install -c /t/limits.txt idna --no-deps", [("idna",)], id="constraints"),
        pytest.param("WORKDIR /t\nCOPY p .\nRUN pip install -e . ./x[y]", [("/t/x[y]", "--editable /t")], id="paths"),
        pytest.param(
            "FROM y AS b\nRUN pip install a\nFROM z\nCOPY --from=b /opt/venv /opt/venv", [("a",)], id="of a stage"
        ),
    ],
)
def test_python_packages_of_a_run_are_installed(tmp_path: Path, lines: str, expected: list[tuple[str, ...]]) -> None:
    image = image_of(tmp_path, f"FROM x\n{lines}\n", **R)
    assert [packages.lines for packages in image.packages()] == expected
    assert [finding for finding in image.stage.findings if finding.severity is not Severity.HARMLESS] == []


def test_constraints_and_options_are_those_of_their_command(tmp_path: Path) -> None:
    run = "RUN pip install -c /t/limits.txt -U -i http://x/simple idna && pip install -r /t/requirements.txt"
    first, second = image_of(tmp_path, f"FROM x\nCOPY files/ /t/\n{run}\n", **R).packages()
    assert first.options == ("--upgrade", "--index-url", "http://x/simple")
    assert (first.constraints, second.constraints, second.options) == (("idna<4",), ("idna<4",), ())


def test_the_requirements_of_the_folder_count_once(tmp_path: Path) -> None:
    used = "FROM x\nCOPY requirements.txt /tmp/r.txt\nRUN pip install -r /tmp/r.txt\n"
    assert len(image_of(tmp_path, used, **{"requirements.txt": "six\n"}).packages()) == 1
    left_out = "FROM x\nRUN pip install idna\n"
    assert [each.lines for each in image_of(tmp_path, left_out).packages()] == [("six",), ("idna",)]


@pytest.mark.parametrize(
    ("line", "severity", "said"),
    [
        pytest.param(
            "RUN apt-get update && apt-get install -y dcmtk git", Severity.MATTERS, "dcmtk, git", id="apt-get"
        ),
        pytest.param("RUN apk add --no-cache bash", Severity.MATTERS, "bash", id="apk"),
        pytest.param("RUN wget http://x/y.zip", Severity.MATTERS, "is not run", id="wget"),
        pytest.param("RUN for i in a b; do pip install $i; done", Severity.MATTERS, "is not run", id="loop"),
        pytest.param("RUN pip install $(cat x)", Severity.MATTERS, "is not run", id="substitution"),
        pytest.param("RUN pip install --frobnicate x", Severity.MATTERS, "--frobnicate is not supported", id="option"),
        pytest.param(
            "RUN pip install -c https://x/c.txt idna", Severity.MATTERS, "https://x/c.txt is not read", id="web"
        ),
        pytest.param(
            "RUN pip install -r /nothing.txt", Severity.MATTERS, "/nothing.txt is not available", id="no file"
        ),
        pytest.param("RUN pip install -e /src", Severity.MATTERS, "/src is no Python project", id="no project"),
        pytest.param(
            "RUN pip uninstall -y torch", Severity.HARMLESS, "only the packages that are asked for", id="uninstall"
        ),
        pytest.param("RUN python3 <<EOF\nprint()\nEOF", Severity.MATTERS, "is not run", id="script"),
        pytest.param("ADD https://x/y /app/", Severity.MATTERS, "not fetched", id="address"),
        pytest.param("ADD files/x.tar.gz /app/", Severity.MATTERS, "not unpacked", id="archive"),
        pytest.param(
            "COPY --from=other/image:1 /x /x", Severity.MATTERS, "other/image:1 are not available", id="image"
        ),
        pytest.param("COPY files/none /x", Severity.ERROR, "files/none is not in the image folder", id="no source"),
        pytest.param("COPY --exclude=*.py files/ /x", Severity.MATTERS, "not supported", id="exclude"),
        pytest.param("FRO x", Severity.ERROR, "knows no such instruction", id="mistyped"),
        pytest.param("USER 1000", Severity.HARMLESS, "user of the platform", id="USER"),
        pytest.param("VOLUME /x", Severity.HARMLESS, "folder", id="VOLUME"),
        pytest.param("HEALTHCHECK --interval=1s CMD x", Severity.HARMLESS, "health", id="HEALTHCHECK"),
        pytest.param("EXPOSE 80", Severity.HARMLESS, "network", id="EXPOSE"),
        pytest.param("STOPSIGNAL 9", Severity.HARMLESS, "SIGTERM", id="STOPSIGNAL"),
        pytest.param("RUN useradd x", Severity.HARMLESS, "user of the platform", id="useradd"),
        pytest.param("RUN rm -rf /var/lib/apt/lists/*", Severity.HARMLESS, "no file of that name", id="rm"),
        pytest.param("RUN apt-get clean", Severity.HARMLESS, "installs nothing", id="apt-get clean"),
        pytest.param("RUN python -m venv /opt/venv", Severity.HARMLESS, "environment of its own", id="venv"),
    ],
)
def test_an_instruction_that_is_not_applied_is_a_finding_with_its_line(
    tmp_path: Path, line: str, severity: Severity, said: str
) -> None:
    found = image_of(tmp_path, f"FROM x\n\n{line}\n").stage.findings
    (finding,) = [each for each in found if said in each.reason]
    assert (finding.line, finding.severity) == (3, severity)


def test_modes_are_those_of_the_dockerfile(tmp_path: Path) -> None:
    image = image_of(
        tmp_path,
        "FROM x\nCOPY --chmod=700 files/ /app/\nRUN mkdir -p /out && chmod 644 /app/b.txt && chmod +x /app/*.py\n",
    )
    modes = {path: content.mode for path, content in image.stage.tree.files.items()}
    assert modes == {"/app/.hidden": 0o700, "/app/a.py": 0o755, "/app/b.txt": 0o644, "/app/sub/c.py": 0o700}
    assert "/out" in image.stage.tree.folders
    assert image.stage.findings == ()


@pytest.mark.parametrize(
    ("dockerfile", "said"),
    [
        pytest.param("FROM x\nCOPY <<EOF /x\nno end\n", "here-document EOF has no end", id="here-document"),
        pytest.param('FROM x\nENV A="x\n', "line 2: .*quote without an end", id="quote"),
        pytest.param("FROM x\nENV A=${B^^}\n", r"line 2: .*\$\{B\^\^\}.*not supported", id="modifier"),
        pytest.param("FROM x\nENV A=${B:?is needed}\n", "line 2: .*B, which has no value: is needed", id="needed"),
        pytest.param("FROM x\nCOPY x\n", "line 2: COPY takes a source and a target", id="one word"),
        pytest.param("# escape=x\nFROM x\n", "escape", id="escape"),
    ],
)
def test_a_dockerfile_that_cannot_be_read_is_said_with_its_line(tmp_path: Path, dockerfile: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"image made: .*Dockerfile.*{said}"):
        _ = image_of(tmp_path, dockerfile).stage
