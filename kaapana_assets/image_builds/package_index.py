"""What pip is told on this machine, as files that a build of an image is lent.

A build reads them as secrets (``RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf``), so that
neither addresses nor passwords of the site become part of the image.
"""

from __future__ import annotations

import configparser
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from kaapana_assets.errors import ConfigurationError

_OPTIONS = ("index-url", "extra-index-url", "find-links", "no-index", "trusted-host", "proxy", "timeout", "retries")
_CERTIFICATES_IN_BUILD = "/run/secrets/ca.pem"  # where engines put a secret of that name unless told otherwise


def secret_files(folder: Path, environment: Mapping[str, str]) -> dict[str, Path]:
    """Secrets of a build by their id: ``pip.conf``, and ``ca.pem`` where pip has certificates of its own.

    Args:
        folder: where the files are written, for the caller to remove.
        environment: of this process.

    Raises:
        ConfigurationError: a file of pip's configuration or the certificates cannot be read.
    """
    told = _configuration(environment)
    options = {name: told[name] for name in _OPTIONS if told.get(name)}
    if "find-links" in options:
        # A build does not see this machine's folders.
        options["find-links"] = "\n".join(place for place in options["find-links"].split() if "://" in place)
    files: dict[str, Path] = {}
    certificates = told.get("cert") or environment.get("REQUESTS_CA_BUNDLE") or environment.get("SSL_CERT_FILE")
    if certificates:
        files["ca.pem"] = _copy(Path(certificates), folder / "ca.pem")
        options["cert"] = _CERTIFICATES_IN_BUILD
    files["pip.conf"] = folder / "pip.conf"
    files["pip.conf"].touch(mode=0o600)
    written = configparser.RawConfigParser()
    written["global"] = {name: value for name, value in options.items() if value}
    with files["pip.conf"].open("w") as file:
        written.write(file)
    return files


def _configuration(environment: Mapping[str, str]) -> dict[str, str]:
    """Pip's options by their names in files; the later source wins, the environment over all."""
    told: dict[str, str] = {}
    for file in _files(environment):
        parser = configparser.RawConfigParser()
        try:
            parser.read(file, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError, OSError) as exc:
            raise ConfigurationError(f"pip's configuration {file} cannot be read: {exc}") from exc
        for section in ("global", "install"):
            if parser.has_section(section):
                told.update(parser.items(section))
    prefix = "PIP_"
    told.update(
        (name.removeprefix(prefix).lower().replace("_", "-"), value)
        for name, value in environment.items()
        if name.startswith(prefix) and value
    )
    return told


def _files(environment: Mapping[str, str]) -> Iterator[Path]:
    """Where pip looks, in its order."""
    named = environment.get("PIP_CONFIG_FILE", "")
    if named == "/dev/null":  # pip's way to say: none at all
        return
    home = Path(environment.get("HOME", "/nonexistent"))
    for folder in reversed(environment.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":")):
        yield Path(folder, "pip", "pip.conf")
    yield Path("/etc/pip.conf")
    yield home / ".pip" / "pip.conf"
    yield Path(environment.get("XDG_CONFIG_HOME") or home / ".config", "pip", "pip.conf")
    if environment.get("VIRTUAL_ENV"):
        yield Path(environment["VIRTUAL_ENV"], "pip.conf")
    if named:
        yield Path(named)


def _copy(source: Path, target: Path) -> Path:
    try:
        shutil.copyfile(source, target)
    except OSError as exc:
        raise ConfigurationError(
            f"the certificates {source} that pip is told to use (PIP_CERT or pip.conf) cannot be read: {exc.strerror}"
        ) from exc
    return target
