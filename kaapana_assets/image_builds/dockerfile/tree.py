"""The files of an image or of a build context, by absolute path.

A tree refers to the content of each file; files are copied only when an operator starts.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import translate

from kaapana_assets.image_builds.files import ImageFile

_PATTERN = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Content:
    """The content of a file: a file of the image folder, or text of the Dockerfile."""

    file: ImageFile | None = None
    text: str = ""
    mode: int | None = None
    """Permission bits set by an instruction; None if none set them."""

    def read_text(self) -> str:
        """The content as text; bytes that are not UTF-8 are replaced."""
        return self.text if self.file is None else self.file.read_text()


def absolute(path: str, folder: str = "/") -> str:
    """The normalized absolute path; a relative path is resolved against ``folder``, never above the root."""
    return "/" + posixpath.normpath(posixpath.join("/", folder, path)).lstrip("/")


@dataclass
class Tree:
    """Files and folders by absolute path; the parents of each path are in ``folders``."""

    files: dict[str, Content] = field(default_factory=dict)
    folders: set[str] = field(default_factory=lambda: {"/"})

    def copy(self) -> Tree:
        """An independent copy."""
        return Tree(dict(self.files), set(self.folders))

    def __contains__(self, path: str) -> bool:
        return path in self.files or path in self.folders

    def add_folder(self, path: str) -> None:
        """Add a folder and its parents."""
        while path not in self.folders:
            self.folders.add(path)
            path = posixpath.dirname(path)

    def add_file(self, path: str, content: Content) -> None:
        """Add a file and its parent folders; replaces a file of that path."""
        self.add_folder(posixpath.dirname(path))
        self.files[path] = content

    def below(self, folder: str) -> Iterator[str]:
        """The files and folders below a folder, without the folder itself."""
        start = folder.rstrip("/") + "/"
        yield from [path for path in (*self.files, *self.folders) if path.startswith(start) and path != "/"]

    def matching(self, pattern: str) -> list[str]:
        """The paths that match a glob; wildcards match within one component, as in Go's filepath.Match."""
        if not _PATTERN.search(pattern):
            plain = absolute(pattern)
            return [plain] if plain in self else []
        parts = [re.compile(translate(part.replace("[^", "[!"))) for part in absolute(pattern).split("/")[1:]]
        return sorted(path for path in (*self.files, *self.folders) if _fits(path.split("/")[1:], parts))

    def change_mode(self, path: str, mode: int) -> None:
        """Set the permission bits of a file, or of all files below a folder."""
        for each in [path, *self.below(path)]:
            if each in self.files:
                self.files[each] = replace(self.files[each], mode=mode)


def _fits(parts: Sequence[str], patterns: Sequence[re.Pattern[str]]) -> bool:
    return len(parts) == len(patterns) and all(
        pattern.match(part) for part, pattern in zip(parts, patterns, strict=True)
    )


def copy_paths(
    source: Tree, patterns: Sequence[str], target: Tree, destination: str, *, mode: int | None = None
) -> list[str]:
    """Copy the paths that match the patterns to a destination, as COPY does.

    The entries of a folder are copied, not the folder itself. A file is copied into the destination if that
    is a folder, ends with a slash or several paths match; otherwise the file becomes the destination.

    Returns:
        The patterns that match no path.
    """
    matches = {pattern: source.matching(pattern) for pattern in patterns}
    count = sum(map(len, matches.values()))
    folder = destination.endswith("/") or count > 1 or absolute(destination) in target.folders
    destination = absolute(destination)
    for path in [path for found in matches.values() for path in found]:
        if path in source.files:
            name = posixpath.join(destination, posixpath.basename(path)) if folder else destination
            _put_file(target, name, source.files[path], mode)
            continue
        target.add_folder(destination)
        for each in source.below(path):
            name = posixpath.join(destination, each[len(path.rstrip("/")) + 1 :])
            if each in source.files:
                _put_file(target, name, source.files[each], mode)
            else:
                target.add_folder(name)
    return [pattern for pattern, found in matches.items() if not found]


def _put_file(target: Tree, path: str, content: Content, mode: int | None) -> None:
    target.add_file(path, content if mode is None else replace(content, mode=mode))
