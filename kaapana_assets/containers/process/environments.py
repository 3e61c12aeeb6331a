"""Builds Python environments from requirements, each once, and keeps them for all later runs.

A virtual environment contains its own path, so each is built in its final folder, whose name no other
builder uses. A link to that folder is set when the environment is complete; environments are found only by
these links. The next builder removes what a killed one left. The lock only keeps two builders from making the
same environment.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kaapana_assets.child_process import ChildProcess
from kaapana_assets.containers.outcomes import LINES_SHOWN, tail
from kaapana_assets.errors import ConfigurationError
from kaapana_assets.image_builds.dockerfile.stages import Packages
from kaapana_assets.locks import open_lock


@dataclass(frozen=True)
class LocalFiles:
    """The files of an image, for requirements that are paths in the image.

    Attributes:
        digest: returns the digest of all files.
        lay_out: copies the files below a folder.
    """

    digest: Callable[[], str]
    lay_out: Callable[[Path], None]


def environment_for(
    packages: Sequence[Packages],
    *,
    environments: Path,
    output: Callable[[str], None],
    install_variables: Mapping[str, str],
    local: LocalFiles | None = None,
) -> Path:
    """Return the folder of a virtual environment with these packages; build it if it does not exist.

    It is built with the interpreter that runs this process. Other packages or another interpreter make
    another environment.

    Args:
        packages: installations, done in this order; without any, the environment is bare.
        environments: folder of all environments.
        output: called with each line that the installer prints.
        install_variables: environment variables of the installer (package index, certificates).
        local: the image's files, if requirements name some.

    Raises:
        ConfigurationError: the environment cannot be built; the message has the installer's last lines.
    """
    wanted = [each for each in packages if _names_any(each.lines)]
    local = local if any(each.local for each in wanted) else None
    said = [[each.lines, each.constraints, each.options, each.local] for each in wanted]
    text = json.dumps([said, local.digest() if local else None, os.path.realpath(sys.executable), sys.version])
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    link = environments / f"cpython{sys.version_info.major}.{sys.version_info.minor}-{digest[:32]}"
    if link.exists():
        return link.resolve()
    try:
        environments.mkdir(parents=True, exist_ok=True)
        with open_lock(environments / f"{link.name}.lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # released by the kernel when its holders end
            if not link.exists():
                for left in environments.glob(f"{link.name}.build-*"):
                    shutil.rmtree(left, ignore_errors=True)
                build = Path(tempfile.mkdtemp(prefix=f"{link.name}.build-", dir=environments)).resolve()
                if local is not None:
                    local.lay_out(build / "image")
                commands = list(_commands(build, wanted, install_variables))
                _build(commands, build, lock.fileno(), output, install_variables)
                _point(link, build)
    except OSError as exc:
        raise ConfigurationError(f"KAAPANA_ENVIRONMENTS={environments} cannot be written: {exc}") from exc
    return link.resolve()


def _point(link: Path, build: Path) -> None:
    """Set the link atomically; replace a dangling one, whose folder somebody removed."""
    fresh = build / "link"
    fresh.symlink_to(Path(build.name, "environment"))  # relative to its final location, beside the build
    fresh.replace(link)


def _names_any(lines: Sequence[str]) -> bool:
    return any(line.strip() and not line.lstrip().startswith("#") for line in lines)


def _commands(build: Path, packages: Sequence[Packages], variables: Mapping[str, str]) -> Iterator[list[str]]:
    uv, folder = _uv(), build / "environment"
    options = ["--no-progress", "--color", "never"]
    yield [uv, "venv", *options, "--no-project", "--python", sys.executable, str(folder)]
    found_in = [word for place in _find_links(variables) for word in ("--find-links", place)]
    for number, each in enumerate(packages):
        # Written anew, so that exactly what the digest covers is installed, even if the original files change.
        # For the same reason, the lines cannot refer to other files.
        wanted = _written(build / f"requirements-{number}.txt", each, each.lines)
        limits = _written(build / f"constraints-{number}.txt", each, each.constraints)
        install = [uv, "pip", "install", *options, "--compile-bytecode", "--python", str(folder / "bin" / "python")]
        hashed = any("--hash=" in line for line in each.lines) and "--require-hashes" not in each.options
        verified = ["--require-hashes"] if hashed else []  # like pip: if one requirement has a hash, all must
        yield [*install, *found_in, *each.options, *verified, "--constraint", str(limits), "--requirement", str(wanted)]


def _written(file: Path, packages: Packages, lines: Sequence[str]) -> Path:
    root = str(file.parent / "image")
    if packages.local:
        lines = [re.sub(r"^(?:--editable )?(?=/)", lambda found: found[0] + root, line) for line in lines]
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", errors="surrogateescape")
    return file


def _build(
    commands: Sequence[list[str]],
    folder: Path,
    lock: int,
    output: Callable[[str], None],
    variables: Mapping[str, str],
) -> None:
    for command in commands:
        last: deque[str] = deque(maxlen=LINES_SHOWN)

        def heard(line: str, last: deque[str] = last) -> None:
            last.append(line)
            output(line)

        with ChildProcess(command, cwd=folder, environment=_for_uv(variables), keep_open=(lock,)) as child:
            code = child.wait(output=heard)
        if code != 0:
            raise ConfigurationError(f"environment {folder} cannot be made: uv ended with exit code {code}{tail(last)}")


def _uv() -> str:
    from uv import find_uv_bin

    try:
        return find_uv_bin()
    except FileNotFoundError as exc:
        raise ConfigurationError("the program uv is not installed; it comes with the Python package uv") from exc


def _find_links(variables: Mapping[str, str]) -> list[str]:
    return variables.get("PIP_FIND_LINKS", "").split()


def _for_uv(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables, with pip's index settings also under the names that uv reads."""
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
