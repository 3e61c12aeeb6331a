"""Links or copies files from trees that operators can write to into folders of the platform.

Only the content of files is passed on, not the modes, owners and links that an operator gave them.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable, Iterable

from kaapana_assets.errors import UnsafePath
from kaapana_assets.stores.files.transfer import NO_LINK, copy_open
from kaapana_assets.untrusted import SPECIAL_BITS, Folder, Found

_ALL_READ = 0o444


def give_tree(
    source: Folder, target: Folder, *, writable_copy: bool, may_be_linked: Callable[[os.stat_result], bool]
) -> None:
    """Link or copy the files of a tree into another folder. Empty folders are left out, as they are on the shelf.

    Args:
        source: the tree.
        target: a folder that only the platform can write to now.
        writable_copy: copy all files, for an operator that could write through a hard link.
        may_be_linked: returns whether the platform made the other hard links of a file.

    Raises:
        UnsafePath: the tree has something other than plain files, or a hard link that the platform did not make.
        FileExistsError: a file exists in ``target`` already.
    """
    for place, folder, files in source.walk():
        if files:
            with target.below(*(place.split("/") if place else ()), make=True) as there:
                for found in files:
                    if found.status.st_nlink > 1 and not may_be_linked(found.status):
                        raise foreign_link(folder, found)
                    _give(folder, found, there, writable_copy=writable_copy)


def copy_found(folder: Folder, found: Found, target: Folder, *, mode: int | None = None) -> str:
    """Copy a listed file to another folder under the same name. Returns ``sha256:<hex>`` of its content.

    Raises:
        UnsafePath: the file was changed after it was listed.
    """
    with folder.open_file(found.name, found.status) as read, target.create(found.name) as write:
        size, digest = copy_open(read.fileno(), write.fileno(), at_most=found.status.st_size)
        if mode is not None:
            os.fchmod(write.fileno(), mode)
    if size != found.status.st_size:
        raise UnsafePath(f"{folder.path / found.name} was written to while the platform read it")
    return digest


def make_plain(folder: Folder, files: Iterable[Found]) -> None:
    """Clear the special mode bits of the files of a folder, and replace its hard links by copies."""
    for found in files:
        if found.status.st_nlink > 1:
            name = f".{secrets.token_hex(8)}.partial"
            with folder.below(name, make=True) as aside:
                copy_found(folder, found, aside, mode=stat.S_IMODE(found.status.st_mode) & ~SPECIAL_BITS)
                aside.rename(found.name, folder, found.name)
            folder.remove(name)
        elif found.status.st_mode & SPECIAL_BITS:
            with folder.open_file(found.name, found.status) as file:
                os.fchmod(file.fileno(), stat.S_IMODE(found.status.st_mode) & ~SPECIAL_BITS)


def foreign_link(folder: Folder, found: Found) -> UnsafePath:
    """The error for an output file that is a hard link to a file elsewhere."""
    return UnsafePath(
        f"{folder.path / found.name} is a hard link to a file of somebody else: outputs are files of their own"
    )


def _give(folder: Folder, found: Found, target: Folder, *, writable_copy: bool) -> None:
    status = found.status
    plain = status.st_mode & SPECIAL_BITS == 0 and status.st_mode & _ALL_READ == _ALL_READ
    if not writable_copy and plain and status.st_uid == os.geteuid():
        try:
            folder.link(found, target)
        except OSError as exc:
            if exc.errno not in NO_LINK:
                raise
        else:
            return
    copy_found(folder, found, target, mode=0o644 if writable_copy else 0o444)
