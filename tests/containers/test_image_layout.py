"""The process runner lays out the files of an image and turns its absolute paths to them."""

from __future__ import annotations

from pathlib import Path

import pytest

from kaapana_assets.containers.process.runner import ProcessRunner
from kaapana_assets.containers.protocol import Outcome
from kaapana_assets.errors import ConfigurationError, OperatorFailed
from kaapana_assets.image_builds.base_requirements import BaseRequirements
from kaapana_assets.settings import load_settings

from .runner_contract import Place as ContractPlace


class Place(ContractPlace):
    def __init__(self, folder: Path, bases: BaseRequirements | None = None) -> None:
        super().__init__(folder)
        self.runner = ProcessRunner(self.images, load_settings().environments, bases=bases, grace_s=1.0)

    def write(self, dockerfile: str, **files: str) -> Path:
        self.write_image("print('ran')", dockerfile=dockerfile)
        for name, text in files.items():
            path = self.images / "made" / "files" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return self.images / "made"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize(
    "dockerfile",
    [
        pytest.param('COPY files/main.py /\nCMD ["python3", "/main.py"]', id="file of the root"),
        pytest.param('COPY files/ /\nWORKDIR /\nCMD ["python3", "-u", "main.py"]', id="folder to the root"),
        pytest.param("WORKDIR /kaapana/app\nCOPY files/*.py /kaapana/app/\nCMD python3 -u main.py", id="shell form"),
        pytest.param("COPY files/ /kaapana/app/\nCMD python3 /kaapana/app/main.py && true", id="path in a shell form"),
        pytest.param('COPY files/ /app/\nENTRYPOINT ["/usr/bin/python3"]\nCMD ["/app/main.py"]', id="own interpreter"),
        pytest.param('COPY files/ /app/\nCMD ["/opt/venv/bin/python", "/app/main.py"]', id="interpreter of a venv"),
        pytest.param('COPY files/ /app/\nCMD ["python3.9", "/app/main.py"]', id="interpreter of a version"),
        pytest.param('COPY files/ /app\nENV S=/app/main.py\nCMD ["sh", "-c", "python $S"]', id="variable"),
        pytest.param('COPY files/ /app\nCMD ["bash", "-ec", "cd /app; python main.py"]', id="path in an argument"),
        pytest.param(
            'COPY --chmod=755 files/run /usr/local/bin/\nCOPY files/ /app\nCMD ["run"]', id="program of the image"
        ),
        pytest.param('COPY files/run /r\nCOPY files/ /app\nRUN chmod +x /r\nENTRYPOINT ["/r"]', id="made executable"),
        pytest.param('COPY files/ /src\nWORKDIR /src\nWORKDIR ../src\nCMD ["python", "./main.py"]', id="workdirs"),
    ],
)
def test_an_image_runs_as_it_is(place: Place, dockerfile: str) -> None:
    place.write(f"FROM x\n{dockerfile}\n", run="#!/bin/sh\necho ran\n")
    assert place.run() is Outcome.DONE
    assert place.lines[-1] == "ran"


def test_a_search_path_of_several_folders_is_turned(place: Place) -> None:
    script = "import lib.one, two; print(lib.one.X, two.X)"
    place.write(
        'FROM x\nCOPY files/ /kaapana/app/\nENV PYTHONPATH="/kaapana/app:/kaapana/app/more:$PYTHONPATH"\n'
        'CMD ["python3", "/kaapana/app/main.py"]\n',
        **{"lib/one.py": "X = 1", "more/two.py": "X = 2"},
    )
    (place.images / "made" / "files" / "main.py").write_text(script)
    place.run()
    assert place.lines[-1] == "1 2"


def test_each_launch_has_files_of_its_own(place: Place) -> None:
    """In a container nothing is left of an earlier launch; the image folder is not changed."""
    folder = place.write('FROM x\nWORKDIR /app\nCOPY files/ .\nENV OUT=/app/out/x\nCMD ["python", "main.py"]\n')
    (folder / "files" / "main.py").write_text(
        "import os, sys\nprint(sorted(os.listdir()), os.path.exists(os.environ['OUT']))\n"
        "os.makedirs(os.path.dirname(os.environ['OUT']))\nopen(os.environ['OUT'], 'w').close()\n"
        "open('main.py', 'a').write('#')\nopen('new', 'w').close()\n"
    )
    digest = place.runner.image_digest("made")
    for _ in range(2):
        place.run()
        assert place.lines[-1] == "['main.py', 'main.sh'] False"
    assert place.runner.image_digest("made") == digest


def test_large_files_are_read_where_they_are(place: Place) -> None:
    folder = place.write(
        'FROM x\nCOPY files/ /app/\nCMD ["python", "-c", "import os; print(os.stat(\'/app/m\').st_ino)"]\n'
    )
    (folder / "files" / "m").write_bytes(b"x" * (2 << 20))
    place.run()
    assert place.lines[-1] == str((folder / "files" / "m").stat().st_ino)


