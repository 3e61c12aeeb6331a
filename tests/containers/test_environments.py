"""Environments are made once, whole, whoever else makes them or is killed while at it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kaapana_assets.containers.process.environments import environment_for
from kaapana_assets.errors import ConfigurationError
from kaapana_assets.image_builds.dockerfile.stages import Packages


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """A folder with one wheel, so that nothing has to be fetched."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    info = "madeup_package-1.0.dist-info"
    with zipfile.ZipFile(folder / "madeup_package-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("madeup_package.py", "VALUE = 7\n")
        for number in range(300):
            wheel.writestr(f"madeup_data/part_{number}.py", f"PART = {number}\n" * 20)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: madeup-package\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return folder


def variables(wheels: Path) -> dict[str, str]:
    cache = str(wheels.parent / "uv-cache")
    return {**os.environ, "PIP_FIND_LINKS": str(wheels), "PIP_NO_INDEX": "1", "UV_CACHE_DIR": cache}


def make(requirements: str, wheels: Path) -> Path:
    return environment_for(
        [Packages(lines=tuple(requirements.splitlines()))],
        environments=wheels.parent / "environments",
        output=[].append,
        install_variables=variables(wheels),
    )


def value_in(environment: Path) -> str:
    code = "import madeup_package; print(madeup_package.VALUE)"
    return subprocess.run(
        [environment / "bin" / "python", "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def until(holds: Callable[[], bool], *, within_s: float = 60) -> bool:
    end = time.monotonic() + within_s
    waiting = threading.Event()
    while not holds() and time.monotonic() < end:
        waiting.wait(0.002)
    return holds()


def test_packages_come_from_where_pip_is_told_to_look(wheels: Path) -> None:
    environment = make("madeup-package==1.0\n", wheels)
    assert value_in(environment) == "7"
    assert make("madeup-package==1.0\n", wheels) == environment


def test_other_requirements_have_another_environment(wheels: Path) -> None:
    assert make("madeup-package==1.0\n", wheels) != make("# nothing\n", wheels)


def test_requirements_that_cannot_be_met_say_so_and_leave_nothing_behind(wheels: Path) -> None:
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="madeup-package==9"):
            make("madeup-package==9\n", wheels)
    assert value_in(make("madeup-package==1.0\n", wheels)) == "7"


def test_two_at_once_make_one_environment(wheels: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        made = set(pool.map(lambda _: make("madeup-package==1.0\n", wheels), range(4)))
    assert len(made) == 1
    assert value_in(made.pop()) == "7"


_MAKE = """
import os, sys
from pathlib import Path
from kaapana_assets.image_builds.dockerfile.stages import Packages
from kaapana_assets.containers.process.environments import environment_for
wanted = [Packages(lines=(sys.argv[1],))]
environment_for(wanted, environments=Path(sys.argv[2]), output=print, install_variables=dict(os.environ))
"""


@pytest.mark.parametrize("sign", ["bin/python", "lib/*/site-packages/madeup_data/part_1.py"], ids=["venv", "install"])
def test_a_maker_that_was_killed_leaves_nothing_half_made(wheels: Path, sign: str) -> None:
    environments = wheels.parent / "environments"
    maker = subprocess.Popen(
        [sys.executable, "-c", _MAKE, "madeup-package==1.0", str(environments)],
        env=variables(wheels),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert until(lambda: any(environments.glob(f"*/{sign}")) or maker.poll() is not None)
        maker.send_signal(signal.SIGKILL)
    finally:
        maker.kill()
        maker.wait()
    assert value_in(make("madeup-package==1.0\n", wheels)) == "7"
