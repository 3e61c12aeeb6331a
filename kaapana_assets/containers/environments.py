"""Python environments made from requirements, each once, kept for all later runs.

Virtual environments hold their own path, so each is built where it stays, in a folder of a name that
no other builder uses, and is found only by a link that is set when it is whole. What a killed builder
left is in nobody's way and is removed by the next one. The lock only keeps two from doing the same work.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

from kaapana_assets.containers.child import Child
from kaapana_assets.errors import ConfigurationError


def environment_for(
    requirements: Path, *, environments: Path, output: Callable[[str], None], install_variables: Mapping[str, str]
) -> Path:
    """The folder of a virtual environment with these requirements, made now if it is not there.

    Made with the interpreter that runs this, for requirements and interpreter together.

    Args:
        requirements: requirements file; one that is missing or empty gives a bare environment.
        environments: folder of all environments.
        output: called with what the installer prints.
        install_variables: environment of the installer (package index, certificates).

    Raises:
        ConfigurationError: it cannot be made; the message has the installer's last lines.
    """
    text = requirements.read_bytes() if requirements.is_file() else b""
    base = os.path.realpath(sys.executable)
    digest = hashlib.sha256(b"\0".join([text, base.encode(), sys.version.encode()])).hexdigest()
    link = environments / f"cpython{sys.version_info.major}.{sys.version_info.minor}-{digest[:32]}"
    if link.exists():
        return link.resolve()
    try:
        environments.mkdir(parents=True, exist_ok=True)
        with environments.joinpath(f"{link.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # given back by the kernel when its holders end
            if not link.exists():
                for left in environments.glob(f"{link.name}.build-*"):
                    shutil.rmtree(left, ignore_errors=True)
                build = Path(tempfile.mkdtemp(prefix=f"{link.name}.build-", dir=environments)).resolve()
                _build(build / "environment", text, lock.fileno(), output, install_variables)
                _point(link, build)
    except OSError as exc:
        raise ConfigurationError(f"KAAPANA_ENVIRONMENTS={environments} cannot be written: {exc}") from exc
    return link.resolve()


def _point(link: Path, build: Path) -> None:
    """Set the link in one step, also in the place of one whose folder somebody removed."""
    fresh = build / "link"
    fresh.symlink_to(Path(build.name, "environment"))  # read where it will stand, beside the build
    fresh.replace(link)


def _names_any(text: bytes) -> bool:
    return any(line.strip() and not line.lstrip().startswith(b"#") for line in text.splitlines())


def _build(
    folder: Path, requirements: bytes, lock: int, output: Callable[[str], None], variables: Mapping[str, str]
) -> None:
    uv, python = _uv(), folder / "bin" / "python"
    options = ["--no-progress", "--color", "never"]
    commands = [[uv, "venv", *options, "--no-project", "--python", sys.executable, str(folder)]]
    if _names_any(requirements):
        # From a copy: what is installed is what the digest was made of, whatever happens to the file.
        # For the same reason it cannot refer to other files beside it.
        copy = folder.with_name("requirements.txt")
        copy.write_bytes(requirements)
        install = [uv, "pip", "install", *options, "--compile-bytecode", "--python", str(python)]
        found_in = [word for place in _find_links(variables) for word in ("--find-links", place)]
        commands.append([*install, *found_in, "--requirement", str(copy)])
    for command in commands:
        last: deque[str] = deque(maxlen=30)

        def heard(line: str, last: deque[str] = last) -> None:
            last.append(line)
            output(line)

        with Child(command, cwd=folder.parent, environment=_for_uv(variables), keep_open=(lock,)) as child:
            code = child.wait(output=heard)
        if code != 0:
            raise ConfigurationError(
                f"environment {folder} cannot be made: uv ended with exit code {code}\n" + "\n".join(last)
            )


def _uv() -> str:
    from uv import find_uv_bin

    try:
        return find_uv_bin()
    except FileNotFoundError as exc:
        raise ConfigurationError("the program uv is not installed; it comes with the Python package uv") from exc


def _find_links(variables: Mapping[str, str]) -> list[str]:
    return variables.get("PIP_FIND_LINKS", "").split()


def _for_uv(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables, with pip's settings of the index also under the names that uv reads."""
    names = {
        "PIP_INDEX_URL": "UV_DEFAULT_INDEX",
        "PIP_EXTRA_INDEX_URL": "UV_INDEX",
        "PIP_TRUSTED_HOST": "UV_INSECURE_HOST",
        "PIP_CERT": "SSL_CERT_FILE",
        "PIP_NO_INDEX": "UV_NO_INDEX",
    }
    of_pip = {uv: variables[pip] for pip, uv in names.items() if variables.get(pip)}
    given = {
        name: value for name, value in variables.items() if name not in {"VIRTUAL_ENV", "PYTHONHOME", "PYTHONPATH"}
    }
    return {**of_pip, **given}