def test_variables_and_parameters_that_are_a_path_of_the_image_lead_there(place: Place) -> None:
    place.write("FROM x\nCOPY files/ /app/\n", **{"model.txt": "weights"})
    script = (
        "import os; e = os.environ; print(open(e['MODEL']).read(), open(e['CHOSEN']).read(), e['OTHER'], e['HERE'])"
    )
    place.run(
        command=("python", "-c", script),
        env_vars={"MODEL": "/app/model.txt", "OTHER": "see /app/model.txt", "HERE": "/etc/hostname"},
        parameters={"chosen": "/app/model.txt"},
    )
    assert place.lines[-1] == "weights weights see /app/model.txt /etc/hostname"


def test_packages_of_the_dockerfile_are_there_in_its_order(place: Place) -> None:
    place.write(
        "FROM x\nWORKDIR /app\nCOPY files/ .\nRUN pip install --no-cache-dir -r deps.txt && pip install six==1.16.0\n"
        'CMD ["python", "-c", "import six; print(six.__version__)"]\n',
        **{"deps.txt": "six==1.17.0\n"},
    )
    place.run()
    assert place.lines[-1] == "1.16.0"


def test_a_package_in_the_image_is_installed(place: Place) -> None:
    project = '[build-system]\nrequires = []\nbuild-backend = "own"\nbackend-path = ["."]\n'
    backend = (
        "import zipfile\ndef build_wheel(d, s=None, m=None):\n"
        "    n, i = 'own_pkg-1-py3-none-any.whl', 'own_pkg-1.dist-info'\n"
        "    with zipfile.ZipFile(f'{d}/{n}', 'w') as w:\n        w.write('own_pkg.py')\n"
        "        w.writestr(f'{i}/METADATA', 'Metadata-Version: 2.1\\nName: own-pkg\\nVersion: 1\\n')\n"
        "        w.writestr(f'{i}/WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\n"
        "        w.writestr(f'{i}/RECORD', '')\n    return n\n"
    )
    folder = place.write(
        "FROM x\nCOPY files/ /src\nRUN pip install /src/own\n"
        'CMD ["python", "-c", "import own_pkg; print(own_pkg.X)"]\n',
        **{"own/pyproject.toml": project, "own/own.py": backend, "own/own_pkg.py": "X = 1"},
    )
    place.run()
    (folder / "files" / "own" / "own_pkg.py").write_text("X = 2")
    place.run()
    assert [line for line in place.lines if line in ("1", "2")] == ["1", "2"]


def test_a_failed_operator_is_told_once_what_was_not_done(place: Place) -> None:
    folder = place.write('FROM own/base\nRUN apt-get install -y dcmtk\nUSER 1\nCMD ["sh", "-c", "exit 3"]\n')
    for _ in range(2):
        with pytest.raises(OperatorFailed, match="exit code 3, without output"):
            place.run()
    assert [line for line in place.lines if line.startswith("image made, ")] == [
        "image made, line 1: FROM own/base: the process runner has no base image: name its Python packages in "
        "KAAPANA_BASE_REQUIREMENTS",
        "image made, line 2: RUN apt-get install -y dcmtk: needed on this machine, unless only the build needs it: "
        "dcmtk",
    ]
    (folder / "Dockerfile").write_text('FROM debian\nRUN make\nCMD ["sh", "-c", "exit 3"]\n')
    with pytest.raises(OperatorFailed):
        place.run()
    assert place.lines[-1].startswith("image made, line 2: RUN make: is not run")


@pytest.mark.parametrize(
    "pattern",
    [
        "local-only/base-python-cpu",
        "base-python-cpu",
        "local-only/base-python-cpu:latest",
        "registry.example/group/local-only/base-python-cpu:latest",
        "*/base-python-*",
    ],
)
@pytest.mark.parametrize("given", ["base.txt", ["six==1.16.0"]], ids=["file", "list"])
def test_the_packages_of_a_base_image_are_those_of_the_settings(
    tmp_path: Path, pattern: str, given: str | list[str]
) -> None:
    place = Place(tmp_path, BaseRequirements(tmp_path, {"other": ["x"], pattern: given}))
    (tmp_path / "base.txt").write_text("six==1.16.0\n")
    place.write(
        "ARG R=registry.example/group\nFROM ${R}/local-only/base-python-cpu:latest\n"
        'CMD ["python", "-c", "import six; print(six.__version__)"]\n'
    )
    place.run()
    assert place.lines[-1] == "1.16.0"


def test_packages_of_a_base_image_are_in_the_digest(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.write('FROM own/base:1\nCMD ["true"]\n')

    def digest(lines: list[str], pattern: str = "own/base") -> str:
        bases = BaseRequirements(tmp_path, {pattern: lines})
        return ProcessRunner(place.images, tmp_path, bases=bases).image_digest("made")

    assert digest(["six"], "another") == place.runner.image_digest("made")
    assert len({digest(["six"]), digest(["six==1.16.0"]), place.runner.image_digest("made")}) == 3


def test_a_file_of_base_requirements_that_is_not_there_is_said(tmp_path: Path) -> None:
    place = Place(tmp_path, BaseRequirements(tmp_path, {"own/*": "absent.txt"}))
    place.write('FROM own/base\nCMD ["true"]\n')
    with pytest.raises(ConfigurationError, match=r"KAAPANA_BASE_REQUIREMENTS: the file .*absent\.txt of 'own/\*'"):
        place.runner.check()
    with pytest.raises(ConfigurationError, match="KAAPANA_BASE_REQUIREMENTS"):
        place.run()
