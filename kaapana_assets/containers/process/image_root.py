"""Lays out the files of an image for one process, and translates the image's absolute paths.

A process sees the file system of this machine. The files that a Dockerfile copies are therefore put below a
folder of the launch, under their paths in the image, and paths in arguments and variables are translated to
it. Paths inside a script's own text are not translated.
"""

from __future__ import annotations

import os
import posixpath
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from kaapana_assets.image_builds.dockerfile.shell_commands import PYTHON
from kaapana_assets.image_builds.dockerfile.tree import Content, Tree, absolute

_PATH = re.compile(r"(?<![\w./~+%@})-])/[\w.+@%~-]+(?:/[\w.+@%~-]*)*")
_COPIED_BYTES = 1 << 20  # enough for scripts and settings; larger files (models) are linked


@dataclass(frozen=True)
class ImageRoot:
    """The root folder of an image's files for one launch.

    Attributes:
        folder: the folder that stands for ``/`` of the image.
        tree: the image's files and folders.
        python: the interpreter of the operator's environment, which replaces every interpreter of the image.
    """

    folder: Path
    tree: Tree
    python: Path

    def on_host(self, text: str) -> str:
        """Replace each path of the image in a text by the path on this machine.

        This covers files and folders that were copied, files that may be created in a folder of the image, and
        interpreters.
        """
        return _PATH.sub(lambda found: self._place(found[0]), text)

    def whole(self, text: str) -> str:
        """Translate a text that is, as a whole, the path of a copied file or folder; leave any other unchanged."""
        return self._below(absolute(text)) if text.startswith("/") and self._has(absolute(text)) else text

    def search_path(self, value: str) -> list[str]:
        """Return the folders of a PATH that are in the image's tree, as paths on this machine."""
        return [self._below(absolute(each)) for each in value.split(":") if each and self._has(absolute(each))]

    def workdir(self, path: str) -> Path:
        """Return the image's working directory as a path on this machine."""
        return Path(self._below(path))

    def _place(self, text: str) -> str:
        path = absolute(text)
        if self._has(path) or self._is_to_be_made(path):
            return self._below(path) + ("/" if text.endswith("/") else "")
        return str(self.python) if PYTHON.fullmatch(posixpath.basename(path)) else text

    def _has(self, path: str) -> bool:
        return path != "/" and path in self.tree

    def _is_to_be_made(self, path: str) -> bool:
        above = posixpath.dirname(path)
        while above != "/" and above not in self.tree.folders:
            above = posixpath.dirname(above)
        return above != "/" and not os.path.lexists(path)

    def _below(self, path: str) -> str:
        return f"{self.folder}{path}".rstrip("/")


def lay_out(tree: Tree, folder: Path, *, linked: bool) -> None:
    """Put the files of an image below a folder, as copies, so that each launch may change its own.

    Args:
        tree: the files.
        folder: the target folder.
        linked: whether large files are symbolic links: for launches, not for environments that are kept.

    Raises:
        ConfigurationError: a file is no longer a regular file.
        OSError: the files cannot be written.
    """
    for path in sorted(tree.folders):
        Path(f"{folder}{path}").mkdir(parents=True, exist_ok=True)
    for path, content in tree.files.items():
        _put(content, Path(f"{folder}{path}"), linked=linked)


def _put(content: Content, target: Path, *, linked: bool) -> None:
    if content.file is None:
        target.write_text(content.text, encoding="utf-8")
        target.chmod((content.mode or 0o644) & 0o777)
        return
    with content.file.open() as source:
        stat = os.fstat(source.fileno())
        if linked and stat.st_size > _COPIED_BYTES:
            target.symlink_to(content.file.path)
            return
        with target.open("wb") as copy:
            shutil.copyfileobj(source, copy)
    # Readable and writable for the owner, whatever the mode: in a container, root could do both.
    # Without the setuid bit, which would have no effect in a container either.
    target.chmod(((content.mode if content.mode is not None else stat.st_mode) & 0o777) | 0o600)
    os.utime(target, ns=(stat.st_atime_ns, stat.st_mtime_ns))
