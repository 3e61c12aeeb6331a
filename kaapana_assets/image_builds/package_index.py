"""The configuration of pip on this machine, as build secrets of images.

A build mounts them (``RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf``), so neither addresses
nor passwords of the site become part of the image.
"""

from __future__ import annotations

import configparser
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from kaapana_assets.errors import ConfigurationError

_OPTIONS = ("index-url", "extra-index-url", "find-links", "no-index", "trusted-host", "proxy", "timeout", "retries")
_CERTIFICATES_IN_BUILD = "/run/secrets/ca.pem"  # the default mount path of a secret of that name


def secret_files(folder: Path, environment: Mapping[str, str]) -> dict[str, Path]:
    """Write the build secrets: ``pip.conf``, and ``ca.pem`` if pip uses certificates of its own.

    Args:
        folder: the files are written here; the caller removes them.
        environment: environment variables of this process.

    Returns:
        Paths of the files by secret ID.

    Raises:
        ConfigurationError: a configuration file of pip or the certificates cannot be read.
    """
    configured = _configuration(environment)
    options = {name: configured[name] for name in _OPTIONS if configured.get(name)}
    if "find-links" in options:
        # A build cannot read folders of this machine.
        options["find-links"] = "\n".join(link for link in options["find-links"].split() if "://" in link)
    files: dict[str, Path] = {}
    certificates = configured.get("cert") or environment.get("REQUESTS_CA_BUNDLE") or environment.get("SSL_CERT_FILE")
    if certificates:
        files["ca.pem"] = _copy(Path(certificates), folder / "ca.pem")
        options["cert"] = _CERTIFICATES_IN_BUILD
    files["pip.conf"] = folder / "pip.conf"
    files["pip.conf"].touch(mode=0o600)
    pip_conf = configparser.RawConfigParser()
    pip_conf["global"] = {name: value for name, value in options.items() if value}
    with files["pip.conf"].open("w") as file:
        pip_conf.write(file)
    return files


def _configuration(environment: Mapping[str, str]) -> dict[str, str]:
    """Pip's options by the names of its configuration files; environment variables override the files."""
    found: dict[str, str] = {}
    for file in _files(environment):
        parser = configparser.RawConfigParser()
        try:
            parser.read(file, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError, OSError) as exc:
            raise ConfigurationError(f"pip's configuration {file} cannot be read: {exc}") from exc
        for section in ("global", "install"):
            if parser.has_section(section):
                found.update(parser.items(section))
    prefix = "PIP_"
    found.update(
        (name.removeprefix(prefix).lower().replace("_", "-"), value)
        for name, value in environment.items()
        if name.startswith(prefix) and value
    )
    return found


def _files(environment: Mapping[str, str]) -> Iterator[Path]:
    """Pip's configuration files; later ones override earlier ones."""
    named = environment.get("PIP_CONFIG_FILE", "")
    if named == "/dev/null":  # pip's way to disable all configuration files
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
            f"the certificates {source}, which pip is configured to use, cannot be read: {exc.strerror}; see PIP_CERT, "
            "`cert` in pip.conf, REQUESTS_CA_BUNDLE and SSL_CERT_FILE"
        ) from exc
    return target
