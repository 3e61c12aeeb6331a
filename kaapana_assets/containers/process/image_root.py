"""The files of an image laid out for one process, and where its absolute paths lead then.

A process sees the file system of this machine. What a Dockerfile copies is therefore put below a folder
of the launch's own, under its path in the image, and the paths in arguments and variables are turned
to it. Paths that a script has in its own text are not.
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
_COPIED_BYTES = 1 << 20  # scripts and settings; what is larger (models) is linked


@dataclass(frozen=True)
class ImageRoot:
    """The root of an image's files for one launch.

    Attributes:
        folder: where they are.
        tree: which they are.
        python: the interpreter of the operator's environment, which stands for all of the image's.
    """

    folder: Path
    tree: Tree
    python: Path

    def on_host(self, text: str) -> str:
        """A text with each path of the image that is in it as a path of this machine.

        Those that were copied, those that may be made in a folder of the image, and interpreters.
        """
        return _PATH.sub(lambda found: self._place(found[0]), text)

    def whole(self, text: str) -> str:
        """The same for a text that is itself the path of something copied; any other is left as it is."""
        return self._below(absolute(text)) if text.startswith("/") and self._has(absolute(text)) else text

    def search_path(self, value: str) -> list[str]:
        """The folders of a PATH that the image itself fills."""
        return [self._below(absolute(each)) for each in value.split(":") if each and self._has(absolute(each))]

    def workdir(self, path: str) -> Path:
        """The working directory of the image."""
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
    """Put the files of an image below a folder: as copies, so that a launch may change its own.

    Args:
        tree: the files.
        folder: where they are put.
        linked: whether large ones are links instead, for operators, which have no more rights than theirs.

    Raises:
        ConfigurationError: a file is no regular file any more.
        OSError: they cannot be written.
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
    # Readable and writable for its owner, whatever the mode: in a container that would be root.
    # No setuid bit either: a container's walls would take its effect away.
    target.chmod(((content.mode if content.mode is not None else stat.st_mode) & 0o777) | 0o600)
    os.utime(target, ns=(stat.st_atime_ns, stat.st_mtime_ns))
